"""How well a map points at the structure, before any threshold."""

from __future__ import annotations

from typing import Final, final

import numpy as np
from pydantic import Field
from scipy import ndimage

from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.masks_and_labels import check_same_shape, masks_of, undefined
from micraframe.metrics.precision_recall import average_precision
from micraframe.parameters import Parameters
from micraframe.types import BoolArray, FloatArray, Prediction, Sample

COLUMNS: Final = (
    Column(
        "pxap",
        "the average precision of the pixels, ranked by the class's map, in images that contain the class and other "
        "pixels; without a map, the share of the structure's pixels, as for a constant map",
    ),
    Column(
        "pointing",
        "the share of images containing the class where the map's maximum is on the structure; without a map, 0",
    ),
)


@final
class LocalisationMetric(Metric["LocalisationMetric.Params"]):
    """Average precision of the map's pixels, and the pointing game.

    Both are undefined if the class is not in the truth, and average precision also if it fills the image. A class in
    the truth that was not explained is a miss: it counts as a constant map, which points nowhere and whose average
    precision is the share of positive pixels. Both are undefined if maps were not kept, as in predictions that are read
    from files.
    """

    class Params(Parameters):
        tolerance: float = Field(0.0, ge=0, description="Pixels by which the maximum may miss the structure.")

    def columns(self) -> tuple[Column, ...]:
        """Return pixel average precision and pointing game."""
        return COLUMNS

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return both numbers of one image."""
        found = undefined((column.name for column in COLUMNS), prediction)
        masks, scores = masks_of(truth), prediction.scores
        if masks is None or (scores.size != masks.shape[1:] and not scores.classes):
            return found
        counted, maps = truth.counted, scores.all_maps()
        check_same_shape(masks, maps, truth.id)
        for index in np.flatnonzero((masks & counted).any(axis=(1, 2))):
            # One image's pixels (PxAP; Choe et al. 2020 pool the pixels of all images).
            found["pxap"][index] = average_precision(masks[index][counted], maps[index][counted])
            found["pointing"][index] = pointing(masks[index], maps[index], counted, self.params.tolerance)
        return found


def pointing(truth: BoolArray, values: FloatArray, counted: BoolArray, tolerance: float) -> float:
    """Return 1 if the maximum of the map is within `tolerance` pixels of the truth, else 0 (Zhang et al. 2018).

    Args:
        truth: bool (H, W).
        values: float32 (H, W); if several pixels share the maximum, the result is the share of them that is near.
        counted: bool (H, W): the pixels that count.
        tolerance: Largest distance in pixels.
    """
    if not (truth & counted).any():
        return np.nan
    top = counted & (values == values[counted].max())
    if top.sum() == counted.sum():
        return 0.0
    return float((ndimage.distance_transform_edt(~truth)[top] <= tolerance).mean())
