"""What a plugin's entry module imports: this file, and nothing else of micraframe.

A plugin is a distribution with an entry point in the group `micraframe`. Its entry module declares the version of the
plugin interface that it was written for and returns records. The classes that they name are imported only when somebody
uses them, so a plugin never slows down the command line:

    from micraframe.plugin import Component, hookimpl

    MICRAFRAME_API = 2

    @hookimpl
    def micraframe_components():
        return [Component("combiner", "mean", "mypackage.mean:Mean", "Mean of all layers")]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

API = 2
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
    """One component that a plugin offers, as a record: creating it imports nothing.

    Attributes:
        kind: One of `KINDS`.
        name: What users write: lower-case letters, digits and `+ . _ -`.
        target: Where its class is: `package.module:Class`.
        summary: One line for lists.
        install: What to `pip install` if the target's module cannot be imported; empty if it needs nothing optional.
        citation: What to cite for it; studies that use it print this in their references.
        example: Parameters with which the conformance kit tries it out: those that are required, or make it fast.
        opt_out: Checks of the conformance kit that the example does not pass, each with the reason.

    Raises:
        ValueError: If the kind, name or target is not of this form.
    """

    kind: str
    name: str
    target: str
    summary: str
    install: str = ""
    citation: str = ""
    example: Mapping[str, Any] = field(default_factory=dict, hash=False)
    opt_out: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"component {self.name!r}: expected a kind among {', '.join(KINDS)}, got {self.kind!r}")
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.kind} {self.name!r}: expected a name of lower-case letters, digits and + . _ -, beginning "
                "with a letter or digit"
            )
        if not _TARGET.fullmatch(self.target):
            raise ValueError(
                f"{self.kind} {self.name!r}: expected a target 'package.module:Class', got {self.target!r}"
            )


@hookspec
def micraframe_components() -> Iterable[Component]:
    """Return the records of all components that the plugin offers."""
    raise AssertionError("a hook specification is never called")
