"""A random forest on ilastik's pixel features, as a plugin of micraframe."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 1


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the record of the method."""
    return [
        Component(
            "method",
            "forest",
            "micraframe_forest.method:Forest",
            "A random forest on ilastik's pixel features, from scribbles, points, boxes or masks",
        )
    ]
