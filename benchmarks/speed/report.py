"""The results as a file, a table on the screen, and a table in this folder's README."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.timing import Record, Settings
from micraframe.runtime.files import write_json, write_text
from micraframe.runtime.numerics import processor

GROUPS = {
    "maps": "maps:records",
    "masks": "masks:records",
    "preset": "preset:records",
    "sweep": "sweep:records",
    "agreement": "agreement:records",
    "training": "training:records",
    "accuracy": "training:accuracy",
    "forest": "forest:records",
    "growth": "growth:records",
}
"""By name, in the table's order: the module and function that measure."""

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
README = FOLDER / "README.md"
MARK = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)
PACKAGES = (
    "micraframe",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "captum",
    "grad-cam",
    "torchcam",
    "micraframe-forest",
)
COLUMNS = ("", "median", "min", "max", "target", "met", "compared")

Results = dict[str, dict[str, Any]]
"""By group: `measured` (date, machine, versions) and `records`."""


def read(path: Path) -> Results:
    """Return the previous results; none if the file does not exist."""
    results: Results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {group: results[group] for group in GROUPS if group in results}


def update(path: Path, group: str, records: Sequence[Record], settings: Settings) -> None:
    """Replace a group's records; other groups are unchanged."""
    entry = {"measured": circumstances(settings), "records": [dataclasses.asdict(each) for each in records]}
    write_json(path, read(path) | {group: entry})


def circumstances(settings: Settings) -> dict[str, Any]:
    """Return the conditions that a number depends on besides the code."""
    gpu = settings.device.startswith("cuda")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name(settings.device) if gpu else settings.device,
        "threads": torch.get_num_threads(),
        "repeats": settings.repeats,
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _versions() -> dict[str, str]:
    """Return the versions of the installed packages that are measured."""
    installed = {distribution.metadata["Name"].lower() for distribution in metadata.distributions()}
    return {name: metadata.version(name) for name in PACKAGES if name.lower() in installed}


def show(groups: Mapping[str, Sequence[Record]]) -> None:
    """Print one table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if 0 < number < 5 else "left", no_wrap=number < 6)
    for records in groups.values():
        for each in records:
            table.add_row(*cells(each))
    Console(width=None if Console().is_terminal else 200, markup=False, highlight=False).print(table)


def markdown(results: Results) -> str:
    """Return the table of all groups, followed by when and on what each was measured."""
    if not results:
        return "\nNo results are committed yet.\n\n"
    lines = ["", f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * 4 + "---|" * 2]
    for entry in results.values():
        lines += [f"| {' | '.join(cells(Record(**each)))} |" for each in entry["records"]]
    where: dict[str, list[str]] = {}
    for group, entry in results.items():
        measured = entry["measured"]
        packages = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
        text = f"{measured['date']}, {measured['machine']}, {measured['device']}, {measured['threads']} threads, "
        where.setdefault(f"{text}{measured['repeats']} repeats; {packages}", []).append(group)
    lines += [f"\n*{', '.join(groups)}: {text}.*" for text, groups in where.items()]
    return "\n".join([*lines, "", ""])


def render(text: str, results: Results) -> str:
    """Return the README with its table updated."""
    return MARK.sub(lambda match: match[1] + markdown(results) + match[2], text)


def rewrite_readme() -> None:
    """Update the README's table from the committed results."""
    write_text(README, render(README.read_text(encoding="utf-8"), read(RESULTS)))


def cells(each: Record) -> list[str]:
    """Return a record as the cells of a row."""
    unit = {"seconds": " s", "MiB": " MiB"}.get(each.unit, "")
    numbers = [f"{_short(value)}{unit}" for value in (each.median, each.minimum, each.maximum)]
    met = "" if each.met is None else "yes" if each.met else "no"
    return [each.name, *numbers, each.target or "", met, each.compared]


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
