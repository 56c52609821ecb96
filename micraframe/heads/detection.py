"""The head that locates the objects of a class."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from pydantic import Field
from scipy import ndimage
from skimage.morphology import local_maxima

from micraframe.heads.masks import MaskParams, minimum_area, predict_masks, segment
from micraframe.interfaces import Head
from micraframe.objects import centroids, components
from micraframe.types import BoolArray, DatasetInfo, FloatArray, IntArray, Prediction, Scores


@final
class DetectionHead(Head["DetectionHead.Params"]):
    """A point, (y, x, score), for every object found, best first; and the masks that the points come from.

    The score is the presence of the class times the height of the map at the object.
    """

    class Params(MaskParams):
        points: Literal["components", "peaks"] = Field(
            "components", description="A point at the centre of each component of the mask, or at each of its peaks."
        )
        distance: float = Field(
            0.0, ge=0, description="Of points closer to each other than this many pixels, keep the best one."
        )

    def decide(self, scores: Scores, image: FloatArray, info: DatasetInfo) -> Prediction:
        """Return the points and the mask of every class, with the reason where there are none.

        Raises:
            DataError: If the scores have no map of a class that is in the image.
        """
        present = self.present(scores.presence)
        least = minimum_area(self.params, info)
        locate = component_points if self.params.points == "components" else peak_points
        points = [np.zeros((0, 3), np.float32)] * len(present)
        found = {}
        for index in np.flatnonzero(present).tolist():
            found[index] = segment(scores, index, image, self.params, least)
            located = suppress(locate(found[index].mask, found[index].values), self.params.distance)
            points[index] = located * np.array([1, 1, scores.presence[index]], np.float32)
        return predict_masks(scores, present, found, self.params, points=tuple(points))


def component_points(mask: BoolArray, values: FloatArray) -> FloatArray:
    """Return the centroid of each component of a mask (H, W), and the largest value in it, float32 (N, 3)."""
    return _points(components(mask[None])[0], values)


def peak_points(mask: BoolArray, values: FloatArray) -> FloatArray:
    """Return the local maxima of the values (H, W) within a mask (H, W), float32 (N, 3): (y, x, value).

    Neighbours are the eight pixels around a pixel. A plateau is a maximum if all its neighbours in the mask are lower,
    and is one point, at its centroid.
    """
    # Padded, so that the mask's own border is lower on all sides, the image's included.
    inside = np.pad(np.where(mask, values, -np.inf), 1, constant_values=-np.inf)
    peaks = local_maxima(inside, connectivity=2)[1:-1, 1:-1]  # type: ignore[no-untyped-call]
    return _points(components(peaks[None])[0], values)


def suppress(points: FloatArray, distance: float) -> FloatArray:
    """Return the points (N, 3), best score first, without those closer than `distance` to a better one that is kept."""
    points = points[np.argsort(-points[:, 2], kind="stable")]
    kept: list[int] = []
    for index, point in enumerate(points[:, :2]):
        if not (np.hypot(*(points[kept, :2] - point).T) < distance).any():
            kept.append(index)
    return points[kept]


def _points(labels: IntArray, values: FloatArray) -> FloatArray:
    (centres,) = centroids(labels[None])
    heights = ndimage.maximum(values, labels, np.arange(1, len(centres) + 1))
    return np.column_stack([centres, heights]).astype(np.float32)
