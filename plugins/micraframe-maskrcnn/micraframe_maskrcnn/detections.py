"""Detections, each a box with a small mask: to one score map per class, and to objects that share no pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import nms

from micraframe.types import BoolArray, FloatArray, IntArray, Part, ScoreMap, Status

Weights = npt.NDArray[np.float64]

NOTE = "detections"
"""Under what each class's `Found` stands in the notes of a score map."""


SLACK = 0.1
"""By how much of its longer side, and 2 pixels at least, two tiles may differ in where an object's middle is."""


class Found(NamedTuple):
    """What a detector found of one class in one image, best first.

    Attributes:
        boxes: float32 (N, 4): (x0, y0, x1, y1) in pixels, the end not included.
        scores: float32 (N,), in [0, 1].
        masks: float32 (N, M, M): probability that a cell of the box is of the object.
    """

    boxes: FloatArray
    scores: FloatArray
    masks: FloatArray

    def chosen(self, which: BoolArray) -> Found:
        """Return those, bool (N,), alone."""
        return Found(self.boxes[which], self.scores[which], self.masks[which])


def as_score_map(found: Sequence[Found], size: tuple[int, int]) -> ScoreMap:
    """Return the score map of all classes, fine and coarse alike, with what it was made of in its notes.

    A pixel's score is the largest product, over the class's detections, of the detection's score and the pixel's
    probability. A detection without a pixel is no detection.

    Args:
        found: Per class, whatever its score.
        size: (H, W) of the image.
    """
    values = np.zeros((len(found), *size), np.float32)
    notes = []
    for plane, several in zip(values, found, strict=True):
        seen = np.zeros(len(several.scores), bool)
        pasted = paste(several.masks, several.boxes, size)
        for number, ((place, probabilities), score) in enumerate(zip(pasted, several.scores, strict=True)):
            seen[number] = probabilities.size > 0
            np.maximum(plane[place], score * probabilities, out=plane[place])
        notes.append({NOTE: several.chosen(seen)})
    status: tuple[Status, ...] = tuple("ok" if plane.any() else "empty" for plane in values)
    return ScoreMap(tuple(range(len(found))), values, values, status, tuple(notes))


def best_scores(score_map: ScoreMap) -> FloatArray:
    """Return the score of each class's best detection, float32 (K,): 0 where there is none."""
    return np.array([note[NOTE].scores.max(initial=0) for note in score_map.notes], np.float32)


def join(parts: Sequence[Part], overlap: float) -> list[Found]:
    """Return the detections of an image that was predicted in tiles, per class and best first.

    A tile's detection counts where its middle lies in the part of the tile that is used, or as near to it as `SLACK`
    says: two tiles may place an object a little differently. What both tell of is found twice, and the better kept.

    Args:
        parts: The tiles, whose score maps have what was found in their notes.
        overlap: IOU of boxes above which two are one object.
    """
    joined = []
    for index in range(len(parts[0].scores)):
        several = [_placed(part, part.score_map.notes[index][NOTE]) for part in parts]
        found = Found(*(np.concatenate(fields) for fields in zip(*several, strict=True)))
        kept = nms(torch.from_numpy(found.boxes), torch.from_numpy(found.scores), overlap).numpy()
        joined.append(Found(*(field[kept] for field in found)))
    return joined


def _placed(part: Part, found: Found) -> Found:
    """Return those detections of a tile that count, with their boxes in the image."""
    boxes = found.boxes + np.array([part.columns[0], part.rows[0]] * 2, np.float32)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    slack = np.maximum(2, SLACK * (boxes[:, 2:] - boxes[:, :2]).max(axis=1))
    counts = np.ones(len(boxes), bool)
    for middle, (first, last) in zip(middles.T, (part.used_columns, part.used_rows), strict=True):
        counts &= (middle >= first - slack) & (middle < last + slack)
    return Found(boxes, found.scores, found.masks).chosen(counts)


