"""Normalisation of a dataset's intensities, image by image or fitted to its training images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from micraframe.errors import DataError
from micraframe.parameters import Parameters
from micraframe.types import FloatArray, Normalisation


class NormalisationParams(Parameters):
    """How intensities are brought to a common range."""

    kind: Literal["none", "min-max", "percentile", "mean-sd", "fixed"] = Field(
        "min-max",
        description="none; min-max and percentile map that range to [0, 1]; mean-sd standardises to mean 0 and "
        "standard deviation 1; fixed subtracts `offset` and divides by `scale`.",
    )
    scope: Literal["image", "train"] = Field(
        "image", description="Measure each whole image separately, or all training images together."
    )
    per_channel: bool = Field(False, description="Measure each channel separately.")
    low: float = Field(1.0, ge=0, le=100, description="Percentile that maps to 0.")
    high: float = Field(99.0, ge=0, le=100, description="Percentile that maps to 1.")
    offset: tuple[float, ...] = Field((0.0,), min_length=1, description="For fixed: one per channel, or one for all.")
    scale: tuple[float, ...] = Field((1.0,), min_length=1, description="For fixed: one per channel, or one for all.")
    clip: bool = Field(False, description="Clip the result to [0, 1] (not for none and mean-sd).")

    @model_validator(mode="after")
    def _allowed(self) -> NormalisationParams:
        try:
            self.of_each_image()
        except DataError as error:
            raise ValueError(str(error).removeprefix("normalisation: ")) from error
        return self

    def of_each_image(self) -> Normalisation:
        """Return the normalisation that measures each image separately."""
        return Normalisation(**self.model_dump(exclude={"scope"}))

    @property
    def fitted(self) -> bool:
        """Whether the training images must be measured."""
        return self.scope == "train" and self.kind not in ("none", "fixed")


def fit_normalisation(params: NormalisationParams, images: Iterable[FloatArray]) -> Normalisation:
    """Return the normalisation; the training images are read only if `params.fitted`.

    Over training images, `min-max` takes the smallest and the largest value of all, `mean-sd` mean and standard
    deviation of all pixels, and `percentile` the median of the images' percentiles; the result is `fixed`.

    Args:
        params: The kind of normalisation, and what is measured.
        images: The training images, float32 (C, H, W), each read once.

    Raises:
        DataError: If there is no training image, or a channel is constant in all of them.
    """
    if not params.fitted:
        return params.of_each_image()
    measured = np.stack([_measure(params, image) for image in images] or [np.empty((0, 0))])
    if measured.size == 0:
        raise DataError("normalisation with scope train: expected training images, got none")
    if params.kind == "mean-sd":
        count, total, squares = measured.sum(0).T
        offset = total / count
        scale = np.sqrt(np.maximum(squares / count - offset**2, 0))
    elif params.kind == "min-max":
        offset = measured[..., 0].min(0)
        scale = measured[..., 1].max(0) - offset
    else:
        offset, top = np.median(measured, axis=0).T
        scale = top - offset
    if not scale.all():
        raise DataError(
            f"normalisation {params.kind} with scope train: a channel is constant in all training images; set scope: "
            "image"
        )
    clip = params.clip and params.kind != "mean-sd"
    return Normalisation("fixed", offset=tuple(offset.tolist()), scale=tuple(scale.tolist()), clip=clip)


def _measure(params: NormalisationParams, image: FloatArray) -> npt.NDArray[np.float64]:
    """Return the measurements of each channel, or of all channels together: (channels, numbers)."""
    values = image.reshape(len(image) if params.per_channel else 1, -1).astype(np.float64)
    if params.kind == "mean-sd":
        numbers = [np.full(len(values), values.shape[1]), values.sum(1), (values**2).sum(1)]
    elif params.kind == "min-max":
        numbers = [values.min(1), values.max(1)]
    else:
        numbers = list(np.percentile(values, (params.low, params.high), axis=1))
    return np.stack(numbers, axis=1)
