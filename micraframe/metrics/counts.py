"""How well objects are counted."""

from __future__ import annotations

import math
from typing import Final, final

import numpy as np

from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.detection import counted_points
from micraframe.metrics.masks_and_labels import undefined
from micraframe.parameters import Parameters
from micraframe.types import Prediction, Sample

ANY: Final = (0.0, math.inf)

COLUMNS: Final = (
    Column(
        "count_error",
        "the absolute difference between the predicted and the true number of objects in an image",
        higher_is_better=False,
        range=ANY,
    ),
    Column(
        "count_excess",
        "how many objects too many an image has, 0 where it has too few; minus the shortfall it is the bias",
        higher_is_better=False,
        range=ANY,
    ),
    Column(
        "count_shortfall",
        "how many objects too few an image has, 0 where it has too many",
        higher_is_better=False,
        range=ANY,
    ),
    Column(
        "count_relative_error",
        "the sum of the images' count errors, divided by the number of true objects",
        higher_is_better=False,
        range=ANY,
        numerator="count_error",
        denominator="count_true",
    ),
)


@final
class CountMetric(Metric[Parameters]):
    """Errors of the number of objects in each image, wherever they are.

    What counts as an object is as in the metric `detection`: a point, else an instance or a connected component of the
    mask, else a box. Errors of different images do not cancel out.
    """

    def columns(self) -> tuple[Column, ...]:
        """Return the mean error and its two parts, and the relative error over all images."""
        return COLUMNS

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return the errors of one image, and the counts that they compare: `count_true` and `count_predicted`.

        All are NaN if truth or prediction has neither points nor objects nor boxes.
        """
        names = ("count_error", "count_excess", "count_shortfall", "count_true", "count_predicted")
        sides = counted_points(prediction, truth)
        if sides is None:
            return undefined(names, prediction)
        true, predicted = (np.array([len(points) for points in side], np.float32) for side in sides)
        excess = predicted - true
        parts = (np.abs(excess), np.maximum(excess, 0), np.maximum(-excess, 0), true, predicted)
        return dict(zip(names, parts, strict=True))
