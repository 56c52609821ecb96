"""Layers chosen by hand, joined pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from micraframe.combiners.layers import Scale, Selection, check_size, coarse_map, select_layers, stretch
from micraframe.combiners.pyramid import Grid, Level, pixels, pyramid, visible
from micraframe.interfaces import Combiner, Parameters
from micraframe.types import FloatArray, Maps, ScoreMap, Status

Join = Literal["mean", "sum", "product", "max", "weights"]


@final
class Select(Combiner):
    """The mean, sum, product, maximum or weighted sum of chosen layers, brought to [0, 1]."""

    class Params(Parameters):
        layers: Selection = Field("all", description="all, all-but-deepest, or the layers' names.")
        join: Join = Field("mean", description="mean, sum, product, max, or weights: the sum of layers times weights.")
        weights: dict[str, FiniteFloat] = Field(
            {}, description="For join: weights, the weight of each layer by its name, in place of `layers`."
        )
        rectify: bool = Field(True, description="Take the positive part of each layer's map.")
        scale: Scale = Field("min-max", description="Of each layer, after rectifying: min-max to [0, 1], or none.")

        @model_validator(mode="after")
        def _weights_fit(self) -> Select.Params:
            if (self.join == "weights") != bool(self.weights):
                raise ValueError("weights are wanted if join is weights, and only then")
            return self

    def __init__(self, params: Params) -> None:
        self.params = params

    def combine(self, maps: Maps, image: FloatArray) -> ScoreMap:
        """See `Combiner.combine`.

        A class is `empty` if its maps are 0, `negative` if rectifying left nothing of them, and `constant` if what
        they were joined to does not vary.
        """
        check_size(maps, image)
        params = self.params
        chosen = select_layers(maps.layers, tuple(params.weights) or params.layers)
        planes = [visible(maps, index) for index in chosen]
        if params.rectify:
            planes = [np.maximum(plane, 0) for plane in planes]
        if params.scale == "min-max":
            planes = [stretch(plane)[0] for plane in planes]
        layers = [maps.layers[index] for index in chosen]
        if params.weights:
            planes = [
                plane * np.float32(params.weights[layer.name]) for layer, plane in zip(layers, planes, strict=True)
            ]
        joined, grid = join(pyramid(layers, planes, maps.size), JOINS[params.join])
        # A mean and a sum are the same here: they differ in a factor.
        joined, contrast = stretch(joined)
        values = grid.spread(joined, pixels(maps.size))
        status = [
            _status([maps.maps[index][number] for index in chosen], params.rectify, bool(varies))
            for number, varies in enumerate(contrast)
        ]
        return ScoreMap(maps.classes, values, coarse_map(maps), tuple(status))


JOINS: dict[Join, np.ufunc] = {
    "mean": np.add,
    "sum": np.add,
    "product": np.multiply,
    "max": np.maximum,
    "weights": np.add,
}


def join(levels: Sequence[Level], operation: np.ufunc) -> tuple[FloatArray, Grid]:
    """Return all layers joined, (K, h, w), and their grid, the first level's.

    It goes from the deepest level to the shallowest, so that each step is done at no more cells than it must.
    """
    joined, last = None, levels[-1].grid
    for grid, values in reversed(levels):
        part = operation.reduce(values, axis=1)
        joined, last = part if joined is None else operation(part, last.spread(joined, grid)), grid
    assert joined is not None
    return joined, last


def _status(chosen: list[FloatArray], rectify: bool, varies: bool) -> Status:
    """Return the status of a class from its chosen maps, each (h, w)."""
    if not any(values.any() for values in chosen):
        return "empty"
    if rectify and not any((values > 0).any() for values in chosen):
        return "negative"
    return "ok" if varies else "constant"
