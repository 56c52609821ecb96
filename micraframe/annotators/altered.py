"""Simulates imprecise outlines: each object is too wide or too narrow by its own random error."""

from __future__ import annotations

from typing import final

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from micraframe.annotators.annotate import outlined
from micraframe.annotators.randomness import sample_generator
from micraframe.interfaces import Annotator
from micraframe.objects import edge_pixels, objects_of, windows
from micraframe.parameters import Parameters
from micraframe.types import BoolArray, IntArray, Sample, Work

_EPSILON = 1e-6


@final
class Altered(Annotator["Altered.Params"]):
    """Outlines every object, dilated or eroded by an error of its own: ALT-X in Bilodeau et al. (2022)."""

    class Params(Parameters):
        sigma: float = Field(
            2.0,
            ge=0,
            description="Standard deviation of the error in pixels; 2, 5 and 10 in the paper.",
            json_schema_extra={"in_label": True},
        )

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
        """Return the sample with its labels and the altered masks and instances.

        Raises:
            DataError: If the sample has neither masks nor instances.
        """
        objects = objects_of(sample)
        altered = alter(objects, self.params.sigma, sample_generator(seed, sample.id))
        return outlined(sample, objects, altered, edge_pixels(altered))


def alter(instances: IntArray, sigma: float, rng: np.random.Generator) -> IntArray:
    """Dilate or erode each object by r ~ N(0, sigma) pixels, rounded.

    Distances are Euclidean, and objects are not eroded from the image's border. A pixel that an object keeps is never
    lost to a neighbour; a pixel claimed by two objects goes to the nearer one. An object that would vanish keeps its
    innermost pixels.

    Args:
        instances: int32 (K, H, W).
        sigma: Standard deviation in pixels.
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
    """Return each pixel's distance to the outside of the mask; for pixels outside, minus the distance to the mask.

    An object dilated by r includes the pixels at a distance of exactly r, so distances outside are reduced by a small
    epsilon.
    """
    if mask.all():
        return np.full(mask.shape, np.inf)
    inside, outside = (ndimage.distance_transform_edt(part) for part in (mask, ~mask))
    return np.asarray(np.where(mask, inside, _EPSILON - outside))
