"""The head that makes one mask per class."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from pydantic import Field

from micraframe.heads.masks import MaskParams, blank_status, mask_thresholds, place, segment
from micraframe.heads.presence import decide_presence
from micraframe.heads.regions import remove_small
from micraframe.interfaces import Head
from micraframe.types import BoolArray, FloatArray, Prediction, ScoreMap, Status


@final
class Semantic(Head):
    """One mask per class that is in the image; the other classes' masks are blank.

    For each such class, in this order: smoothing, rescaling, threshold within the region, filling of holes, choice of
    components; then overlaps are settled between the classes, and small components dropped.
    """

    class Params(MaskParams):
        overlap: Literal["allow", "argmax"] = Field(
            "allow", description="Where masks overlap: allow it, or keep the class whose map is highest (argmax)."
        )

    def __init__(self, params: Params) -> None:
        self.params = params

    def wanted(self, scores: FloatArray) -> tuple[int, ...]:
        """Return the classes that are in the image."""
        return tuple(int(index) for index in np.flatnonzero(decide_presence(scores, self.params.decision)))

    def decide(self, score_map: ScoreMap, scores: FloatArray, image: FloatArray) -> Prediction:
        """Return masks of all K classes, and why those are blank that are.

        Raises:
            DataError: If the score map lacks a class that is in the image.
        """
        present = decide_presence(scores, self.params.decision)
        masks = np.zeros((len(scores), *score_map.values.shape[1:]), bool)
        heights = np.zeros(masks.shape, np.float32) if self.params.overlap == "argmax" else None
        status: list[Status] = ["absent"] * len(scores)
        for index, row in place(score_map, present).items():
            found = segment(score_map.values[row], score_map.coarse[row], score_map.status[row], image, self.params)
            masks[index], status[index] = found.mask, found.status
            if heights is not None:
                heights[index] = found.values
        there = [int(index) for index in np.flatnonzero(present)]
        if heights is not None and there:
            masks[there] = highest(masks[there], heights[there])
            for index in there:
                if self.params.minimum_size:
                    masks[index] = remove_small(masks[index], self.params.minimum_size)
                status[index] = blank_status(masks[index], status[index])
        return Prediction(
            scores=np.asarray(scores, np.float32),
            present=present,
            masks=masks,
            status=tuple(status),
            thresholds=mask_thresholds(self.params),
        )


def highest(masks: BoolArray, values: FloatArray) -> BoolArray:
    """Return masks (K, H, W) without overlap: each pixel stays with the class whose value is highest there.

    Args:
        masks: bool (K, H, W).
        values: float32 (K, H, W); of equal values the first class's counts.
    """
    winner = np.where(masks, values, -1).argmax(axis=0)
    return np.asarray(masks & (np.arange(len(masks))[:, None, None] == winner))
