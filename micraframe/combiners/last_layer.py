"""The deepest layer alone."""

from __future__ import annotations

from typing import final

from pydantic import Field

from micraframe.combiners.layers import coarse_map, sign_status
from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.types import FloatArray, Maps, Scores
from micraframe.upsampling import Interpolation


@final
class LastLayer(Combiner["LastLayer.Params"]):
    """The deepest layer's map, rectified and divided by its maximum: coarse (the paper's L8)."""

    class Params(Parameters):
        interpolation: Interpolation = Field(
            "nearest", description="Interpolation from cells to pixels: nearest, as in the paper, or bilinear."
        )

    def combine(self, maps: Maps, image: FloatArray) -> Scores:
        """Combine. A class is `empty` if its map is 0, and `negative` if its map has no positive value."""
        values = coarse_map(maps, self.params.interpolation)
        return Scores(maps.presence, maps.classes, values, tuple(map(sign_status, maps.maps[-1])))
