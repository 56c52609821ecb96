"""Mask R-CNN for micraframe."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 2


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the plugin's records."""
    return [
        Component(
            "method",
            "mask-rcnn",
            "micraframe_maskrcnn.method:MaskRcnn",
            "Mask R-CNN on any backbone: objects, learned from instances, boxes or masks",
            citation="He, K., Gkioxari, G., Dollár, P. and Girshick, R. Mask R-CNN. ICCV, 2961-2969 (2017).",
        ),
        Component(
            "head",
            "detections",
            "micraframe_maskrcnn.head:DetectedObjectsHead",
            "Objects from a detector's boxes and masks, best first",
        ),
    ]
