"""A plugin with one minimal component of every kind but annotator."""

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 2


@hookimpl
def micraframe_components():
    return [
        Component("dataset", "arrays", "minimal.dataset:Arrays", "NumPy files of an image and its instances"),
        Component("backbone", "two-layers", "minimal.backbone:TwoLayers", "Two convolutions"),
        Component("extractor", "cam", "minimal.extractor:Cam", "CAM of the deepest layer"),
        Component("combiner", "mean", "minimal.combiner:Mean", "The mean of all layers"),
        Component("head", "half", "minimal.head:AboveHalf", "The pixels above one half"),
        Component("method", "brightness", "minimal.method:Brightness", "Bright pixels are structures"),
        Component("metric", "area-error", "minimal.metric:AreaError", "Difference of the masks' areas"),
    ]
