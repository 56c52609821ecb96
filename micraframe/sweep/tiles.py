"""What is done of a sweep, on the disk: the values of each tile, and what was measured before the first."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import numpy as np
from pydantic import TypeAdapter

from micraframe.files import atomic, write_json
from micraframe.types import FloatArray, Normalisation

DIGITS = 16
"""Of a sweep's fingerprint, in the name of the folder of its tiles."""

_MEASURED = "measured.json"
# With the temporary files that a kill may leave behind.
_OURS = re.compile(r"(dense|exact)-\d+-\d+\.npz|measured\.json|\.(dense|exact)-\d+-\d+\.\w+\.npz|\.measured\.\w+\.json")


@dataclass(frozen=True)
class Measured:
    """What a sweep measures before it computes a tile; None is not measured yet.

    Attributes:
        normalisation: `fixed` or `none`.
        reach: In cells, as `engine.reach` returns it.
        seconds: That measuring the reach took.
    """

    normalisation: Normalisation | None = None
    reach: int | None = None
    seconds: float = 0.0


@final
@dataclass(frozen=True)
class Tiles:
    """The files of one sweep.

    Attributes:
        folder: Is named by the fingerprint of all that decides what the files hold.
    """

    folder: Path

    def measured(self) -> Measured:
        """Return what was measured: nothing if there is no file, or a damaged one."""
        try:
            told = json.loads((self.folder / _MEASURED).read_text(encoding="utf-8"))
            return TypeAdapter(Measured).validate_python(told)
        except (OSError, ValueError):
            return Measured()

    def keep_measured(self, measured: Measured) -> None:
        """Write what was measured."""
        write_json(self.folder / _MEASURED, asdict(measured))

    def load(self, mode: str, row: int, column: int) -> tuple[FloatArray, float] | None:
        """Return a tile's values and the seconds that they took; None if it is to be computed.

        A file that cannot be read is deleted: a loss of power may have cut it short.
        """
        path = self._path(mode, row, column)
        try:
            # Opened here, for numpy does not close a file that it cannot read.
            with path.open("rb") as stream, np.load(stream) as saved:
                return saved["values"], float(saved["seconds"])
        except FileNotFoundError:
            return None
        # numpy, zip and zlib each fail on broken files in their own way, and a tile is soon computed anew.
        except Exception:
            path.unlink()
            return None

    def keep(self, mode: str, row: int, column: int, values: FloatArray, seconds: float) -> None:
        """Write a tile."""
        with atomic(self._path(mode, row, column)) as temporary:
            np.savez(temporary, values=values, seconds=seconds)

    def exists(self, mode: str, row: int, column: int) -> bool:
        """Return whether there is a file of that tile, whole or not."""
        return self._path(mode, row, column).exists()

    def _path(self, mode: str, row: int, column: int) -> Path:
        return self.folder / f"{mode}-{row}-{column}.npz"


def forget_others(kept: Path) -> None:
    """Delete the tiles of other sweeps beside the folder that is kept; of files, only those that a sweep writes."""
    for folder in kept.parent.iterdir():
        if folder == kept or folder.is_symlink() or not folder.is_dir():
            continue
        if not re.fullmatch(rf"[0-9a-f]{{{DIGITS}}}", folder.name):
            continue
        for file in folder.iterdir():
            if _OURS.fullmatch(file.name) and file.is_file():
                file.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
