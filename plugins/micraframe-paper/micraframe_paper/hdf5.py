"""Opens HDF5 files; what is wrong with one becomes an error that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from micraframe.errors import MicraframeError, reason_of


@contextmanager
def opened(path: Path, failure: type[MicraframeError], expected: str, remedy: str) -> Iterator[h5py.File]:
    """Open a file to read it.

    Args:
        path: The file.
        failure: Raised if it cannot be read, or if the block finds that it does not hold what it should.
        expected: What it should be, for the message.
        remedy: What to do, for the message.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise failure(f"{path}: expected {expected}, got something else ({reason_of(error)}); {remedy}") from error
