"""The tables that commands and studies write."""

from __future__ import annotations

import csv
from pathlib import Path


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, each by column."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
