"""How well the presence of classes is decided, and ranked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
from sklearn.metrics import average_precision_score

from micraframe.interfaces import Metric, Parameters
from micraframe.metrics.evidence import check_fit, labels_of, undefined
from micraframe.types import BoolArray, FloatArray, Prediction, Sample


@final
class Classification(Metric):
    """How well the presence of classes is decided, and how well images are ranked by it.

    `correct`: 1 where the presence of the class was decided rightly, else 0; its mean is class-wise accuracy.

    `average_precision`: of an image that holds the class, how many of the images with a score no lower hold it too. The
    mean over the images of a class is the class's average precision. Images rank one another, so that an interval that
    takes them for independent is an approximation.
    """

    class Params(Parameters):
        pass

    def __init__(self, params: Params) -> None:
        self.params = params

    def measure(self, prediction: Prediction, truth: Sample) -> Mapping[str, FloatArray]:
        """Return `correct`; NaN where the truth does not say.

        Raises:
            DataError: If truth and prediction are not of the same classes.
        """
        labels = labels_of(truth)
        if labels is None:
            return {"correct": undefined(prediction)}
        check_fit(labels, prediction.present, truth.id)
        return {"correct": (labels == prediction.present).astype(np.float32)}

    def rank(self, scores: FloatArray, labels: FloatArray) -> Mapping[str, FloatArray]:
        """Return `average_precision`; NaN where the class is not in the image."""
        columns = [precision_at_rank(*column) for column in zip(labels.T, scores.T, strict=True)]
        return {"average_precision": np.stack(columns, axis=1)}


def precision_at_rank(labels: FloatArray, scores: FloatArray) -> FloatArray:
    """Return for each positive item how many of the items with a score no lower are positive.

    Args:
        labels: (N,): 1, 0, or NaN where nothing is known, and such items do not count.
        scores: (N,): high means positive.

    Returns:
        float32 (N,), in (0, 1], whose mean is `average_precision`; NaN for what is not positive.
    """
    positive = labels == 1
    above = [
        some.size - np.searchsorted(some, scores, side="left")
        for some in (np.sort(scores[positive]), np.sort(scores[~np.isnan(labels)]))
    ]
    return np.where(positive, above[0] / np.maximum(above[1], 1), np.nan).astype(np.float32)


def average_precision(labels: BoolArray, scores: FloatArray) -> float:
    """Return the average precision of a ranking: sum over n of (R_n - R_(n-1)) P_n, without interpolation.

    Args:
        labels: bool (N,): which are positive.
        scores: (N,): high means positive.

    Returns:
        NaN where nothing is positive.
    """
    return float(average_precision_score(labels, scores)) if labels.any() else np.nan
