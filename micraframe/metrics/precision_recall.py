"""Precision against recall of ranked items, and the areas under this curve and the ROC curve."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe.types import BoolArray, FloatArray


class PrecisionRecall(NamedTuple):
    """Precision and recall at each threshold, and the area under the curve.

    Attributes:
        thresholds: float32 (T,), falling: the distinct scores.
        precision: float64 (T,): share of the items with at least this score that are positive.
        recall: float64 (T,), rising: share of the positives that have at least this score; NaN without positives.
        area: Average precision, sum over n of (R_n - R_(n-1)) P_n, without interpolation; 0 if no item is positive but
            some positives were missed, NaN without positives.
    """

    thresholds: FloatArray
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    area: float


def curve_of(positive: BoolArray, scores: FloatArray, positives: int) -> PrecisionRecall:
    """Return the curve of ranked items.

    Args:
        positive: bool (M,): which items are positive, such as detections that are hits.
        scores: float32 (M,): high means positive.
        positives: Number of positives, including those that are not among the items.
    """
    order = np.argsort(-scores, kind="stable")
    # Items of equal score pass a threshold together: the last of them has the count of all.
    last = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True)[: len(order)])
    hits = np.cumsum(positive[order])[last]
    precision, recall = hits / (last + 1), hits / positives if positives else np.full(len(last), np.nan)
    # Summed from the lowest threshold up, as scikit-learn does, so that both agree to the last bit.
    steps = np.diff(np.append(recall[::-1], 0.0)) * precision[::-1]
    return PrecisionRecall(
        scores[order][last], precision, recall, max(0.0, -float(steps.sum())) if positives else np.nan
    )


def average_precision(labels: BoolArray, scores: FloatArray) -> float:
    """Return the average precision of a ranking.

    Args:
        labels: bool (N,): which items are positive.
        scores: (N,): high means positive.

    Returns:
        NaN if no item is positive, or all are: nothing is ranked then, and any scores would reach 1.
    """
    positives = int(np.count_nonzero(labels))
    return curve_of(labels, scores, positives).area if positives < len(labels) else np.nan


def area_under_roc(positive: BoolArray, values: npt.NDArray[Any]) -> float:
    """Return the probability that a positive's value is above another's, ties counting half; 1/2 if either is missing.

    It is U / (|P| |not P|) with the statistic U of Mann and Whitney (1947).

    Args:
        positive: bool, of any shape.
        values: Of the same shape.
    """
    from scipy import stats  # takes a second, and only training needs it

    count = int(np.count_nonzero(positive))
    others = positive.size - count
    if not count or not others:
        return 0.5
    ranks = stats.rankdata(values, axis=None)[positive.ravel()]
    return float((ranks.sum() - count * (count + 1) / 2) / (count * others))
