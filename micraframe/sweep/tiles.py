"""The results of a sweep on disk: the values of each tile, and the measurements made before the first."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import numpy as np
from pydantic import TypeAdapter

from micraframe.runtime.files import atomic, write_json
from micraframe.types import FloatArray, Normalisation

DIGITS = 16
"""Digits of a sweep's fingerprint in the name of the folder of its tiles."""

_MEASURED = "measured.json"
# Including the temporary files that a killed process leaves behind.
_OURS = re.compile(r"(dense|exact)-\d+-\d+\.npz|measured\.json|\.(dense|exact)-\d+-\d+\.\w+\.npz|\.measured\.\w+\.json")


@dataclass(frozen=True)
class SweepMeasurements:
    """What a sweep measures before it computes a tile; None: not measured yet.

    Attributes:
        normalisation: `fixed` or `none`.
        reach: In cells, as `engine.reach` returns it.
        seconds: Time that measuring the reach took.
    """

    normalisation: Normalisation | None = None
    reach: int | None = None
    seconds: float = 0.0


@final
@dataclass(frozen=True)
class TileStore:
    """The files of one sweep.

    Attributes:
        folder: Its folder, whose name is the fingerprint of everything that determines the values.
    """

    folder: Path

    def measured(self) -> SweepMeasurements:
        """Return the measurements: none if there is no file, or a damaged one."""
        try:
            saved = json.loads((self.folder / _MEASURED).read_text(encoding="utf-8"))
            return TypeAdapter(SweepMeasurements).validate_python(saved)
        except (OSError, ValueError):
            return SweepMeasurements()

    def keep_measured(self, measured: SweepMeasurements) -> None:
        """Write the measurements."""
        write_json(self.folder / _MEASURED, asdict(measured))

    def load(self, mode: str, row: int, column: int) -> tuple[FloatArray, float] | None:
        """Return a tile's values and the seconds that they took; None if it must be computed.

        A file that cannot be read, for example after a power failure, is deleted.
        """
        path = self._path(mode, row, column)
        try:
            # Opened here, because numpy does not close a file that it cannot read.
            with path.open("rb") as stream, np.load(stream) as saved:
                return saved["values"], float(saved["seconds"])
        except FileNotFoundError:
            return None
        # numpy, zip and zlib raise different errors for broken files, and a tile is quickly computed again.
        except Exception:
            path.unlink()
            return None

    def keep(self, mode: str, row: int, column: int, values: FloatArray, seconds: float) -> None:
        """Write a tile."""
        with atomic(self._path(mode, row, column)) as temporary:
            np.savez(temporary, values=values, seconds=seconds)

    def exists(self, mode: str, row: int, column: int) -> bool:
        """Return whether there is a file for this tile, intact or not."""
        return self._path(mode, row, column).exists()

    def _path(self, mode: str, row: int, column: int) -> Path:
        return self.folder / f"{mode}-{row}-{column}.npz"


def forget_others(kept: Path) -> None:
    """Delete the tiles of other sweeps in the same parent folder, but no files that a sweep does not write."""
    for folder in kept.parent.iterdir():
        if folder == kept or folder.is_symlink() or not folder.is_dir():
            continue
        if re.fullmatch(rf"[0-9a-f]{{{DIGITS}}}", folder.name):
            forget_files(folder, _OURS)


def forget_files(folder: Path, names: re.Pattern[str]) -> None:
    """Delete the files whose names match, and then the folder if it is empty."""
    for file in folder.iterdir():
        if names.fullmatch(file.name) and file.is_file():
            file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
