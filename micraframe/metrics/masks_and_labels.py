"""Masks, instances and labels of a prediction or a sample, each derived from the others if it is missing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from micraframe.errors import DataError
from micraframe.objects import components
from micraframe.types import BoolArray, FloatArray, IntArray, Prediction, Sample


def masks_of(source: Prediction | Sample) -> BoolArray | None:
    """Return the masks, bool (K, H, W), or the union of the instances; None without either."""
    if source.masks is None and source.instances is not None:
        return source.instances > 0
    return source.masks


def instances_of(source: Prediction | Sample) -> IntArray | None:
    """Return the instances, int32 (K, H, W), or the connected components of the masks; None without either."""
    if source.instances is not None or source.masks is None:
        return source.instances
    return components(source.masks)


def boundary(mask: BoolArray) -> BoolArray:
    """Return the pixels of a mask (H, W) with an edge neighbour in the image that is outside the mask.

    The image's edge is not a boundary of the structure: blank masks, and masks that fill the image, have none.
    """
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner


def labels_of(sample: Sample) -> BoolArray | None:
    """Return which classes are in the image, bool (K,), from its labels or else its masks; None without either."""
    if sample.labels is not None:
        return sample.labels
    masks = masks_of(sample)
    return None if masks is None else np.asarray(masks.any(axis=(1, 2)))


def undefined(names: Iterable[str], prediction: Prediction) -> dict[str, FloatArray]:
    """Return NaN for each statistic and each of the K classes."""
    return {name: np.full(len(prediction.present), np.nan, np.float32) for name in names}


def check_same_shape(
    truth: BoolArray | IntArray | FloatArray, predicted: BoolArray | IntArray | FloatArray, name: str
) -> None:
    """Raise `DataError`, naming the image, unless truth and prediction have the same shape."""
    if truth.shape != predicted.shape:
        raise DataError(
            f"{name}: expected a prediction of shape {truth.shape}, as the truth has, got {predicted.shape}; both must "
            "have the same classes and size"
        )
