"""The head that says where the objects of a class are."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from pydantic import Field
from scipy import ndimage

from micraframe.heads.masks import MaskParams, mask_thresholds, place, segment
from micraframe.heads.presence import decide_presence
from micraframe.interfaces import Head
from micraframe.objects import components
from micraframe.types import BoolArray, FloatArray, IntArray, Prediction, ScoreMap, Status


@final
class Detection(Head):
    """A point, (y, x, score), for every object found, best first; and the masks that they come from.

    The score is the class's probability times the map's height at the object.
    """

    class Params(MaskParams):
        points: Literal["components", "peaks"] = Field(
            "components", description="One point in the middle of each component of the mask, or at each of its peaks."
        )
        distance: float = Field(
            0.0, ge=0, description="Of points nearer to each other than this many pixels, the best one stays."
        )

    def __init__(self, params: Params) -> None:
        self.params = params

    def wanted(self, scores: FloatArray) -> tuple[int, ...]:
        """Return the classes that are in the image."""
        return tuple(int(index) for index in np.flatnonzero(decide_presence(scores, self.params.decision)))

    def decide(self, score_map: ScoreMap, scores: FloatArray, image: FloatArray) -> Prediction:
        """Return points and masks of all K classes, and why there are none where there are none.

        Raises:
            DataError: If the score map lacks a class that is in the image.
        """
        present = decide_presence(scores, self.params.decision)
        masks = np.zeros((len(scores), *score_map.values.shape[1:]), bool)
        points = [np.zeros((0, 3), np.float32)] * len(scores)
        status: list[Status] = ["absent"] * len(scores)
        for index, row in place(score_map, present).items():
            masks[index], values, status[index] = segment(
                score_map.values[row], score_map.coarse[row], score_map.status[row], image, self.params
            )
            find = component_points if self.params.points == "components" else peak_points
            found = suppress(find(masks[index], values), self.params.distance)
            points[index] = found * np.array([1, 1, scores[index]], np.float32)
        return Prediction(
            scores=np.asarray(scores, np.float32),
            present=present,
            masks=masks,
            points=tuple(points),
            status=tuple(status),
            thresholds=mask_thresholds(self.params),
        )


def component_points(mask: BoolArray, values: FloatArray) -> FloatArray:
    """Return the centre of mass of each component of a mask (H, W), and the largest value in it, float32 (N, 3)."""
    return _points(components(mask[None])[0], mask, values)


def peak_points(mask: BoolArray, values: FloatArray) -> FloatArray:
    """Return the local maxima, over edges and corners, of the values (H, W) within a mask (H, W), float32 (N, 3).

    Neighbouring maxima of one height are one, at their middle.
    """
    inside = np.where(mask, values, -np.inf)
    peaks = mask & (inside == ndimage.maximum_filter(inside, 3, mode="constant", cval=-np.inf))
    return _points(components(peaks[None])[0], peaks, values)


def suppress(points: FloatArray, distance: float) -> FloatArray:
    """Return the points (N, 3), best score first, without those nearer than `distance` to a better one that stays."""
    points = points[np.argsort(-points[:, 2], kind="stable")]
    kept: list[int] = []
    for index, point in enumerate(points[:, :2]):
        if not (np.hypot(*(points[kept, :2] - point).T) < distance).any():
            kept.append(index)
    return points[kept]


def _points(labels: IntArray, mask: BoolArray, values: FloatArray) -> FloatArray:
    numbers = np.arange(1, labels.max(initial=0) + 1)
    if not numbers.size:
        return np.zeros((0, 3), np.float32)
    middles = np.array(ndimage.center_of_mass(mask, labels, numbers))
    heights = ndimage.maximum(values, labels, numbers)
    return np.column_stack([middles, heights]).astype(np.float32)
