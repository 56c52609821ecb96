"""What commands print: tables for people, JSON for programs, progress of long work."""

from __future__ import annotations

import json
import math
import shutil
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


def width() -> int:
    """Return the width of what is printed: that of the terminal, or of COLUMNS, or 80 columns."""
    return shutil.get_terminal_size().columns


def print_records(records: Sequence[Mapping[str, Any]], as_json: bool, title: str = "") -> None:
    """Print records with the same keys as a table, or as a JSON list; NaN is an empty cell, or null.

    Text is wrapped where the table would be too wide. If even that is not enough, each record is printed as a list.
    """
    if as_json:
        print_json(records)
        return
    if not records:
        print("none")
        return
    if title:
        print(f"{title}\n")
    rows = [{key.replace("_", " "): _text(value) for key, value in record.items()} for record in records]
    if sum(_narrowest(key, [row[key] for row in rows]) + 2 for key in rows[0]) - 2 > width():
        _print_lists(rows)
    else:
        numeric = {
            key.replace("_", " ")
            for key in records[0]
            if all(isinstance(record[key], int | float) for record in records)
        }
        _print_table(rows, numeric)


def print_json(records: Sequence[Mapping[str, Any]]) -> None:
    """Print records as a JSON list; NaN is null."""
    plain = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}
        for record in records
    ]
    print(json.dumps(plain, indent=2, ensure_ascii=False))


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _narrowest(key: str, values: Sequence[str]) -> int:
    """Return the least width of a column: no word is broken."""
    return max(len(word) for text in (key, *values) for word in (text.split() or [""]))


def _print_table(rows: Sequence[Mapping[str, str]], numeric: set[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for key in rows[0]:
        table.add_column(
            key,
            justify="right" if key in numeric else "left",
            min_width=_narrowest(key, [row[key] for row in rows]),
        )
    for row in rows:
        table.add_row(*row.values())
    Console(width=width(), markup=False, highlight=False).print(table)


def _print_lists(rows: Sequence[Mapping[str, str]]) -> None:
    indent = max(map(len, rows[0])) + 2
    for number, row in enumerate(rows):
        if number:
            print()
        for key, text in row.items():
            print(f"{key:{indent}}{text}".rstrip())


def progress() -> Progress:
    """Return progress that draws a bar on a terminal and prints plain lines elsewhere."""
    from micraframe.types import Progress

    class Lines(Progress):
        """Prints a line when a task begins, ends or reports a new number, and otherwise at most every ten seconds."""

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
        """Draws a bar for each task, and hides it when the task is finished unless there is room."""

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
