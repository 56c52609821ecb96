"""U-Nets for micraframe, as a plugin: the fully supervised baseline, and what is left of it with weaker annotation."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 1


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the plugin's records."""
    return [
        Component(
            "method",
            "unet",
            "micraframe_unet.method:UNet",
            "U-Net: masks from masks, polygons, boxes, scribbles or points",
            install="micraframe-unet",
        )
    ]
