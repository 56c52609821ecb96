"""How well a score map points at the structure, before any threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
from pydantic import Field
from scipy import ndimage

from micraframe.interfaces import Metric, Parameters
from micraframe.metrics.classification import average_precision
from micraframe.metrics.evidence import check_fit, masks_of, undefined
from micraframe.types import BoolArray, FloatArray, Prediction, Sample

NAMES = ("pxap", "pointing")


@final
class Localisation(Metric):
    """`pxap`: average precision of the map's pixels; `pointing`: 1 where its maximum is on the structure, else 0.

    Both are NaN where the class is not in the truth or has no score map. A flat map points nowhere: 0.
    """

    class Params(Parameters):
        tolerance: float = Field(0.0, ge=0, description="Pixels by which the maximum may miss the structure.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def measure(self, prediction: Prediction, truth: Sample) -> Mapping[str, FloatArray]:
        """Return `pxap` and `pointing`.

        Raises:
            DataError: If truth and score map are not of the same size.
        """
        found = {name: undefined(prediction) for name in NAMES}
        masks, score_map = masks_of(truth), prediction.score_map
        if masks is None or score_map is None:
            return found
        counted = np.ones(masks.shape[1:], bool) if truth.ignore is None else ~truth.ignore
        for index, values in zip(score_map.classes, score_map.values, strict=True):
            check_fit(masks[index], values, truth.id)
            found["pxap"][index] = pixel_average_precision(masks[index], values, counted)
            found["pointing"][index] = pointing(masks[index], values, counted, self.params.tolerance)
        return found


def pixel_average_precision(truth: BoolArray, values: FloatArray, counted: BoolArray) -> float:
    """Return the average precision of the pixels' values, of one image (PxAP, Choe et al. 2020, pools all images).

    Args:
        truth: bool (H, W).
        values: float32 (H, W).
        counted: bool (H, W): the pixels that count.
    """
    return average_precision(truth[counted], values[counted])


def pointing(truth: BoolArray, values: FloatArray, counted: BoolArray, tolerance: float) -> float:
    """Return 1 if the maximum of the values is within `tolerance` pixels of the truth, else 0 (Zhang et al. 2018).

    Args:
        truth: bool (H, W).
        values: float32 (H, W); of several maxima, the share that is.
        counted: bool (H, W): the pixels that count.
        tolerance: In pixels.
    """
    if not (truth & counted).any():
        return np.nan
    top = counted & (values == values[counted].max())
    if top.sum() == counted.sum():
        return 0.0
    return float((ndimage.distance_transform_edt(~truth)[top] <= tolerance).mean())
