"""How far masks lie from the truth, in pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from micraframe.interfaces import Metric, Parameters
from micraframe.metrics.agreement import centroid_distance, contour_distance
from micraframe.metrics.evidence import check_fit, masks_of, undefined
from micraframe.types import FloatArray, Prediction, Sample

NAMES = ("centroid_distance", "contour_distance")


@final
class Distances(Metric):
    """Distance in pixels of the masks' centres of mass, and mean distance of their contours; low is good.

    Both are NaN where the class is not in truth and prediction, so that a mask that is missing or too many costs
    nothing here: read them beside F1 or IOU. Instances count as the mask of all of them.
    """

    class Params(Parameters):
        pass

    def __init__(self, params: Params) -> None:
        self.params = params

    def measure(self, prediction: Prediction, truth: Sample) -> Mapping[str, FloatArray]:
        """Return `centroid_distance` and `contour_distance`, in pixels; all NaN without masks on either side.

        Raises:
            DataError: If truth and prediction are not of the same classes and size.
        """
        true, predicted = masks_of(truth), masks_of(prediction)
        if true is None or predicted is None:
            return {name: undefined(prediction) for name in NAMES}
        check_fit(true, predicted, truth.id)
        counted = np.True_ if truth.ignore is None else ~truth.ignore
        rows = [
            (centroid_distance(one & counted, other & counted), contour_distance(one, other, truth.ignore))
            for one, other in zip(true, predicted, strict=True)
        ]
        return dict(zip(NAMES, np.array(rows, np.float32).T, strict=True))
