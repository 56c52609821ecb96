"""A head: it decides, which makes a prediction of scores."""

from __future__ import annotations

from typing import final

import numpy as np

from micraframe.interfaces import Head, HeadParams
from micraframe.types import DatasetInfo, FloatArray, Prediction, Scores


@final
class AboveHalf(Head[HeadParams]):
    """Masks of the pixels where the map of a class that is present is above one half."""

    def decide(self, scores: Scores, image: FloatArray, info: DatasetInfo) -> Prediction:
        """Return the prediction for one image."""
        present = self.present(scores.presence)
        masks = np.zeros((len(present), *scores.size), bool)
        for index in np.flatnonzero(present).tolist():
            masks[index] = scores.maps[scores.row(index)] > 0.5
        return Prediction(scores, present, masks)
