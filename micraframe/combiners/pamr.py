"""Another combiner's map, averaged again and again among neighbours of similar intensity."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from micraframe import registry
from micraframe.combiners.layers import differs, refined_status, stretch
from micraframe.config import Choice, CombinerChoice
from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.types import FloatArray, Maps, Scores

Array = npt.NDArray[Any]

EPSILON = 1e-8
"""Keeps the affinity of pixels without any local contrast defined."""


@final
class Pamr(Combiner["Pamr.Params"]):
    """Pixel-adaptive mask refinement (Araslanov and Roth 2020) of another combiner's map; nothing is rescaled."""

    class Params(Parameters):
        combiner: CombinerChoice = Field(
            Choice(name="micraframe/evidence"), description="The combiner whose map is refined."
        )
        dilations: tuple[PositiveInt, ...] = Field(
            (1, 2, 4, 8, 12, 24),
            min_length=1,
            description="Distances in pixels at which each pixel has eight neighbours.",
        )
        iterations: PositiveInt = Field(10, description="How often the map is averaged.")

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self._combiner = registry.build("combiner", params.combiner.name, **params.combiner.params)

    def combine(self, maps: Maps, image: FloatArray) -> Scores:
        """Combine.

        Classes without a map keep the status from the other combiner. If the image has no contrast, the other
        combiner's result is returned.
        """
        inner = self._combiner.combine(maps, image)
        _, (varies,) = stretch(image.reshape(1, 1, -1))
        if not (varies and inner.classes):
            return inner
        weights = affinities(image, self.params.dilations)
        refined = inner.maps
        for _ in range(self.params.iterations):
            refined = average(refined, weights, self.params.dilations)
        contrast = differs(refined.min((1, 2)), refined.max((1, 2)))
        status = refined_status(inner.status, contrast)
        return dataclasses.replace(inner, maps=np.clip(refined, 0, 1), status=status)


def affinities(image: FloatArray, dilations: Sequence[int]) -> FloatArray:
    """Return the affinity of each pixel to its neighbours, float32 (N, H, W); they sum to 1 over the N neighbours.

    Of pixel i and its neighbour n, with sigma_ci the standard deviation of i and its neighbours in channel c,

        alpha_in = softmax_n(-1/C sum_c |I_ci - I_cn| / (0.1 sigma_ci))

    Araslanov, N. and Roth, S. "Single-stage semantic segmentation from image labels". CVPR 2020.

    Args:
        image: float32 (C, H, W), of any range: only relative differences count.
        dilations: Distances d; the neighbours are at d, in eight directions. Beyond the edge, the image continues.
    """
    count = 8 * len(dilations)
    # Relative to the pixel itself, so that the variance of a bright image loses no digits.
    total, squares = image * 0, image * 0
    for neighbour in neighbours(image, dilations):
        total += neighbour - image
        squares += (neighbour - image) ** 2
    variance = squares / (count + 1) - (total / (count + 1)) ** 2
    deviation = np.sqrt(np.maximum(variance, 0))
    weights = np.empty((count, *image.shape[1:]), np.float32)
    for weight, neighbour in zip(weights, neighbours(image, dilations), strict=True):
        weight[...] = -(np.abs(neighbour - image) / (0.1 * deviation + EPSILON)).mean(0)
    weights -= weights.max(0)
    np.exp(weights, out=weights)
    weights /= weights.sum(0)
    return weights


def average(values: FloatArray, weights: FloatArray, dilations: Sequence[int]) -> FloatArray:
    """Return values (M, H, W), each replaced by the mean of its neighbours, weighted by `affinities` (N, H, W)."""
    mean = np.zeros_like(values)
    for weight, neighbour in zip(weights, neighbours(values, dilations), strict=True):
        mean += weight * neighbour
    return mean


def neighbours(values: Array, dilations: Sequence[int]) -> Iterator[Array]:
    """Yield values (M, H, W) as seen at each neighbour of each pixel, in a fixed order; edges are continued."""
    far = max(dilations)
    height, width = values.shape[1:]
    padded = np.pad(values, ((0, 0), (far, far), (far, far)), mode="edge")
    for distance in dilations:
        for down in (-distance, 0, distance):
            for right in (-distance, 0, distance):
                if down or right:
                    yield padded[:, far + down : far + down + height, far + right : far + right + width]
