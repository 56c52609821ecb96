"""Components for micraframe. Loaded by every command: it imports nothing but `micraframe.plugin`."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 2


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the plugin's records."""
    return [
        Component("dataset", "discs", "micraframe_example.dataset:Discs", "Drawn discs in noise"),
        Component("backbone", "two-convolutions", "micraframe_example.backbone:TwoConvolutions", "Two convolutions"),
        Component("combiner", "stretched-mean", "micraframe_example.combiner:StretchedMean", "Mean of all layers"),
        Component("metric", "area-difference", "micraframe_example.metric:AreaDifference", "Difference of areas"),
    ]
