"""The mean of all layers."""

import numpy as np

from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.types import Scores
from micraframe.upsampling import upsample


class Mean(Combiner[Parameters]):
    """The mean of the layers' positive evidence, divided by its maximum."""

    def combine(self, maps, image):
        layers = zip(maps.maps, maps.layers, strict=True)
        mean = np.mean([upsample(np.maximum(values, 0), maps.size, layer.stride) for values, layer in layers], axis=0)
        top = mean.max(axis=(1, 2), keepdims=True)
        return Scores(maps.presence, maps.classes, np.divide(mean, top, out=np.zeros_like(mean), where=top > 0))
