"""CSV files of dataclass records: a column for each field; NaN is an empty cell."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, final

from micraframe.runtime.files import atomic


def write_csv(path: Path, records: Iterable[Any], kind: type[Any]) -> None:
    """Write records of one dataclass atomically; a field `class_` becomes the column `class`."""
    with atomic(path) as temporary, CsvStream(temporary) as stream:
        stream.write(records, kind)


@final
class CsvStream(AbstractContextManager["CsvStream"]):
    """A CSV file that grows: what was written stays if the program is interrupted.

    The file is created by the first write, which may be of no records.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: Any = None

    def write(self, records: Iterable[Any], kind: type[Any]) -> None:
        """Append records of one dataclass, always the same."""
        names = [field.name for field in fields(kind)]
        if self._stream is None:
            self._stream = self._path.open("w", newline="", encoding="utf-8")
            csv.writer(self._stream, lineterminator="\n").writerow(name.rstrip("_") for name in names)
        writer = csv.writer(self._stream, lineterminator="\n")
        writer.writerows([_cell(getattr(record, name)) for name in names] for record in records)
        self._stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        # Nine digits give every float32 back; more would be noise.
        return "" if math.isnan(value) else format(value, ".9g")
    return value
