"""What commands print: tables for people, JSON for programs, progress of long work."""

from __future__ import annotations

import atexit
import json
import math
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from micraframe.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from micraframe.types import Progress

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ConfigFile = Annotated[str, typer.Argument(help="A YAML file.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.")]


def width() -> int:
    """Return the width of what is printed: that of the terminal, or of COLUMNS, or 80 columns."""
    return shutil.get_terminal_size().columns


def print_records(records: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print records with the same keys as a table, or as a JSON list."""
    (print_json if as_json else print_table)(records)


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    """Print records with the same keys as a table; NaN, an undefined number, is `-`.

    It has a line for each record, and no column without a value. If a line is too long for the screen, every
    record is printed as a list of its values. In a file or a pipe, lines may have any length.
    """
    if not records:
        print("none")
        return
    filled = [key for key in records[0] if any(not _is_empty(record[key]) for record in records)]
    rows = [{key.replace("_", " "): _text(record[key]) for key in filled} for record in records]
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    if sum(widths.values()) + 2 * (len(widths) - 1) > _longest_line():
        _print_lists(rows)
        return
    numeric = {
        key.replace("_", " ")
        for key in filled
        if all(isinstance(record[key], int | float) or record[key] == "-" for record in records)
    }
    for row in ({key: key for key in widths}, *rows):
        cells = (f"{row[key]:{'>' if key in numeric else '<'}{room}}" for key, room in widths.items())
        print("  ".join(cells).rstrip())


def refuse_other_configuration(path: Path, kind: type[BaseModel]) -> None:
    """Check that an output folder's configuration is an earlier one of the same command, which may be replaced.

    Raises:
        ConfigError: If the file exists and cannot be read as this kind of configuration.
    """
    from micraframe import config

    if not path.exists():
        return
    try:
        config.read(path, kind)
    except ConfigError as error:
        raise ConfigError(
            f"{path}: expected no file, or a configuration that this command wrote, got another file; choose another "
            "--output, or move it"
        ) from error


def _longest_line() -> float:
    """Return how many characters fit into a line; in a file or a pipe, any number unless COLUMNS says otherwise."""
    return width() if sys.stdout.isatty() or os.environ.get("COLUMNS") else math.inf


def print_measures(records: Sequence[Mapping[str, Any]], key: str, as_json: bool, headings: Mapping[str, str]) -> None:
    """Print numbers of metrics, as a table for each value of `key`, under its heading, or as a JSON list.

    Records have this key, and metric, class, value, images and reduction.
    """
    if as_json or not records:
        print_records(records, as_json)
        return
    for value, group in groupby(records, key=lambda record: record[key]):
        print(headings[value])
        rows = [{name: each for name, each in record.items() if name != key} for record in group]
        print_table([row | {"reduction": row["reduction"].partition(" ")[0]} for row in rows])
        print()
    print("mean: over those images in which the number is defined (column images)")
    print("pooled: computed from all images together")


def wrapped(text: str, first: str = "", following: str | None = None) -> str:
    """Return a text in lines as wide as the screen, between words; the later ones begin like the first by default."""
    return textwrap.fill(
        " ".join(text.split()),
        width(),
        initial_indent=first,
        subsequent_indent=first if following is None else following,
        break_long_words=False,
        break_on_hyphens=False,
    )


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


def _print_lists(rows: Sequence[Mapping[str, str]]) -> None:
    indent = max(map(len, rows[0])) + 2
    for number, row in enumerate(rows):
        if number:
            print()
        for key, text in row.items():
            if text:
                print(wrapped(text, f"{key:{indent}}", " " * indent))


def progress() -> Progress:
    """Return progress that draws a bar on a terminal and prints plain lines elsewhere."""
    from micraframe.types import Progress

    class Lines(Progress):
        """Prints a line when a task begins, ends or reports a new quantity, otherwise at most every ten seconds."""

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
        """Draws a bar for each task, and hides it when the task is finished unless there is room; prints messages."""

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
            atexit.register(self._bars.stop)  # or the terminal would be left without a cursor

        def advance(
            self, label: str, done: int, total: int, numbers: Mapping[str, float] = MappingProxyType({})
        ) -> None:
            if label not in self._tasks and _is_message(done, total):
                self._bars.console.print(label, markup=False, highlight=False)
                return
            if label not in self._tasks:
                self._tasks[label] = self._bars.add_task(label, total=total, numbers="")
            shown = "  ".join(_quantities(numbers))
            self._bars.update(self._tasks[label], completed=done, total=total, numbers=shown)
            if done >= total:
                self._bars.update(self._tasks[label], visible=label == "study" or self._bars.console.height > 40)
            if self._bars.finished:
                self._bars.refresh()

    return Bars() if sys.stderr.isatty() else Lines()


def _line(label: str, done: int, total: int, numbers: Mapping[str, float]) -> str:
    steps = "" if _is_message(done, total) else f" {done}/{total}"
    return "  ".join([f"{label}{steps}", *_quantities(numbers)])


def _is_message(done: int, total: int) -> bool:
    """Return whether this reports an event, which has no steps."""
    return done == total == 0


def _quantities(numbers: Mapping[str, float]) -> Iterator[str]:
    """Yield numbers with their names: `loss 0.25`; but of minutes, `about 36 s remaining`."""
    for name, value in numbers.items():
        unit, _, rest = name.partition(" ")
        yield f"about {duration(60 * value)} {rest}" if unit == "minutes" else f"{name} {value:.4g}"


def _is_empty(value: Any) -> bool:
    return value == "" or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return "yes" if value is True else "no" if value is False else str(value)
