"""The control that always looks at the middle, where photographers put what matters."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field

from micraframe.controls.guess import Guess, GuessParams
from micraframe.thresholds import Rule
from micraframe.types import FloatArray


@final
class CentreBlob(Guess):
    """A Gaussian in the middle of the image, stretched with it; one mask for all classes claimed."""

    name = "centre-blob"
    decided_after = frozenset({"presence", "width", "threshold"})

    class Params(GuessParams):
        width: float = Field(0.25, gt=0, description="Sigma as a share of the image's height and width.")
        threshold: Rule = Field(
            Rule(), description="What cuts the map; percentile 80 makes a blob of a fifth of the image."
        )

    def __init__(self, params: Params) -> None:
        self.params: CentreBlob.Params = params

    def draw(self, image: FloatArray, classes: int, seed: int) -> FloatArray:
        """Return the same Gaussian for every class."""
        height, width = image.shape[1:]
        return np.broadcast_to(centre_blob(height, width, self.params.width), (classes, height, width))

    def rule(self) -> Rule:
        """Return the rule of the parameters."""
        return self.params.threshold


def centre_blob(height: int, width: int, share: float) -> FloatArray:
    """Return exp(-(y^2 / H^2 + x^2 / W^2) / (2 share^2)) of positions from the middle, float32 (H, W)."""
    y, x = ((np.arange(length) - (length - 1) / 2) / (length * share) for length in (height, width))
    return np.exp(-(y[:, None] ** 2 + x**2) / 2).astype(np.float32)
