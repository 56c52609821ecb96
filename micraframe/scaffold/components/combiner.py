"""A combiner: it makes one map per class of the maps of all layers."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field

from micraframe.combiners.layers import stretch
from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.types import FloatArray, Maps, Scores
from micraframe.upsampling import upsample


@final
class StretchedMean(Combiner["StretchedMean.Params"]):
    """The mean of all layers, each with its positive evidence stretched to [0, 1]."""

    class Params(Parameters):
        power: float = Field(1.0, gt=0, description="Exponent of the mean: above 1, weak evidence counts less.")

    def combine(self, maps: Maps, image: FloatArray) -> Scores:
        """Combine."""
        positive = (stretch(np.maximum(values, 0))[0] for values in maps.maps)
        layers = [upsample(part, maps.size, layer.stride) for part, layer in zip(positive, maps.layers, strict=True)]
        return Scores(maps.presence, maps.classes, np.mean(layers, axis=0) ** self.params.power)
