"""The distance between objects and the true objects that they are associated with, in pixels."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field

from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.association import distances, match_by_distance
from micraframe.metrics.detection import counted_points
from micraframe.metrics.distances import contour_distance
from micraframe.metrics.masks_and_labels import check_same_shape, instances_of, undefined
from micraframe.objects import centroids, windows
from micraframe.parameters import Parameters
from micraframe.types import BoolArray, IntArray, Prediction, Sample

_NAMES = ("object_centroid_distance", "object_contour_distance")


@final
class ObjectDistanceMetric(Metric["ObjectDistanceMetric.Params"]):
    """Median distance of associated objects and of their contours: the spread of annotators in the MICRA-Net paper.

    As many objects as possible are matched one to one with true ones whose centroids are near enough, at the smallest
    sum of distances. Missed and extra objects are not penalised: read these numbers together with F1. Both are
    undefined without a matched pair; the distance of contours needs masks or numbered objects.
    """

    class Params(Parameters):
        distance: float = Field(
            30.0, ge=0, description="Largest distance of the centroids of a pair in pixels; the paper's is 30."
        )

    def columns(self) -> tuple[Column, ...]:
        """Return the two distances."""
        pairs = f"pairs of objects matched one to one within {self.params.distance:g} pixels; undefined without a pair"
        definitions = (
            f"the median distance in pixels between the centroids, over {pairs}",
            f"the median of the mean distance in pixels from either object's contour to the other's, over {pairs}",
        )
        return tuple(
            Column(name, definition, higher_is_better=False, range=(0.0, np.inf))
            for name, definition in zip(_NAMES, definitions, strict=True)
        )

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return the medians of one image."""
        found = undefined(_NAMES, prediction)
        most = self.params.distance
        sides = counted_points(prediction, truth)
        for index, (true, predicted) in enumerate(zip(*sides, strict=True) if sides else ()):
            pairs = match_by_distance(true, predicted[:, :2], most)
            away = distances(true, predicted[:, :2])[pairs[:, 0], pairs[:, 1]]
            found[_NAMES[0]][index] = np.median(away) if len(away) else np.nan
        ones, others = instances_of(truth), instances_of(prediction)
        if ones is None or others is None:
            return found
        check_same_shape(ones, others, truth.id)
        for index, (one, other) in enumerate(zip(ones, others, strict=True)):
            found[_NAMES[1]][index] = median_contour_distance(one, other, most, truth.ignore)
        return found


def median_contour_distance(
    truth: IntArray, predicted: IntArray, most: float, ignore: BoolArray | None = None
) -> float:
    """Return the median, over matched objects of one class, of `contour_distance`; NaN if it is defined for no pair.

    Args:
        truth: int32 (H, W), 0 is background.
        predicted: int32 (H, W).
        most: Largest distance of the centroids of a pair in pixels.
        ignore: bool (H, W): pixels that are not part of a contour.
    """
    sides = [(labels, list(windows(labels)), centroids(labels[None])[0]) for labels in (truth, predicted)]
    found = []
    for pair in match_by_distance(sides[0][2], sides[1][2], most):
        numbers, spans = zip(*(side[1][place] for side, place in zip(sides, pair, strict=True)), strict=True)
        # With a margin, or a contour in the image would look like the image's edge, which is none.
        around = tuple(
            slice(max(0, min(span[axis].start for span in spans) - 1), max(span[axis].stop for span in spans) + 1)
            for axis in (0, 1)
        )
        masks = [side[0][around] == number for side, number in zip(sides, numbers, strict=True)]
        found.append(contour_distance(masks[0], masks[1], None if ignore is None else ignore[around]))
    defined = [value for value in found if not np.isnan(value)]
    return float(np.median(defined)) if defined else np.nan
