"""A metric of which less is better."""

import numpy as np

from micraframe.interfaces import Column, Metric
from micraframe.parameters import Parameters


class AreaError(Metric[Parameters]):
    """How far the area of a mask is from the true one."""

    def columns(self):
        return (Column("area_error", "the difference of the masks' areas, as a share of the image", False),)

    def measure(self, prediction, truth):
        if prediction.masks is None or truth.masks is None:
            return {"area_error": np.full(len(prediction.present), np.nan)}
        return {"area_error": np.abs(prediction.masks.mean(axis=(1, 2)) - truth.masks.mean(axis=(1, 2)))}
