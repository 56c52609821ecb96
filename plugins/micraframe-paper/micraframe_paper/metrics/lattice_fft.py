"""How much of the periodic lattice of F-actin a mask keeps, seen in the Fourier spectrum."""

from __future__ import annotations

import math
from typing import Final, final

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.masks_and_labels import check_same_shape, masks_of, undefined
from micraframe.parameters import Parameters
from micraframe.types import BoolArray, FloatArray, Prediction, Sample

COLUMNS: Final = (
    Column(
        "lattice_fft",
        "the share of the image's Fourier amplitudes in the lattice's band of periods that is lost outside the "
        "predicted mask, in images that contain the class; a mask of everything has 0, so read it beside the error",
        higher_is_better=False,
        range=(-math.inf, 1.0),
    ),
    Column(
        "lattice_fft_error",
        "the absolute difference of lattice_fft between the predicted and the true mask, in images that contain the "
        "class",
        higher_is_better=False,
        range=(0.0, math.inf),
    ),
)


@final
class LatticeFft(Metric["LatticeFft.Params"]):
    """Loss of the Fourier spectrum between 170 and 200 nm by masking, of the prediction and against the truth.

    Bilodeau et al. 2022, Methods, "Custom performance metrics": the lattice of actin rings has a period of 180 to 190
    nm (Xu et al. 2013), so that a mask that outlines it well changes this part of the spectrum as the expert's does.
    Pixels that the truth ignores are 0 in the whole image too. Undefined if the class is not in the truth, the pixel
    size is unknown, or the image has no frequency in the band.
    """

    class Params(Parameters):
        shortest_nm: float = Field(170.0, gt=0, description="Shortest period of the band in nanometres.")
        longest_nm: float = Field(200.0, gt=0, description="Longest period of the band in nanometres.")

        @model_validator(mode="after")
        def _ordered(self) -> LatticeFft.Params:
            if self.shortest_nm >= self.longest_nm:
                raise ValueError(f"expected shortest_nm < longest_nm, got {self.shortest_nm} and {self.longest_nm}")
            return self

    def columns(self) -> tuple[Column, ...]:
        """Return the lost share, and its difference from the true mask's."""
        return COLUMNS

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return both numbers of one image.

        Raises:
            DataError: If truth and prediction do not have the same size.
        """
        found = undefined((column.name for column in COLUMNS), prediction)
        true, predicted = masks_of(truth), masks_of(prediction)
        if true is None or predicted is None or truth.pixel_size_um is None:
            return found
        check_same_shape(true, predicted, truth.id)
        counted = truth.counted
        image = truth.image * counted
        band = period_band(true.shape[1:], truth.pixel_size_um * 1000, self.params.shortest_nm, self.params.longest_nm)
        for index in np.flatnonzero((true & counted).any(axis=(1, 2))):
            lost, expected = (lost_share(image, masks[index], band) for masks in (predicted, true))
            found["lattice_fft"][index] = lost
            found["lattice_fft_error"][index] = abs(lost - expected)
        return found


def period_band(size: tuple[int, ...], pixel_nm: float, shortest: float, longest: float) -> BoolArray:
    """Return which frequencies of a two-dimensional Fourier transform have a period within these bounds.

    Args:
        size: (H, W) of the image.
        pixel_nm: Edge of a pixel in nanometres.
        shortest: Shortest period in nanometres.
        longest: Longest period in nanometres.

    Returns:
        bool (H, W), in the order of `numpy.fft.fft2`.
    """
    y, x = (np.fft.fftfreq(length, pixel_nm) for length in size)
    frequency = np.hypot(y[:, None], x)
    return np.asarray((frequency >= 1 / longest) & (frequency <= 1 / shortest))


def lost_share(image: FloatArray, mask: BoolArray, band: BoolArray) -> float:
    """Return the share of an image's Fourier amplitudes in a band that is lost outside a mask.

    (sum |F(image)| - sum |F(image * mask)|) / sum |F(image)|, over the band: 0 for a mask of everything, 1 for an empty
    one, negative where the mask's edges add more to the band than it takes away.

    Args:
        image: float32 (C, H, W); the amplitudes of the channels are added up.
        mask: bool (H, W).
        band: bool (H, W), as `period_band` returns it.

    Returns:
        The share; NaN if the image has no amplitude in the band.
    """
    whole, masked = (_amplitude(each, band) for each in (image, image * mask))
    return (whole - masked) / whole if whole > 0 else math.nan


def _amplitude(image: npt.NDArray[np.floating], band: BoolArray) -> float:
    return float(np.abs(np.fft.fft2(image.astype(np.float64)))[:, band].sum())
