"""What commands print: tables for people, JSON for programs, progress for those who wait."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from micraframe.types import Progress

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ConfigFile = Annotated[str, typer.Argument(help="A YAML file.", show_default=False)]
Device = Annotated[str, typer.Option(help="auto (a GPU when there is one), cpu, cuda, cuda:1, mps.")]


def print_records(records: Sequence[Mapping[str, Any]], as_json: bool, title: str = "") -> None:
    """Print records of the same keys as a table or as a JSON list; NaN is an empty cell, or null."""
    if as_json:
        plain = [
            {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}
            for record in records
        ]
        print(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    if not records:
        print("nothing")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, key in enumerate(records[0]):
        numeric = all(isinstance(record[key], int | float) for record in records)
        table.add_column(key.replace("_", " "), justify="right" if numeric else "left", no_wrap=number == 0)
    for record in records:
        table.add_row(*(_text(value) for value in record.values()), style=None)
    # A pipe has no width: there nothing is cut.
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)


def progress() -> Progress:
    """Return a live progress bar on a terminal, and one that prints plain lines elsewhere."""
    from micraframe.types import Progress

    class Lines(Progress):
        """Prints a line when something begins, ends, or has a new number, and at most every ten seconds between."""

        def __init__(self) -> None:
            self._last: dict[tuple[str, ...], float] = {}

        def advance(
            self, label: str, done: int, total: int, numbers: Mapping[str, float] = MappingProxyType({})
        ) -> None:
            now = time.monotonic()
            key = (label, *numbers)
            if done < total and now - self._last.get(key, -math.inf) < 10:
                return
            self._last[key] = now
            print(_line(label, done, total, numbers), file=sys.stderr, flush=True)

    class Bars(Progress):
        """Draws one bar, for what is being done at the moment, and leaves finished ones standing."""

        def __init__(self) -> None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bars = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}", markup=False),
                console=Console(stderr=True),
            )
            self._tasks: dict[str, Any] = {}
            self._bars.start()

        def advance(
            self, label: str, done: int, total: int, numbers: Mapping[str, float] = MappingProxyType({})
        ) -> None:
            if label not in self._tasks:
                self._tasks[label] = self._bars.add_task(label, total=total, numbers="")
            shown = " ".join(f"{key} {value:.4g}" for key, value in numbers.items())
            self._bars.update(self._tasks[label], completed=done, total=total, numbers=shown)
            if done >= total:
                self._bars.update(self._tasks[label], visible=label == "study" or self._bars.console.height > 40)
            if self._bars.finished:
                self._bars.refresh()

    return Bars() if sys.stderr.isatty() else Lines()


def _line(label: str, done: int, total: int, numbers: Mapping[str, float]) -> str:
    return "  ".join([f"{label} {done}/{total}", *(f"{key} {value:.4g}" for key, value in numbers.items())])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "yes" if value is True else "no" if value is False else str(value)
