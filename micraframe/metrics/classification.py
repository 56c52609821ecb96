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
    """`correct`: 1 where the presence of the class was decided rightly, else 0; its mean is class-wise accuracy."""

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


def average_precision(labels: BoolArray, scores: FloatArray) -> float:
    """Return the average precision of a ranking: sum over n of (R_n - R_(n-1)) P_n, without interpolation.

    Args:
        labels: bool (N,): which are positive.
        scores: (N,): high means positive.

    Returns:
        NaN where nothing is positive.
    """
    return float(average_precision_score(labels, scores)) if labels.any() else np.nan
