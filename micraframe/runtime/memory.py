"""Reuse of freed memory, for the command line: on Linux, where asking the system for large blocks is slow.

glibc asks the system for every block above 32 MiB and returns it as soon as it is freed. The activations of a large
image are such blocks: the kernel zeroes all their pages, one at a time, only for them to be overwritten, which takes a
third of the time of a sweep. The setting holds for the whole process, so no library function may change it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's names of the settings, in malloc.h."""

_KEPT = 1 << 30
"""Bytes: the largest block that is still kept, and the most that is kept unused (at the end of the heap)."""

_DEFAULT = 32 << 20
"""Bytes up to which glibc keeps blocks by default; of unused memory it keeps twice as much."""

_lock = threading.Lock()
_depth = 0


@contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Keep freed blocks of memory, up to 1 GiB, for reuse until the end; without glibc, do nothing.

    Holds for all threads of the process. At the end, unused memory is returned to the system.
    """
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def return_freed_memory() -> None:
    """Return memory that was kept for reuse to the system, when blocks of other sizes are to come."""
    if _depth and (library := _glibc()) is not None:
        library.malloc_trim(ctypes.c_size_t(0))


def _enter(step: int) -> None:
    """Count nested uses: the first to enter and the last to leave change the setting."""
    global _depth  # glibc's settings are the process's, and so is this
    with _lock:
        before, _depth = _depth, _depth + step
        if min(before, _depth) > 0 or (library := _glibc()) is None:
            return
        inside = _depth > 0
        library.mallopt(_MMAP_THRESHOLD, _KEPT if inside else _DEFAULT)
        library.mallopt(_TRIM_THRESHOLD, _KEPT if inside else 2 * _DEFAULT)
        if not inside:
            library.malloc_trim(ctypes.c_size_t(0))


def _glibc() -> ctypes.CDLL | None:
    """Return the process's C library; None where it is not glibc."""
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, TypeError, AttributeError):
        return None
