"""How many dark pixels a mask of bright fibers covers."""

from __future__ import annotations

import math
from typing import Final, final

import numpy as np
from pydantic import Field

from micraframe.errors import DataError
from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.masks_and_labels import check_same_shape, masks_of, undefined
from micraframe.parameters import Parameters
from micraframe.types import BoolArray, Normalisation, Prediction, Sample

COLUMNS: Final = (
    Column(
        "low_intensity_share",
        "the share of low-intensity pixels under the predicted mask, in images that contain the class; undefined for "
        "an empty mask",
        higher_is_better=False,
    ),
    Column(
        "low_intensity_error",
        "the absolute difference of low_intensity_share between the predicted and the true mask; undefined if either "
        "is empty",
        higher_is_better=False,
    ),
)


@final
class LowIntensityShare(Metric["LowIntensityShare.Params"]):
    """Share of low-intensity pixels under the mask, of the prediction and against the truth.

    Bilodeau et al. 2022, Methods, "Custom performance metrics": fibers are bright, so that a coarse mask covers more
    low-intensity pixels than the expert's. The paper's threshold, 9, is in units of the files, from which it is
    converted as the dataset normalised its images. Pixels that the truth ignores do not count.
    """

    class Params(Parameters):
        threshold: float = Field(9.0, description="Highest low intensity, in units of the files.")
        offset: float | None = Field(
            None, description="Intensity in units of the files that the dataset normalised to 0; null: what it says."
        )
        scale: float | None = Field(
            None, gt=0, description="Units of the files per unit of the normalised images; null: what the dataset says."
        )

    def columns(self) -> tuple[Column, ...]:
        """Return the share, and its difference from the true mask's."""
        return COLUMNS

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return both numbers of one image; the mean of several channels is the intensity.

        Raises:
            DataError: If truth and prediction do not have the same size, or the image was not normalised by one offset
                and one positive scale, and these are not given.
        """
        found = undefined((column.name for column in COLUMNS), prediction)
        true, predicted = masks_of(truth), masks_of(prediction)
        if true is None or predicted is None:
            return found
        check_same_shape(true, predicted, truth.id)
        counted = truth.counted
        offset, scale = self._scaling(truth)
        # In normalised units, rounded as the image was: an intensity of exactly the threshold is low.
        limit = np.float32((self.params.threshold - offset) / scale)
        low = truth.image.mean(axis=0, dtype=np.float64) <= limit
        for index in np.flatnonzero((true & counted).any(axis=(1, 2))):
            share, expected = (share_of(low, masks[index] & counted) for masks in (predicted, true))
            found["low_intensity_share"][index] = share
            found["low_intensity_error"][index] = abs(share - expected)
        return found

    def _scaling(self, truth: Sample) -> tuple[float, float]:
        """Return the file's intensity that is 0 in the image, and the file's units per unit of the image."""
        given, known = (self.params.offset, self.params.scale), truth.normalisation or Normalisation()
        linear = known.kind in ("none", "fixed") and len(known.offset) == len(known.scale) == 1 and known.scale[0] > 0
        if None in given and not linear:
            raise DataError(
                f"sample {truth.id!r}: expected a normalisation of kind none, or fixed with one offset and one "
                f"positive scale, got {known}; set offset and scale of low-intensity-share"
            )
        offset, scale = (
            its if mine is None else mine for mine, its in zip(given, (known.offset[0], known.scale[0]), strict=True)
        )
        return offset, scale


def share_of(low: BoolArray, mask: BoolArray) -> float:
    """Return the share of a mask's pixels (H, W) that are low; NaN for an empty mask."""
    return float(low[mask].mean()) if mask.any() else math.nan
