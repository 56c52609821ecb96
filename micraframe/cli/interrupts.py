"""Ctrl-C ends every command with one line instead of a traceback."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

EXIT_CODE: Final = 130
"""By convention, 128 + SIGINT."""

_RESUMABLE: Final = frozenset({"demo", "finetune", "study", "sweep", "train"})


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether the user has interrupted the program since.

    The first interrupt raises `KeyboardInterrupt` as usual; but libraries, interrupted in an import or in a callback,
    turn that into other exceptions, so the signal itself is recorded. A second interrupt ends the process at once:
    every file is written atomically.
    """
    count = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            os._exit(print_interrupted())
        logging.disable(logging.ERROR)  # what Dask reports of workers that it ends
        raise KeyboardInterrupt

    # Only in place of Python's own: a job in the background ignores the signal.
    installed = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if installed:
        signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: count > 0
    finally:
        if installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if count:
            logging.disable(logging.NOTSET)


def print_interrupted() -> int:
    """Say that the program was interrupted, and return its exit code."""
    resumable = not _RESUMABLE.isdisjoint(sys.argv[1:2])
    advice = "; run the same command again to resume" if resumable else ""
    print(f"micraframe: interrupted{advice}", file=sys.stderr, flush=True)
    return EXIT_CODE
