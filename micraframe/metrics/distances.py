"""The distance between masks and the truth, in pixels."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.agreement import centroid_distance, contour_distance
from micraframe.metrics.masks_and_labels import check_same_shape, masks_of, undefined
from micraframe.parameters import Parameters
from micraframe.types import Prediction, Sample

COLUMNS: Final = tuple(
    Column(name, f"{definition}; undefined where either has none", higher_is_better=False, range=(0.0, np.inf))
    for name, definition in (
        ("centroid_distance", "the distance in pixels between the centres of mass of the predicted and the true mask"),
        ("contour_distance", "the mean distance in pixels from either mask's contour inside the image to the other's"),
    )
)


@final
class DistanceMetric(Metric[Parameters]):
    """Distances in pixels between the masks' centres of mass and between their contours.

    Both are undefined if a class is missing in truth or prediction, so missed and spurious masks are not penalised:
    read them together with F1 or IoU. Instances count as their union.
    """

    def columns(self) -> tuple[Column, ...]:
        """Return the two distances."""
        return COLUMNS

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return the distances of one image; all NaN if truth or prediction has no masks."""
        names = [column.name for column in COLUMNS]
        true, predicted = masks_of(truth), masks_of(prediction)
        if true is None or predicted is None:
            return undefined(names, prediction)
        check_same_shape(true, predicted, truth.id)
        counted = truth.counted
        rows = [
            (centroid_distance(one & counted, other & counted), contour_distance(one, other, truth.ignore))
            for one, other in zip(true, predicted, strict=True)
        ]
        return dict(zip(names, np.array(rows, np.float32).T, strict=True))
