"""How statistics of images become numbers: `micraframe.metrics.reduction` is the only place that averages.

    statistics = stack([metric.measure(*pair) for pair in images], classes=K)     # each (N, K), NaN where undefined
    for reduced in summarise(metric, statistics):
        reduced.column.name, reduced.per_class, reduced.overall

`study` and `evaluate` both average like this. A column that is a mean over images (`Column.is_mean`) is averaged within
each image over the classes for which it is defined there, and then over the images for which it is defined for any
class; its number for one class is the mean over the images for which it is defined for that class. A pooled column, a
ratio of sums or what the metric's own `reduce` computes, is computed for each class from all images, and then averaged
over the classes for which it is defined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from micraframe.interfaces import Column, Metric, Statistics, ratio_parts

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


def summarise(metric: Metric[Any], statistics: Statistics) -> list[Reduced]:
    """Return the value of each column of a metric, in the order in which the metric declares them.

    Args:
        metric: The metric.
        statistics: The statistics of N images from `stack`, each (N, K).
    """
    numbers = metric.reduce(statistics)
    found = []
    for column in metric.columns():
        contributes = _contributes(column, statistics)
        found.append(
            Reduced(
                column,
                np.asarray(numbers[column.name], np.float64),
                _overall(column, numbers, statistics),
                contributes.sum(axis=0),
                int(contributes.any(axis=1).sum()),
            )
        )
    return found


def overall(metric: Metric[Any], statistics: Statistics) -> dict[str, float]:
    """Return each column's number over all classes, as in `summarise` but without the rest, for resampling."""
    numbers = metric.reduce(statistics)
    return {column.name: _overall(column, numbers, statistics) for column in metric.columns()}


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


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN; NaN of none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def means_defined(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the means over the last axis of what is not NaN, (..., K) to (...); NaN of nothing."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=-1)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))


def _overall(column: Column, numbers: Statistics, statistics: Statistics) -> float:
    return mean_defined(per_image(column, statistics) if column.is_mean else numbers[column.name])


def _contributes(column: Column, statistics: Statistics) -> npt.NDArray[np.bool_]:
    """Return which images contribute to each class's number, bool (N, K)."""
    if column.pooled:
        # Only the metric knows which of its statistics count: all images that have any.
        return np.asarray(np.any([~np.isnan(values) for values in statistics.values()], axis=0))
    return np.asarray(ratio_parts(column, statistics)[1] > 0)
