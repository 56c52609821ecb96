"""U-Nets for micraframe: the fully supervised baseline of the MICRA-Net paper, also for weaker annotation."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 2


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the plugin's records."""
    return [
        Component(
            "method",
            "unet",
            "micraframe_unet.method:UNet",
            "U-Net: masks from masks, polygons, boxes, scribbles or points",
            citation="Ronneberger, O., Fischer, P. and Brox, T. U-Net: convolutional networks for biomedical image "
            "segmentation. MICCAI, 234-241 (2015).",
            example={"widths": [4, 8], "training": {"epochs": 1, "batch_size": 4}},
        )
    ]
