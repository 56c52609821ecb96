"""A metric: it measures predictions against the truth."""

from __future__ import annotations

from typing import final

import numpy as np

from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.masks_and_labels import check_same_shape, masks_of, undefined
from micraframe.parameters import Parameters
from micraframe.types import Prediction, Sample


@final
class AreaDifference(Metric[Parameters]):
    """How far the area of a mask is from the true one."""

    def columns(self) -> tuple[Column, ...]:
        """Return the one number that it reports, of which less is better."""
        return (Column("area_difference", "the difference of the areas, as a share of the image's pixels", False),)

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return the difference for one image, one number per class; NaN without masks.

        Raises:
            DataError: If truth and prediction do not have the same shape.
        """
        found, true = masks_of(prediction), masks_of(truth)
        if found is None or true is None:
            return undefined(("area_difference",), prediction)
        check_same_shape(true, found, truth.id)
        found_area, true_area = ((masks & truth.counted).mean(axis=(1, 2)) for masks in (found, true))
        return {"area_difference": np.abs(found_area - true_area)}
