"""The annotator whose outlines are too wide or too narrow, object by object."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from micraframe.annotators.costs import Pricing
from micraframe.annotators.randomness import generator
from micraframe.interfaces import Annotator, Parameters
from micraframe.objects import count, edge_pixels, objects_of, windows
from micraframe.types import Annotation, BoolArray, Cost, IntArray, Sample

_HAIR = 1e-6


@final
class Altered(Annotator):
    """Outlines every object, each dilated or eroded by its own error: the paper's ALT-X (Bilodeau et al. 2022)."""

    class Params(Parameters):
        sigma: float = Field(
            2.0,
            ge=0,
            description="Standard deviation of the error, in pixels; the paper's 2, 5, 10.",
            json_schema_extra={"in_label": True},
        )
        cost: Pricing = Field(Pricing(), description="What it costs.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Cost]:
        """Return the sample with its labels and the altered masks and instances, and what they cost.

        Raises:
            DataError: If the sample has neither masks nor instances.
        """
        objects = objects_of(sample)
        altered = alter(objects, self.params.sigma, generator(seed, sample.id))
        kept = sample.keep({Annotation.LABELS, Annotation.MASKS, Annotation.INSTANCES})
        return (
            replace(kept, masks=altered > 0, instances=altered),
            self.params.cost.cost("outline", edge_pixels(altered), count(objects)),
        )


def alter(instances: IntArray, sigma: float, rng: np.random.Generator) -> IntArray:
    """Dilate or erode each object by r ~ N(0, sigma) pixels, rounded.

    Distances are Euclidean. The image's edge erodes nothing. Of what an object gains, pixels that remain another's are
    the other's, and those that two gain go to the nearer one. An object that would vanish keeps its innermost pixels.

    Args:
        instances: int32 (K, H, W).
        sigma: In pixels.
        rng: Draws one r for each object.

    Returns:
        int32 (K, H, W), with the same numbers.
    """
    altered = np.zeros_like(instances)
    for labels, canvas in zip(instances, altered, strict=True):
        reach = np.zeros(labels.shape)
        for number, window in windows(labels):
            error = round(rng.normal(0, sigma))
            place = _wider(window, 1 + max(0, error))
            own = labels[place] == number
            depth = _depth(own)
            depth += error if depth.max() + error > 0 else 1 - depth.max()
            depth[own & (depth > 0)] = np.inf
            wins = depth > reach[place]
            canvas[place][wins] = number
            reach[place][wins] = depth[wins]
    return altered


def _wider(window: tuple[slice, slice], margin: int) -> tuple[slice, slice]:
    rows, columns = (slice(max(0, part.start - margin), part.stop + margin) for part in window)
    return rows, columns


def _depth(mask: BoolArray) -> npt.NDArray[np.float64]:
    """Return the distance to the outside for each pixel of a mask, and minus the distance to the mask outside of it.

    Whoever gains r pixels gains those with a distance of just r: outside, distances are a hair shorter.
    """
    if mask.all():
        return np.full(mask.shape, np.inf)
    inside, outside = (ndimage.distance_transform_edt(part) for part in (mask, ~mask))
    return np.asarray(np.where(mask, inside, _HAIR - outside))
