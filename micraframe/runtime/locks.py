"""Locks between processes, on every operating system: while one process works in a folder, others wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], object]) -> Iterator[None]:
    """Hold a lock file that only one process can hold; it is released when the process ends, however it ends.

    On a file system without locks, as some clusters mount it, nothing is held.

    Args:
        path: The lock file; its folder is created.
        on_wait: Called when another process holds the lock. If it returns, the lock is waited for; it may also raise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    if _acquired(lock) is False:
        on_wait()
        with suppress(OSError, NotImplementedError):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Return whether a process holds a lock file; False on a file system without locks."""
    if not path.exists():
        return False
    lock = FileLock(path)
    acquired = _acquired(lock)
    lock.release()
    return acquired is False


def _acquired(lock: FileLock) -> bool | None:
    """Return whether the lock could be acquired; None on a file system without locks, which raises."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except (OSError, NotImplementedError):
        return None
    return True
