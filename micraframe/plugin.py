"""What a plugin's entry module imports: this file, and nothing else of micraframe.

A plugin is a distribution with an entry point in the group `micraframe`. Its entry module declares the version of the
plugin interface it was written for and returns records; the classes they name are imported when somebody asks for
them by name, so that no plugin slows down the command line:

    from micraframe.plugin import Component, hookimpl

    MICRAFRAME_API = 1

    @hookimpl
    def micraframe_components():
        return [Component("combiner", "mean", "mypackage.mean:Mean", "The mean of all layers")]
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pluggy

API = 1
"""The version of the plugin interface that this micraframe offers."""

GROUP = "micraframe"
"""The entry-point group in which plugins are found."""

KINDS = ("dataset", "annotator", "backbone", "extractor", "combiner", "head", "method", "metric")
"""The kinds of component, in the order in which data flows through them."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

_NAME = re.compile(r"[a-z0-9][a-z0-9+._-]*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Component:
    """One component that a plugin offers, as a record: nothing is imported to make it.

    Attributes:
        kind: One of `KINDS`.
        name: What users write: lower case letters, digits and `+ . _ -`.
        target: Where its class is, as `package.module:Class`.
        summary: One line for lists.
        install: What to give `pip install` when the target's module misses something; empty where nothing optional
            is needed.

    Raises:
        ValueError: If one of them is not of that form.
    """

    kind: str
    name: str
    target: str
    summary: str
    install: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"component {self.name!r} has kind {self.kind!r}; a kind is one of {', '.join(KINDS)}")
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.kind} {self.name!r} has an illegal name; use lower case letters, digits and + . _ -, "
                "beginning with a letter or digit"
            )
        if not _TARGET.fullmatch(self.target):
            raise ValueError(f"{self.kind} {self.name!r} has target {self.target!r}; write 'package.module:Class'")


@hookspec
def micraframe_components() -> Iterable[Component]:
    """Return the records of all components that the plugin offers."""
    raise AssertionError("a hook specification is never called")
