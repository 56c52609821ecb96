"""How accurately objects are located."""

from __future__ import annotations

import itertools
from typing import final

import numpy as np
from pydantic import Field

from micraframe.errors import DataError, counted
from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.association import f1_score, match_by_distance, match_by_score
from micraframe.metrics.masks_and_labels import instances_of, undefined
from micraframe.metrics.precision_recall import PrecisionRecall, curve_of
from micraframe.objects import centroids
from micraframe.parameters import Parameters
from micraframe.types import BoolArray, FloatArray, Prediction, Sample

_PER_CLASS = (
    "detection_precision",
    "detection_recall",
    "detection_f1",
    "detection_average_precision",
    "detection_tp",
    "detection_true",
    "detection_predicted",
    "detection_mean_count",
)
_POOLED_AREA = "detection_average_precision_pooled"


@final
class DetectionMetric(Metric["DetectionMetric.Params"]):
    """Precision, recall, F1 and average precision of points, matched one to one with the true ones within a distance.

    The points are those in the prediction or sample, else the centres of mass of its objects, else the centres of its
    boxes. For precision, recall and F1, as many pairs as possible are matched; for average precision, detections are
    matched in the order of their scores.
    """

    class Params(Parameters):
        distance: float = Field(
            10.0, ge=0, description="Largest distance of a match in pixels: about the object's radius."
        )

    def columns(self) -> tuple[Column, ...]:
        """Return the columns for the points of each image, and for the points of all images together."""
        within = f"matched one to one within {self.params.distance:g} pixels"
        pooled = "from the points of all images together"
        return (
            Column(
                "detection_precision",
                f"the share of detections that are {within} with a true position; undefined without a detection",
            ),
            Column(
                "detection_recall",
                f"the share of true positions that are {within} with a detection; undefined without a true position",
            ),
            Column("detection_f1", f"F1 of detections, {within} with true positions"),
            Column(
                "detection_average_precision",
                "the area under precision against recall of the detections, image by image; undefined without a true "
                "position",
            ),
            Column(
                "detection_precision_pooled",
                f"precision of detections, {pooled}",
                numerator="detection_tp",
                denominator="detection_predicted",
            ),
            Column(
                "detection_recall_pooled",
                f"recall of true positions, {pooled}",
                numerator="detection_tp",
                denominator="detection_true",
            ),
            Column(
                "detection_f1_pooled",
                f"F1 of detections, {pooled}",
                numerator="detection_tp",
                denominator="detection_mean_count",
            ),
            Column(
                _POOLED_AREA,
                f"the area under precision against recall of the detections, {pooled}",
                pooled=("detection_true", "detection_predicted", "detection_score@", "detection_hit@"),
            ),
        )

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return the statistics of one image's points.

        These are the columns of single images; `detection_tp`, `_true`, `_predicted` and `_mean_count`, the mean of the
        last two; and the score of each detection, and 1 if it is a hit or else 0, as `detection_score@1`,
        `detection_hit@1` and so on.
        """
        sides = counted_points(prediction, truth)
        if sides is None:
            return undefined(_PER_CLASS, prediction)
        pairs = list(zip(*sides, strict=True))
        ranked = [self._ranked(*pair) for pair in pairs]
        rows = [self._measure(*pair, hit, scores) for pair, (hit, scores) in zip(pairs, ranked, strict=True)]
        found = dict(zip(_PER_CLASS, np.array(rows, np.float32).T, strict=True))
        for number in range(max((len(scores) for _, scores in ranked), default=0)):
            for name, part in (("score", 1), ("hit", 0)):
                values = [each[part][number] if number < len(each[part]) else np.nan for each in ranked]
                found[f"detection_{name}@{number + 1}"] = np.array(values, np.float32)
        return found

    def reduce(self, statistics: Statistics) -> Statistics:
        """Return the means and ratios, and the average precision of the detections of all images."""
        areas = np.array([curve.area for curve in pooled_curves(statistics)])
        return {**super().reduce(statistics), _POOLED_AREA: areas}

    def _ranked(self, truth: FloatArray, predicted: FloatArray) -> tuple[BoolArray, FloatArray]:
        """Return which detections are hits, and their scores; both are empty if detections have no scores."""
        if predicted.shape[1] != 3:
            return np.zeros(0, bool), np.zeros(0, np.float32)
        return match_by_score(truth, predicted, self.params.distance), predicted[:, 2]

    def _measure(
        self, truth: FloatArray, predicted: FloatArray, hit: BoolArray, scores: FloatArray
    ) -> tuple[float, ...]:
        matched = len(match_by_distance(truth, predicted[:, :2], self.params.distance))
        area = curve_of(hit, scores, len(truth)).area if predicted.shape[1] == 3 else np.nan
        counts = len(truth), len(predicted)
        recall, precision = (matched / count if count else np.nan for count in counts)
        return precision, recall, f1_score(matched, *counts), area, matched, *counts, sum(counts) / 2


def pooled_curves(statistics: Statistics) -> list[PrecisionRecall]:
    """Return, for each class, precision against recall of the detections of all images, which share the thresholds.

    Args:
        statistics: Statistics of N images, each (N, K), from `DetectionMetric`.

    Returns:
        K curves; empty ones, with an area of NaN, for classes whose detections have no scores.
    """
    counts = (np.nansum(statistics[f"detection_{side}"], axis=0).astype(int) for side in ("true", "predicted"))
    ranks = itertools.takewhile(lambda rank: f"detection_score@{rank}" in statistics, itertools.count(1))
    columns = [(statistics[f"detection_score@{rank}"], statistics[f"detection_hit@{rank}"]) for rank in ranks]
    curves = []
    for index, (true, predicted) in enumerate(zip(*counts, strict=True)):
        scores, hits = (
            np.concatenate([np.zeros(0), *(np.asarray(pair[part])[:, index] for pair in columns)]) for part in (0, 1)
        )
        known = ~np.isnan(scores)
        if np.count_nonzero(known) < predicted:  # some have no score
            known[:], true = False, 0
        curves.append(curve_of(hits[known] == 1, scores[known].astype(np.float32), int(true)))
    return curves


def counted_points(
    prediction: Prediction, truth: Sample
) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]] | None:
    """Return per class the points of truth, (N, 2), and prediction, as `_points_of`, outside of the ignored pixels.

    None if either has no points, objects or boxes.

    Raises:
        DataError: If truth and prediction do not have the same classes.
    """
    true, predicted = _points_of(truth), _points_of(prediction)
    if true is None or predicted is None:
        return None
    if len(true) != len(predicted):
        raise DataError(
            f"{truth.id}: expected predicted points of {counted(len(true), 'class', 'classes')}, as in the truth, got "
            f"{len(predicted)}"
        )
    where = truth.counted
    return tuple(_inside(points, where) for points in true), tuple(_inside(points, where) for points in predicted)


def _points_of(source: Prediction | Sample) -> tuple[FloatArray, ...] | None:
    """Return per class the points, (y, x), float32 (N, 2), or (y, x, score), (N, 3), if a prediction has scores.

    None if there are no points, objects or boxes.
    """
    if source.points is not None:
        return source.points
    instances = instances_of(source)
    if instances is not None:
        return centroids(instances)
    if isinstance(source, Sample) and source.boxes is not None:
        # A box from y0 to y1, end exclusive, has its centre between the first and the last pixel.
        return tuple(np.asarray((boxes[:, :2] + boxes[:, 2:] - 1) / 2, np.float32) for boxes in source.boxes)
    return None


def _inside(points: FloatArray, where: BoolArray) -> FloatArray:
    y, x = (np.clip(np.rint(points[:, axis]).astype(int), 0, where.shape[axis] - 1) for axis in (0, 1))
    return np.asarray(points[where[y, x]])
