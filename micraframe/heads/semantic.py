"""The head that makes one mask per class."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from pydantic import Field

from micraframe.heads.masks import MaskParams, mask_status, minimum_area, predict_masks, segment
from micraframe.heads.regions import remove_small
from micraframe.interfaces import Head
from micraframe.types import BoolArray, DatasetInfo, FloatArray, Prediction, Scores


@final
class SemanticHead(Head["SemanticHead.Params"]):
    """One mask per class that is in the image; the masks of other classes are empty.

    The steps per class, in order: smoothing, rescaling, smoothing, threshold within the region, filling of holes,
    choice of components. Then overlaps between classes are resolved, and small components removed.
    """

    class Params(MaskParams):
        overlap: Literal["allow", "argmax"] = Field(
            "allow", description="Where masks overlap: allow it, or keep the class whose map is highest (argmax)."
        )

    def decide(self, scores: Scores, image: FloatArray, info: DatasetInfo) -> Prediction:
        """Return a mask of every class, with the reason where it is empty.

        Raises:
            DataError: If the scores have no map of a class that is in the image.
        """
        present = self.present(scores.presence)
        least = minimum_area(self.params, info)
        indices = np.flatnonzero(present).tolist()
        found = {index: segment(scores, index, image, self.params, least) for index in indices}
        if self.params.overlap == "argmax" and found:
            masks = without_overlap(*(np.stack(arrays) for arrays in list(zip(*found.values(), strict=True))[:2]))
            for index, mask in zip(indices, masks, strict=True):
                kept = remove_small(mask, least) if least else mask
                found[index] = found[index]._replace(mask=kept, status=mask_status(kept, found[index].status))
        return predict_masks(scores, present, found, self.params)


def without_overlap(masks: BoolArray, values: FloatArray) -> BoolArray:
    """Return masks (K, H, W) without overlap: each pixel stays with the class whose value is highest there.

    Args:
        masks: bool (K, H, W).
        values: float32 (K, H, W); of equal values, the first class's counts.
    """
    winner = np.where(masks, values, -1).argmax(axis=0)
    return np.asarray(masks & (np.arange(len(masks))[:, None, None] == winner))
