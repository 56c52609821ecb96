"""How well positions are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from micraframe.errors import DataError
from micraframe.interfaces import Metric, Parameters
from micraframe.metrics.association import f1_score, match_by_distance, match_by_score
from micraframe.metrics.evidence import instances_of, undefined
from micraframe.objects import centroids
from micraframe.types import BoolArray, FloatArray, Prediction, Sample

NAMES = ("detection_precision", "detection_recall", "detection_f1", "detection_average_precision")


@final
class Detection(Metric):
    """Precision, recall and F1 of points that are one to one with the true ones, within a distance.

    Points are those of the prediction or sample, else its objects' centres of mass, else its boxes' middles. All are
    NaN where truth and prediction have no point. Where one of them has none, precision is NaN if nothing was predicted,
    recall if nothing is true, and F1 is 0.

    `detection_average_precision` is the area under the image's own curve of precision against recall, over thresholds
    of the points' scores; NaN where nothing is true or points have no scores.
    """

    class Params(Parameters):
        distance: float = Field(10.0, ge=0, description="Greatest distance in pixels: about the object's radius.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def measure(self, prediction: Prediction, truth: Sample) -> Mapping[str, FloatArray]:
        """Return `detection_precision`, `_recall`, `_f1` and `_average_precision`.

        Raises:
            DataError: If truth and prediction are not of the same classes.
        """
        sides = counted_points(prediction, truth)
        if sides is None:
            return {name: undefined(prediction) for name in NAMES}
        rows = [self._measure(*points) for points in zip(*sides, strict=True)]
        return dict(zip(NAMES, np.array(rows, np.float32).T, strict=True))

    def _measure(self, truth: FloatArray, predicted: FloatArray) -> tuple[float, float, float, float]:
        distance = self.params.distance
        scored = predicted.shape[1] == 3
        area = precision_recall([truth], [predicted], distance).area if scored else np.nan
        return *score_points(truth, predicted[:, :2], distance), area


class PrecisionRecall(NamedTuple):
    """Precision and recall of detections at each threshold, and the area under them.

    Attributes:
        thresholds: float32 (T,), falling: every score that there is, each once.
        precision: float64 (T,): of the detections with a score no lower, the share that are hits.
        recall: float64 (T,), rising: of the true positions, the share that they hit; NaN without any.
        area: Average precision, sum over n of (R_n - R_(n-1)) P_n, without interpolation, which is 0 without a
            detection; NaN where nothing is true.
    """

    thresholds: FloatArray
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    area: float


def precision_recall(truth: Sequence[FloatArray], predicted: Sequence[FloatArray], distance: float) -> PrecisionRecall:
    """Return the curve of one class over all images, which share the thresholds.

    Within an image, points are associated by `match_by_score`.

    Args:
        truth: Of each image, (N, 2).
        predicted: Of each image, (M, 3): y, x, score.
        distance: How far from a true position a hit may be.
    """
    pairs = list(zip(truth, predicted, strict=True))
    hits = [np.zeros(0, bool), *(match_by_score(one, other, distance) for one, other in pairs)]
    scores = [np.zeros(0, np.float32), *(points[:, 2] for points in predicted)]
    return curve_of(np.concatenate(hits), np.concatenate(scores), sum(map(len, truth)))


def curve_of(hit: BoolArray, scores: FloatArray, true: int) -> PrecisionRecall:
    """Return the curve of detections that are known to be hits or not.

    Args:
        hit: bool (M,).
        scores: float32 (M,).
        true: How many positions there were to hit.
    """
    order = np.argsort(-scores, kind="stable")
    # Detections of one score come and go together: the last of them has the count of all.
    last = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True)[: len(order)])
    hits = np.cumsum(hit[order])[last]
    precision, recall = hits / (last + 1), hits / true if true else np.full(len(last), np.nan)
    area = float(np.sum(np.diff(recall, prepend=0) * precision)) if true else np.nan
    return PrecisionRecall(scores[order][last], precision, recall, area)


def score_points(truth: FloatArray, predicted: FloatArray, distance: float) -> tuple[float, float, float]:
    """Return precision, recall and F1 of points, (N, 2) and (M, 2), associated one to one within a distance.

    NaN for precision of no predicted point, recall of no true one, and F1 of neither.
    """
    hits = len(match_by_distance(truth, predicted, distance))
    precision, recall = (hits / len(points) if len(points) else np.nan for points in (predicted, truth))
    return precision, recall, f1_score(hits, len(truth), len(predicted))


def counted_points(
    prediction: Prediction, truth: Sample
) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]] | None:
    """Return per class the points of truth, (N, 2), and prediction, as `points_of`, that are not to be ignored.

    None where either says nothing of where objects are.

    Raises:
        DataError: If truth and prediction are not of the same classes.
    """
    true, predicted = points_of(truth), points_of(prediction)
    if true is None or predicted is None:
        return None
    if len(true) != len(predicted):
        raise DataError(f"{truth.id}: points of {len(true)} classes in truth, of {len(predicted)} in prediction")
    if truth.ignore is None:
        return true, predicted
    ignore = truth.ignore
    return tuple(_outside(points, ignore) for points in true), tuple(_outside(points, ignore) for points in predicted)


def points_of(what: Prediction | Sample) -> tuple[FloatArray, ...] | None:
    """Return per class the points, (y, x), float32 (N, 2), or (y, x, score), (N, 3), where a prediction has such.

    None where nothing says where objects are.
    """
    if what.points is not None:
        return what.points
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
