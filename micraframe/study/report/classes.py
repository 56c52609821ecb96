"""Class by class: how well presence was recognised, and, apart from that, how well present classes were segmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe.interfaces import Statistics, quotient
from micraframe.study.report.results import DatasetResults, MethodResult
from micraframe.study.tables import Values

Double = npt.NDArray[np.float64]

SEGMENTATION = "iou_if_present"
"""The metric of images that contain the class, if it was measured."""


class Confusion(NamedTuple):
    """How often a class was present and found, means over trained models, (K,) each."""

    hits: Double
    misses: Double
    false_alarms: Double
    rejections: Double

    @property
    def sensitivity(self) -> Double:
        """Share of the images with the class in which it was found; NaN where there are none."""
        return quotient(self.hits, self.hits + self.misses)

    @property
    def specificity(self) -> Double:
        """Share of the images without the class in which it was not found; NaN where there are none."""
        return quotient(self.rejections, self.rejections + self.false_alarms)

    def total(self) -> Confusion:
        """Return the sums over classes, (1,) each."""
        return Confusion(*(values.sum(keepdims=True) for values in self))


@dataclass(frozen=True)
class ClassResults:
    """Results class by class.

    Attributes:
        positives: Number of test images with each class; empty where presence was not measured.
        presence: Per method, its confusion.
        segmentation: Per method, the metric for each class, mean over trained models, and over all, (K,).
        metric: The metric of `segmentation`: `iou_if_present`, or else the primary one.
    """

    positives: tuple[int, ...]
    presence: tuple[tuple[MethodResult, Confusion], ...]
    segmentation: tuple[tuple[MethodResult, Double], ...]
    metric: str


def class_results(found: DatasetResults, values: Values) -> ClassResults:
    """Return the results of all methods on a dataset, with fixed thresholds."""
    measured = {name for result in found.results for _, name in result.summaries}
    name = SEGMENTATION if SEGMENTATION in measured else found.primary.name
    presence: list[tuple[MethodResult, Confusion]] = []
    segmentation = []
    positives: tuple[int, ...] = ()
    for result in found.results:
        statistics = values.statistics(result.group)
        if result.role != "ceiling" and all({"correct", "label"} <= each.keys() for each in statistics):
            presence.append((result, confusion(statistics)))
            positives = tuple(int(count) for count in np.nansum(statistics[0]["label"], axis=0))
        if ("fixed", name) in result.summaries:
            segmentation.append((result, values.per_class(result.group, name)))
    return ClassResults(positives, tuple(presence), tuple(segmentation), name)


def confusion(statistics: Sequence[Statistics]) -> Confusion:
    """Return the mean confusion of trained models.

    Args:
        statistics: Of each model, `correct` and `label`, each (N, K); NaN where the truth is unknown.
    """
    counts = []
    for each in statistics:
        correct, label = np.asarray(each["correct"]), np.asarray(each["label"])
        counts.append(
            [((label == truth) & (correct == right)).sum(axis=0) for truth, right in ((1, 1), (1, 0), (0, 0), (0, 1))]
        )
    return Confusion(*np.array(counts, np.float64).mean(axis=0))
