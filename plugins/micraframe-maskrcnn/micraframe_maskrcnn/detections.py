"""Detected objects, each a box with a small mask: to scores, and to objects that share no pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import nms

from micraframe.interfaces import ScoredTile
from micraframe.types import DetectedObjects, FloatArray, IntArray, Scores

Weights = npt.NDArray[np.float64]

TOLERANCE = 0.1
"""By how much of an object's longer side, and by at least 2 pixels, its centre may differ between two tiles."""


def score_objects(objects: Sequence[DetectedObjects], size: tuple[int, int]) -> Scores:
    """Return the scores of an image, with the objects and maps of all classes.

    The presence probability of a class is the score of its best object. The value of a pixel is the largest product,
    over the objects of the class, of an object's score and the pixel's mask probability. Objects without a pixel are
    dropped.

    Args:
        objects: Per class.
        size: (H, W) of the image.
    """
    maps = np.zeros((len(objects), *size), np.float32)
    kept = []
    for plane, several in zip(maps, objects, strict=True):
        visible = np.zeros(len(several.scores), bool)
        pasted = paste(several.masks, several.boxes, size)
        for number, ((place, probabilities), score) in enumerate(zip(pasted, several.scores, strict=True)):
            visible[number] = probabilities.size > 0
            np.maximum(plane[place], score * probabilities, out=plane[place])
        kept.append(several.select(visible))
    presence = np.array([several.scores.max(initial=0) for several in kept], np.float32)
    return Scores(presence, tuple(range(len(objects))), maps, objects=tuple(kept))


def join(tiles: Sequence[ScoredTile], nms_iou: float) -> list[DetectedObjects]:
    """Return the objects of an image that was scored in tiles, per class and best first.

    A tile contributes the objects whose centre lies in its used part, or within `TOLERANCE` of it, since two tiles may
    place an object slightly differently. Of an object that two tiles found, the better one is kept.

    Args:
        tiles: With the objects of all classes.
        nms_iou: IoU of boxes above which two are one object.
    """
    joined = []
    for several in zip(*(_placed(tile) for tile in tiles), strict=True):
        fields = ("boxes", "scores", "masks")
        found = DetectedObjects(*(np.concatenate([getattr(one, field) for one in several]) for field in fields))
        kept = nms(torch.tensor(found.boxes), torch.tensor(found.scores), nms_iou)
        joined.append(found.select(kept.numpy()))
    return joined


def _placed(tile: ScoredTile) -> Iterator[DetectedObjects]:
    """Yield, per class, the objects that a tile contributes, with their boxes in the image."""
    for found in tile.scores.objects or ():
        boxes = found.boxes + np.array([tile.rows[0], tile.columns[0]] * 2, np.float32)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        slack = np.maximum(2, TOLERANCE * (boxes[:, 2:] - boxes[:, :2]).max(axis=1))
        inside = np.ones(len(boxes), bool)
        for centre, (first, last) in zip(centres.T, (tile.used_rows, tile.used_columns), strict=True):
            inside &= (centre >= first - slack) & (centre < last + slack)
        yield DetectedObjects(boxes, found.scores, found.masks).select(inside)


def separate(
    objects: DetectedObjects, size: tuple[int, int], mask_threshold: float, min_visible_fraction: float
) -> tuple[IntArray, FloatArray]:
    """Return the objects of one class as a label image, and their scores.

    Where objects overlap, the pixel belongs to the better one. An object is dropped as a duplicate if too little of it
    remains.

    Args:
        objects: The objects of one class, best first.
        size: (H, W) of the image.
        mask_threshold: Probability above which a pixel belongs to an object.
        min_visible_fraction: Fraction of its pixels that better objects must leave to an object.

    Returns:
        int32 (H, W), numbered from 1, best first; float32 (N,): the score of each number.
    """
    labels = np.zeros(size, np.int32)
    scores: list[float] = []
    for (place, probabilities), score in zip(paste(objects.masks, objects.boxes, size), objects.scores, strict=True):
        pixels = probabilities > mask_threshold
        free = pixels & (labels[place] == 0)
        left = np.count_nonzero(free)
        if left > 0 and left >= min_visible_fraction * np.count_nonzero(pixels):
            scores.append(score)
            labels[place][free] = len(scores)
    return labels, np.array(scores, np.float32)


def paste(
    masks: FloatArray, boxes: FloatArray, size: tuple[int, int]
) -> Iterator[tuple[tuple[slice, slice], FloatArray]]:
    """Yield, for each mask, the rows and columns of the pixels whose centre is in its box, and their values (h, w).

    This inverts the way in which torchvision crops masks to their boxes for training, `roi_align`: there, the centre of
    cell i of M is at *pixel index* x0 + (i + 1/2) (x1 - x0) / M. torchvision's own `paste_masks_in_image` stretches
    masks to boxes that are up to two pixels larger, which matters for small objects: nuclei in crops of 64 pixels,
    cropped and pasted without any network, come back with an IoU of 0.88, and of 0.999 here.

    Values are interpolated linearly between the centres of cells and constant beyond the outermost ones. Rows and
    columns are independent: P = R mask C^T, with the weights of rows and columns.

    Args:
        masks: float32 (N, M, M).
        boxes: float32 (N, 4): (y0, x0, y1, x1).
        size: (H, W) of the image; pixels outside it are left out.
    """
    rows = _along(boxes[:, ::2], size[0], masks.shape[1])
    columns = _along(boxes[:, 1::2], size[1], masks.shape[2])
    for mask, (y, down), (x, across) in zip(masks.astype(np.float64), rows, columns, strict=True):
        yield (y, x), (down @ mask @ across.T).astype(np.float32)


def _along(sides: FloatArray, edge: int, cells: int) -> Iterator[tuple[slice, Weights]]:
    """Yield, for each box, the n pixels that it covers along one axis, and the weights (n, M) of its M cells.

    Args:
        sides: float32 (N, 2): start and end of each box.
        edge: Number of pixels of the image.
        cells: Number of cells M.
    """
    first, last = np.clip(np.ceil(sides - 0.5), 0, edge).astype(np.int64).T
    counts = np.maximum(last - first, 0)
    # All boxes at once: there may be hundreds, and most are small.
    ends = np.cumsum(counts)
    pixels = np.arange(counts.sum()) + np.repeat(first - (ends - counts), counts)
    length = np.maximum(sides[:, 1] - sides[:, 0], 1e-6)
    weights = linear((pixels - np.repeat(sides[:, 0], counts)) / np.repeat(length, counts) * cells - 0.5, cells)
    for start, end, number in zip(first.tolist(), ends.tolist(), counts.tolist(), strict=True):
        yield slice(start, start + number), weights[end - number : end]


def linear(places: npt.NDArray[np.float64], cells: int) -> Weights:
    """Return the weights (N, M) of M cells for linear interpolation at N positions, in units of cells."""
    inside = np.clip(places, 0, cells - 1)
    weights: Weights = np.maximum(1 - np.abs(inside[:, None] - np.arange(cells)), 0)
    return weights
