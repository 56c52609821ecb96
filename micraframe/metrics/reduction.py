"""How statistics of images become numbers: `micraframe.metrics.reduction` is the only place that averages.

    statistics = stack([metric.measure(*pair) for pair in images], classes=K)     # each (N, K), NaN where undefined
    for reduced in summarise(metric, statistics, left_out):
        reduced.column.name, reduced.per_class, reduced.overall

`study` and `evaluate` both average like this. A column that is a mean over images (`Column.is_mean`) is averaged within
each image over the classes for which it is defined there, and then over the images for which it is defined for any
class; its number for one class is the mean over the images for which it is defined for that class. A pooled column, a
ratio of sums or what the metric's own `reduce` computes, is computed for each class from all images, and then averaged
over the classes for which it is defined. A contact class has its own numbers, but no mean over classes includes it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from micraframe.interfaces import Column, Metric, Statistics, quotient, ratio_parts

MEAN_OVER_IMAGES: Final = "mean over images"
POOLED: Final = "pooled over images"


@dataclass(frozen=True, eq=False)
class Reduced:
    """A column's value over images.

    Attributes:
        column: The column.
        per_class: float64 (K,): its number for each class, NaN where undefined.
        overall: Its number over all classes, NaN where undefined.
        images_per_class: int (K,): images that contribute to each class's number.
        images: Images that contribute to the overall number.
    """

    column: Column
    per_class: npt.NDArray[np.float64]
    overall: float
    images_per_class: npt.NDArray[np.int64]
    images: int

    @property
    def reduction(self) -> str:
        """How images were reduced, in words."""
        return MEAN_OVER_IMAGES if self.column.is_mean else POOLED


def summarise(metric: Metric[Any], statistics: Statistics, left_out: Collection[int] = ()) -> list[Reduced]:
    """Return the value of each column of a metric, in the order in which the metric declares them.

    Args:
        metric: The metric.
        statistics: The statistics of N images from `stack`, each (N, K).
        left_out: Indices of the classes that no mean over classes includes: the contact class.
    """
    numbers = metric.reduce(statistics)
    averaged = without_classes(statistics, left_out)
    found = []
    for column in metric.columns():
        per_class = np.asarray(numbers[column.name], np.float64)
        found.append(
            Reduced(
                column,
                per_class,
                mean_defined(per_image(column, averaged) if column.is_mean else np.delete(per_class, list(left_out))),
                contributes(column, statistics).sum(axis=0),
                int(contributes(column, averaged).any(axis=1).sum()),
            )
        )
    return found


def per_image(column: Column, statistics: Statistics) -> npt.NDArray[np.float64]:
    """Return a column's value for each image, float64 (N,): the mean over the classes for which it is defined there.

    A mean over images is the mean of these values, which can be resampled and exchanged.

    Args:
        column: A column that is a mean over images.
        statistics: Statistics of N images, each (N, K).

    Raises:
        ValueError: If the column is pooled: it has no value for a single image.
    """
    if not column.is_mean:
        raise ValueError(f"column {column.name!r} is pooled over images and has no value for each of them")
    return means_defined(np.asarray(statistics[column.numerator or column.name], np.float64))


def stack(images: Sequence[Statistics], classes: int) -> Statistics:
    """Return the statistics of N images, each float64 (N, K); NaN if an image lacks one.

    Args:
        images: The result of `Metric.measure` for each image, each (K,).
        classes: Number of classes K.
    """
    names = dict.fromkeys(name for image in images for name in image)
    undefined = np.full(classes, np.nan)
    return {
        name: np.array([image.get(name, undefined) for image in images], np.float64).reshape(-1, classes)
        for name in names
    }


def without_classes(statistics: Statistics, left_out: Collection[int]) -> Statistics:
    """Return the statistics, each (N, K), with NaN for some classes, given by their indices."""
    if not left_out:
        return statistics
    return {
        name: np.where(np.isin(np.arange(values.shape[1]), list(left_out)), np.nan, values)
        for name, values in statistics.items()
    }


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN; NaN of none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def means_defined(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the means over the last axis of what is not NaN, (..., K) to (...); NaN of nothing."""
    defined = ~np.isnan(values)
    return quotient(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def contributes(column: Column, statistics: Statistics) -> npt.NDArray[np.bool_]:
    """Return which images contribute to each class's number, bool (N, K)."""
    if column.pooled:
        return np.asarray(np.any([~np.isnan(values) for values in column.select(statistics).values()], axis=0))
    return np.asarray(ratio_parts(column, statistics)[1] > 0)
