"""Selected layers, combined pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from micraframe.combiners.layers import Scale, Selection, select_layers, stretch
from micraframe.combiners.pyramid import Grid, Level, pixels, pyramid, visible
from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.types import FloatArray, Maps, Scores, Status

Join = Literal["mean", "sum", "product", "max", "weights"]


@final
class Select(Combiner["Select.Params"]):
    """The mean, sum, product, maximum or weighted sum of selected layers, scaled to [0, 1]."""

    class Params(Parameters):
        layers: Selection = Field("all", description="Layers: all, all-but-deepest, or their names.")
        join: Join = Field(
            "mean", description="How layers are combined: mean, sum, product, max, or weights (weighted sum)."
        )
        weights: dict[str, FiniteFloat] = Field(
            {}, description="For join: weights, the weight of each layer by its name, in place of `layers`."
        )
        rectify: bool = Field(True, description="Take the positive part of each layer's map.")
        scale: Scale = Field(
            "min-max", description="Scaling of each layer, after rectifying: min-max to [0, 1], or none."
        )

        @model_validator(mode="after")
        def _weights_fit(self) -> Select.Params:
            if (self.join == "weights") != bool(self.weights):
                raise ValueError(
                    f"expected weights if join is weights, and only then, got join {self.join} and {self.weights}"
                )
            return self

    def combine(self, maps: Maps, image: FloatArray) -> Scores:
        """Combine.

        A class is `empty` if its maps are 0, `negative` if they have no positive value to keep, and `constant` if the
        joined map does not vary.
        """
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
        # A mean and a sum differ in a factor only, which scaling removes.
        joined, contrast = stretch(joined)
        values = grid.spread(joined, pixels(maps.size))
        status = [
            _status([maps.maps[index][number] for index in chosen], params.rectify, bool(varies))
            for number, varies in enumerate(contrast)
        ]
        return Scores(maps.presence, maps.classes, values, tuple(status))


JOINS: dict[Join, np.ufunc] = {
    "mean": np.add,
    "sum": np.add,
    "product": np.multiply,
    "max": np.maximum,
    "weights": np.add,
}


def join(levels: Sequence[Level], operation: np.ufunc) -> tuple[FloatArray, Grid]:
    """Return all layers joined, (M, h, w), and their grid, the first level's.

    From the deepest level to the shallowest, so that each step works on as few cells as possible.
    """
    joined, last = None, levels[-1].grid
    for grid, values in reversed(levels):
        part = operation.reduce(values, axis=1)
        joined, last = part if joined is None else operation(part, last.spread(joined, grid)), grid
    assert joined is not None
    return joined, last


def _status(chosen: list[FloatArray], rectify: bool, varies: bool) -> Status:
    """Return the status of a class from its selected maps, each (h, w)."""
    if not any(values.any() for values in chosen):
        return "empty"
    if rectify and not any((values > 0).any() for values in chosen):
        return "negative"
    return "ok" if varies else "constant"
