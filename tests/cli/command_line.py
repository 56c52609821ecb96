"""How tests run the command line in their own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from micraframe.cli import app


class Ran(NamedTuple):
    """The exit code of a command, and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Ran]
"""What the fixture `command` gives."""


def run(*words: object) -> None:
    """Run a command, whose errors are raised; for fixtures that several tests share."""
    app([str(word) for word in words], standalone_mode=False)
