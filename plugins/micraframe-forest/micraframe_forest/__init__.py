"""A random forest on ilastik's pixel features, as a plugin of micraframe."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 2


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the plugin's records."""
    return [
        Component(
            "method",
            "forest",
            "micraframe_forest.method:Forest",
            "A random forest on ilastik's pixel features, from scribbles, points, boxes or masks",
            citation="Berg, S. et al. ilastik: interactive machine learning for (bio)image analysis. Nature Methods "
            "16, 1226-1232 (2019).",
            example={"trees": 5, "pixels": 500},
        )
    ]
