"""How a dataset's intensities are brought to a common range: image by image, or by what the training images have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from micraframe.errors import DataError
from micraframe.interfaces import Parameters
from micraframe.types import FloatArray, Normalisation


class Normalising(Parameters):
    """How intensities are brought to a common range."""

    kind: Literal["none", "min-max", "percentile", "mean-sd", "fixed"] = Field(
        "min-max",
        description="none; min-max and percentile: that range becomes 0 to 1; mean-sd: mean 0, standard deviation 1; "
        "fixed: subtract offset, divide by scale.",
    )
    scope: Literal["image", "train"] = Field(
        "image", description="Measure each image by itself, before it is cropped, or the training images together."
    )
    per_channel: bool = Field(False, description="Measure each channel by itself.")
    low: float = Field(1.0, ge=0, le=100, description="Percentile that becomes 0.")
    high: float = Field(99.0, ge=0, le=100, description="Percentile that becomes 1.")
    offset: tuple[float, ...] = Field((0.0,), min_length=1, description="Per channel, or one for all (fixed).")
    scale: tuple[float, ...] = Field((1.0,), min_length=1, description="Per channel, or one for all (fixed).")
    clip: bool = Field(False, description="Clip the result to 0 to 1 (not for none and mean-sd).")

    @model_validator(mode="after")
    def _allowed(self) -> Normalising:
        if self.low >= self.high:
            raise ValueError(f"percentiles low {self.low} and high {self.high}: low is the smaller one")
        if 0 in self.scale:
            raise ValueError(f"scale {self.scale}: nothing can be divided by 0")
        return self

    @property
    def fitted(self) -> bool:
        """Whether the training images must be measured."""
        return self.scope == "train" and self.kind not in ("none", "fixed")


def fit(wanted: Normalising, images: Iterable[FloatArray]) -> Normalisation:
    """Return the normalisation; only if `wanted.fitted`, look at the training images.

    Over training images, `min-max` takes the least and the greatest value of all, `mean-sd` mean and standard
    deviation of all pixels, and `percentile` the median of the images' percentiles; the result is `fixed`.

    Args:
        wanted: What is wanted.
        images: The training images, float32 (C, H, W), each read once.

    Raises:
        DataError: If there is no training image, or a channel is constant in all of them.
    """
    if not wanted.fitted:
        return Normalisation(
            wanted.kind, wanted.per_channel, wanted.low, wanted.high, wanted.offset, wanted.scale, wanted.clip
        )
    measured = np.stack([_measure(wanted, image) for image in images] or [np.empty((0, 0))])
    if measured.size == 0:
        raise DataError("normalisation over the training images: there is none")
    if wanted.kind == "mean-sd":
        count, total, squares = measured.sum(0).T
        offset = total / count
        scale = np.sqrt(np.maximum(squares / count - offset**2, 0))
    elif wanted.kind == "min-max":
        offset = measured[..., 0].min(0)
        scale = measured[..., 1].max(0) - offset
    else:
        offset, top = np.median(measured, axis=0).T
        scale = top - offset
    if not scale.all():
        raise DataError(f"normalisation {wanted.kind} over the training images: they are constant")
    return Normalisation("fixed", offset=tuple(offset.tolist()), scale=tuple(scale.tolist()), clip=wanted.clip)


def _measure(wanted: Normalising, image: FloatArray) -> npt.NDArray[np.float64]:
    """Return the numbers of each channel, or of all together, that `fit` joins: (channels, numbers)."""
    values = image.reshape(len(image) if wanted.per_channel else 1, -1).astype(np.float64)
    if wanted.kind == "mean-sd":
        numbers = [np.full(len(values), values.shape[1]), values.sum(1), (values**2).sum(1)]
    elif wanted.kind == "min-max":
        numbers = [values.min(1), values.max(1)]
    else:
        numbers = list(np.percentile(values, (wanted.low, wanted.high), axis=1))
    return np.stack(numbers, axis=1)
