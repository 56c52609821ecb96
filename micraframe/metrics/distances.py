"""The distance between masks and the truth, in pixels."""

from __future__ import annotations

from typing import Final, final

import numpy as np
from scipy import ndimage

from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.masks_and_labels import boundary, check_same_shape, masks_of, undefined
from micraframe.parameters import Parameters
from micraframe.types import BoolArray, Prediction, Sample

COLUMNS: Final = tuple(
    Column(name, f"{definition}; undefined where either has none", higher_is_better=False, range=(0.0, np.inf))
    for name, definition in (
        ("centroid_distance", "the distance in pixels between the centres of mass of the predicted and the true mask"),
        ("contour_distance", "the mean distance in pixels from either mask's contour inside the image to the other's"),
    )
)


def centroid_distance(one: BoolArray, other: BoolArray) -> float:
    """Return the distance in pixels between the centres of mass of two masks (H, W); NaN if either is blank."""
    if not (one.any() and other.any()):
        return np.nan
    first, second = (np.array(ndimage.center_of_mass(mask)) for mask in (one, other))
    return float(np.hypot(*(first - second)))


def contour_distance(one: BoolArray, other: BoolArray, ignore: BoolArray | None = None) -> float:
    """Return the mean distance in pixels from the contour of either mask (H, W) to the other's.

    It is the mean over all pixels of both contours, as `boundary` returns them. NaN if a mask has none.

    Args:
        one: bool (H, W).
        other: bool (H, W).
        ignore: bool (H, W): pixels that are not part of a contour.
    """
    counted = np.True_ if ignore is None else ~ignore
    # Contours are found before pixels are ignored: the border of the ignored region is not a contour of the structure.
    edges = [boundary(mask) & counted for mask in (one, other)]
    if not (edges[0].any() and edges[1].any()):
        return np.nan
    away = [ndimage.distance_transform_edt(~edge) for edge in edges]
    return float(np.concatenate([away[1][edges[0]], away[0][edges[1]]]).mean())


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
