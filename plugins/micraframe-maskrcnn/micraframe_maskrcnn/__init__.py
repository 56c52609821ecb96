"""Mask R-CNN for micraframe."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 1


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the record of the method."""
    return [
        Component(
            "method",
            "mask-rcnn",
            "micraframe_maskrcnn.method:MaskRcnn",
            "Mask R-CNN on any backbone: objects, learned from instances, boxes or masks",
        )
    ]
