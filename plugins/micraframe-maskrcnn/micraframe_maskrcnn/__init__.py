"""Mask R-CNN for micraframe."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 2

_EXAMPLE = {
    "backbone": {"name": "micraframe/unet-encoder", "params": {"widths": [8, 16, 32]}},
    "strides": [2, 4],
    "pyramid": 16,
    "box_head": 32,
    "mask_head": [16],
    "anchors": [3.0, 5.0],
    "ratios": [1.0],
    "rois_per_image": 32,
    "training": {"epochs": 2, "batch_size": 4},
}
"""Parameters of a small network, which learns for two epochs."""


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
            example=_EXAMPLE,
        ),
        Component(
            "head",
            "detections",
            "micraframe_maskrcnn.head:DetectedObjectsHead",
            "Objects from a detector's boxes and masks, best first",
        ),
    ]
