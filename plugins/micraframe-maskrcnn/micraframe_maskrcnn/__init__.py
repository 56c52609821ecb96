"""Mask R-CNN for micraframe."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 1


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the records of the method and of its head."""
    return [
        Component(
            "method",
            "mask-rcnn",
            "micraframe_maskrcnn.method:MaskRcnn",
            "Mask R-CNN on any backbone: objects, learned from instances, boxes or masks",
        ),
        Component(
            "head",
            "detections",
            "micraframe_maskrcnn.head:Detections",
            "Objects from a detector's boxes and masks, the better one before the others",
        ),
    ]
