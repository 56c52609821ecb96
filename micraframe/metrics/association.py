"""Matching predicted objects with true ones, one to one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from micraframe.types import IntArray

Pairs = npt.NDArray[np.intp]
"""(P, 2): index of the true, index of the predicted object."""


def overlaps(truth: IntArray, predicted: IntArray) -> npt.NDArray[np.int64]:
    """Return how many pixels each true object shares with each predicted one, and with the background.

    Args:
        truth: int32 (H, W), 0 is background; numbers may have gaps.
        predicted: int32 (H, W), numbered in the same way.

    Returns:
        int64 (1 + N, 1 + M): background first, then the N true and M predicted objects in the order of their numbers.
    """
    # Background is prepended so that it has its row and column even if no pixel is background.
    _, rows = np.unique(np.append(0, truth), return_inverse=True)
    _, columns = np.unique(np.append(0, predicted), return_inverse=True)
    shape = int(rows.max()) + 1, int(columns.max()) + 1
    counts = np.bincount(rows[1:] * shape[1] + columns[1:], minlength=shape[0] * shape[1])
    return counts.reshape(shape).astype(np.int64)


def ious(shared: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the IoU of every true with every predicted object, (N, M), from what `overlaps` returns."""
    both = shared[1:, 1:]
    union = shared.sum(axis=1)[1:, None] + shared.sum(axis=0)[1:] - both
    return np.asarray(both / np.maximum(union, 1))


def match_by_iou(iou: npt.NDArray[np.float64], least: float) -> Pairs:
    """Return one-to-one pairs with an IoU of at least `least`: as many as possible, with the largest sum of IoUs.

    The Hungarian algorithm (Kuhn 1955) on the IoU matrix (N, M); as many pairs as StarDist's `matching` finds.
    """
    # One more pair weighs more than all that the others' IoUs could add.
    weight = np.where(iou >= least, 1 + iou / (2 * max(1, min(iou.shape))), 0)
    rows, columns = linear_sum_assignment(weight, maximize=True)
    return _kept(rows, columns, iou[rows, columns] >= least)


def match_by_distance(truth: npt.NDArray[np.floating], predicted: npt.NDArray[np.floating], most: float) -> Pairs:
    """Return one-to-one pairs of points at most `most` apart: as many as possible, with the smallest sum of distances.

    Args:
        truth: (N, 2).
        predicted: (M, 2).
        most: Largest distance, in the points' unit.
    """
    distance = distances(truth, predicted)
    near = distance <= most
    # Every pair that is too far apart costs more than all near ones together.
    cost = np.where(near, distance, (most + 1) * (1 + min(distance.shape)))
    rows, columns = linear_sum_assignment(cost)
    return _kept(rows, columns, near[rows, columns])


def match_by_score(
    truth: npt.NDArray[np.floating], predicted: npt.NDArray[np.floating], most: float
) -> npt.NDArray[np.bool_]:
    """Return which predicted points are hits, bool (M,): best score first, each takes the nearest free true point.

    This is the rule of Pascal VOC (Everingham et al. 2010) and COCO. Whether a point is a hit depends on points with
    higher scores only, so one matching holds for every threshold of the score. There may be fewer hits than
    `match_by_distance` finds pairs.

    Args:
        truth: (N, 2).
        predicted: (M, 3), the score last. Of equal scores, the nearer to a true point goes first.
        most: Largest distance, in the points' unit.
    """
    distance = distances(truth, predicted[:, :2])
    rows, columns = np.nonzero(distance <= most)
    free, hit = np.ones(len(truth), bool), np.zeros(len(predicted), bool)
    for index in np.lexsort((distance[rows, columns], -predicted[columns, 2])):
        row, column = rows[index], columns[index]
        if free[row] and not hit[column]:
            free[row], hit[column] = False, True
    return hit


def distances(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the distances between two sets of points, (N, 2) and (M, 2), as (N, M)."""
    steps = one[:, None].astype(np.float64) - other[None]
    return np.asarray(np.hypot(steps[..., 0], steps[..., 1]))


def f1_score(hits: int, true: int, predicted: int) -> float:
    """Return 2 hits / (true + predicted); NaN if both are 0."""
    return 2 * hits / (true + predicted) if true + predicted else np.nan


def _kept(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], kept: npt.NDArray[np.bool_]) -> Pairs:
    return np.stack([rows[kept], columns[kept]], axis=1)
