"""What a prediction or a sample offers to a metric: masks and instances, each made from the other where it must be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from micraframe.errors import DataError
from micraframe.interfaces import Metric
from micraframe.objects import components
from micraframe.types import BoolArray, FloatArray, IntArray, Prediction, Sample


def masks_of(what: Prediction | Sample) -> BoolArray | None:
    """Return the masks, bool (K, H, W): those there are, else where the instances are; None without either."""
    if what.masks is None and what.instances is not None:
        return what.instances > 0
    return what.masks


def instances_of(what: Prediction | Sample) -> IntArray | None:
    """Return the instances, int32 (K, H, W): those there are, else the masks' components; None without either."""
    if what.instances is not None or what.masks is None:
        return what.instances
    return components(what.masks)


def labels_of(sample: Sample) -> BoolArray | None:
    """Return which classes are in the image, bool (K,): as labelled, else as the masks have it; None without either."""
    if sample.labels is not None:
        return sample.labels
    masks = masks_of(sample)
    return None if masks is None else np.asarray(masks.any(axis=(1, 2)))


def ranks(
    metrics: Sequence[Metric], scores: Sequence[FloatArray], labels: Sequence[BoolArray | None]
) -> dict[str, FloatArray]:
    """Return what metrics say of all images together, by name, float32 (N, K).

    Args:
        metrics: The metrics.
        scores: Of each of the N images, (K,).
        labels: Of each, what `labels_of` says.
    """
    if not scores:
        return {}
    known = [np.full(len(row), np.nan) if told is None else told for row, told in zip(scores, labels, strict=True)]
    tables = np.stack(scores).astype(np.float32), np.stack(known).astype(np.float32)
    return {name: values for metric in metrics for name, values in metric.rank(*tables).items()}


def undefined(prediction: Prediction) -> FloatArray:
    """Return NaN for each of the K classes."""
    return np.full(len(prediction.scores), np.nan, np.float32)


def check_fit(
    truth: BoolArray | IntArray | FloatArray, predicted: BoolArray | IntArray | FloatArray, name: str
) -> None:
    """Raise `DataError`, naming the image, unless truth and prediction have one shape."""
    if truth.shape != predicted.shape:
        raise DataError(
            f"{name}: the truth is of shape {truth.shape}, the prediction of {predicted.shape}; "
            "they must have the same classes and size"
        )
