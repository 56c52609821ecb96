"""The simplest of all masks."""

import numpy as np

from micraframe.interfaces import Head, HeadParams
from micraframe.types import Prediction


class AboveHalf(Head[HeadParams]):
    """The pixels where the map of a class that is present is above one half."""

    def decide(self, scores, image, info):
        present = self.present(scores.presence)
        masks = np.zeros((len(present), *scores.size), bool)
        for index in np.flatnonzero(present):
            masks[index] = scores.maps[scores.row(index)] > 0.5
        return Prediction(scores, present, masks)