def separate(found: Found, size: tuple[int, int], threshold: float, own: float) -> tuple[IntArray, FloatArray]:
    """Return the objects of one class, and their scores.

    Where objects overlap, the pixel is the better one's; one to which too little is left is taken for the better one,
    found twice.

    Args:
        found: What counts.
        size: (H, W) of the image.
        threshold: Probability above which a pixel is of the object.
        own: Share of its pixels that better objects must leave to it.

    Returns:
        int32 (H, W), numbered from 1, best first; float32 (N,), in the order of these numbers.
    """
    labels = np.zeros(size, np.int32)
    scores: list[float] = []
    for (place, probabilities), score in zip(paste(found.masks, found.boxes, size), found.scores, strict=True):
        pixels = probabilities > threshold
        free = pixels & (labels[place] == 0)
        left = np.count_nonzero(free)
        if left > 0 and left >= own * np.count_nonzero(pixels):
            scores.append(score)
            labels[place][free] = len(scores)
    return labels, np.array(scores, np.float32)


def paste(
    masks: FloatArray, boxes: FloatArray, size: tuple[int, int]
) -> Iterator[tuple[tuple[slice, slice], FloatArray]]:
    """Yield of each mask the rows and columns of the pixels whose middle is in its box, and their probabilities (h, w).

    It undoes how torchvision cuts masks for training out of their boxes, by `roi_align`: there, the middle of cell i
    of M is at *pixel index* x0 + (i + 1/2) (x1 - x0) / M. torchvision's own `paste_masks_in_image` stretches masks to
    boxes that are larger by up to two pixels, which counts where objects are small: of nuclei in crops of 64 pixels,
    cut and pasted without any network, it leaves an IOU of 0.88, and this of 0.999.

    Between the middles of cells it interpolates linearly, beyond the outermost it goes on with their values. Rows and
    columns can be done one after the other: P = R mask C^T, with the weights of rows and columns.

    Args:
        masks: float32 (N, M, M).
        boxes: float32 (N, 4): (x0, y0, x1, y1).
        size: (H, W) of the image; what is outside of it is left out.
    """
    rows = _along(boxes[:, 1::2], size[0], masks.shape[1])
    columns = _along(boxes[:, ::2], size[1], masks.shape[2])
    for mask, (y, down), (x, across) in zip(masks.astype(np.float64), rows, columns, strict=True):
        yield (y, x), (down @ mask @ across.T).astype(np.float32)


def _along(sides: FloatArray, edge: int, cells: int) -> Iterator[tuple[slice, Weights]]:
    """Yield of each box the pixels that it fills along one axis, n of them, and the weights (n, M) of its M cells.

    Args:
        sides: float32 (N, 2): where it starts and ends.
        edge: Pixels of the image.
        cells: M.
    """
    first, last = np.clip(np.ceil(sides - 0.5), 0, edge).astype(np.int64).T
    counts = np.maximum(last - first, 0)
    # The pixels of all boxes in one row: there may be hundreds of boxes, and most are small.
    ends = np.cumsum(counts)
    pixels = np.arange(counts.sum()) + np.repeat(first - (ends - counts), counts)
    length = np.maximum(sides[:, 1] - sides[:, 0], 1e-6)
    weights = linear((pixels - np.repeat(sides[:, 0], counts)) / np.repeat(length, counts) * cells - 0.5, cells)
    for start, end, number in zip(first.tolist(), ends.tolist(), counts.tolist(), strict=True):
        yield slice(start, start + number), weights[end - number : end]


def linear(places: npt.NDArray[np.float64], cells: int) -> Weights:
    """Return the weights (N, M) of M cells in linear interpolation at N places, counted in cells."""
    inside = np.clip(places, 0, cells - 1)
    weights: Weights = np.maximum(1 - np.abs(inside[:, None] - np.arange(cells)), 0)
    return weights
