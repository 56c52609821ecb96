"""How well positions are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
from pydantic import Field

from micraframe.errors import DataError
from micraframe.interfaces import Metric, Parameters
from micraframe.metrics.association import f1_score, match_by_distance
from micraframe.metrics.evidence import instances_of, undefined
from micraframe.objects import centroids
from micraframe.types import BoolArray, FloatArray, Prediction, Sample

NAMES = ("detection_precision", "detection_recall", "detection_f1")


@final
class Detection(Metric):
    """Precision, recall and F1 of points that are one to one with the true ones, within a distance.

    Points are those of the prediction or sample, else its objects' centres of mass, else its boxes' middles. NaN where
    truth and prediction have no point; 0 where one of them has none.
    """

    class Params(Parameters):
        distance: float = Field(10.0, ge=0, description="Greatest distance in pixels: about the object's radius.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def measure(self, prediction: Prediction, truth: Sample) -> Mapping[str, FloatArray]:
        """Return `detection_precision`, `detection_recall` and `detection_f1`.

        Raises:
            DataError: If truth and prediction are not of the same classes.
        """
        true, predicted = points_of(truth), points_of(prediction)
        if true is None or predicted is None:
            return {name: undefined(prediction) for name in NAMES}
        if len(true) != len(predicted):
            raise DataError(f"{truth.id}: points of {len(true)} classes in truth, of {len(predicted)} in prediction")
        if truth.ignore is not None:
            true, predicted = (tuple(_outside(points, truth.ignore) for points in side) for side in (true, predicted))
        rows = [score_points(one, other, self.params.distance) for one, other in zip(true, predicted, strict=True)]
        return dict(zip(NAMES, np.array(rows, np.float32).T, strict=True))


def score_points(truth: FloatArray, predicted: FloatArray, distance: float) -> tuple[float, float, float]:
    """Return precision, recall and F1 of points, (N, 2) and (M, 2), associated one to one within a distance."""
    if not len(truth) + len(predicted):
        return np.nan, np.nan, np.nan
    hits = len(match_by_distance(truth, predicted, distance))
    return hits / max(1, len(predicted)), hits / max(1, len(truth)), f1_score(hits, len(truth), len(predicted))


def points_of(what: Prediction | Sample) -> tuple[FloatArray, ...] | None:
    """Return per class the points, float32 (N, 2): (y, x); None where nothing says where objects are."""
    if what.points is not None:
        return tuple(points[:, :2] for points in what.points)
    instances = instances_of(what)
    if instances is not None:
        return centroids(instances)
    if isinstance(what, Sample) and what.boxes is not None:
        # A box from y0 to y1, its end not included, has its middle between the first and the last pixel.
        return tuple(np.asarray((boxes[:, :2] + boxes[:, 2:] - 1) / 2, np.float32) for boxes in what.boxes)
    return None


def _outside(points: FloatArray, ignore: BoolArray) -> FloatArray:
    y, x = (np.clip(np.rint(points[:, axis]).astype(int), 0, ignore.shape[axis] - 1) for axis in (0, 1))
    return np.asarray(points[~ignore[y, x]])
