"""The control that looks nowhere in particular."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field
from scipy import ndimage

from micraframe.controls.guess import Guess, GuessParams
from micraframe.files import digest
from micraframe.thresholds import Rule
from micraframe.types import FloatArray


@final
class RandomMap(Guess):
    """Smooth noise, another for every image and class; seed and image fix it."""

    name = "random-map"
    decided_after = frozenset({"presence", "smoothing", "threshold"})

    class Params(GuessParams):
        smoothing: float = Field(8.0, ge=0, description="Sigma in pixels of the Gaussian that smooths the noise.")
        threshold: Rule = Field(Rule(), description="What cuts the map.")

    def __init__(self, params: Params) -> None:
        self.params: RandomMap.Params = params

    def draw(self, image: FloatArray, classes: int, seed: int) -> FloatArray:
        """Return a random map for each class."""
        return random_maps(image, classes, seed, self.params.smoothing)

    def rule(self) -> Rule:
        """Return the rule of the parameters."""
        return self.params.threshold


def random_maps(image: FloatArray, classes: int, seed: int, smoothing: float) -> FloatArray:
    """Return smooth noise, float32 (K, H, W), each map from 0 to 1, fixed by the seed and the image's content."""
    # By content and not by place in a batch: an image gets its maps whatever it is predicted together with.
    key = digest(str(seed), str(image.shape), np.ascontiguousarray(image).tobytes())
    noise = np.random.default_rng(int(key, 16)).standard_normal((classes, *image.shape[1:]), dtype=np.float32)
    if smoothing:
        noise = ndimage.gaussian_filter(noise, smoothing, axes=(1, 2))
    noise -= noise.min(axis=(1, 2), keepdims=True)
    top = noise.max(axis=(1, 2), keepdims=True)
    return np.asarray(noise / np.where(top > 0, top, 1))
