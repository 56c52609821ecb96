"""Large blocks of memory, kept for the next computation of the same shape: on Linux, where the system is slow at it.

glibc asks the system for every block above 32 MiB, and gives it back as soon as it is free. The activations of a large
image are such blocks: all their pages are then set to zero by the kernel, one at a time, only to be overwritten, which
takes a third of the time that a sweep computes.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's names of what is set, in malloc.h."""

_KEPT = 1 << 30
"""Bytes: of a block that is still kept, and of what is kept unused at most (at the end of the heap)."""

_MIDDLE = 32 << 20
"""Bytes up to which glibc, left to itself, comes to keep blocks; of what is unused it keeps twice as much."""

_lock = threading.Lock()
_depth = 0


@contextmanager
def reused_blocks() -> Iterator[None]:
    """Keep free blocks of memory, up to 1 GiB, until the end; where there is no glibc, do nothing.

    Holds for all threads of the process. At the end what is unused goes back to the system.
    """
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def release_blocks() -> None:
    """Give what is unused back to the system: blocks of other sizes, between which it would lie idle, are to come."""
    if (library := _glibc()) is not None:
        library.malloc_trim(ctypes.c_size_t(0))


def _enter(step: int) -> None:
    """Count who is inside: the first to come and the last to leave change what holds for all."""
    global _depth  # glibc's settings are the process's, and so is this
    with _lock:
        before, _depth = _depth, _depth + step
        if min(before, _depth) > 0 or (library := _glibc()) is None:
            return
        inside = _depth > 0
        library.mallopt(_MMAP_THRESHOLD, _KEPT if inside else _MIDDLE)
        library.mallopt(_TRIM_THRESHOLD, _KEPT if inside else 2 * _MIDDLE)
        if not inside:
            release_blocks()


def _glibc() -> ctypes.CDLL | None:
    """Return the process's C library; None where it is not glibc."""
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, TypeError, AttributeError):
        return None
