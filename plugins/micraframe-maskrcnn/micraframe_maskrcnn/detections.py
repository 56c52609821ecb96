"""From detections, each a box with a small mask, to objects that share no pixel and to one score map per class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import expand_boxes, expand_masks, paste_mask_in_image

from micraframe.heads.masks import blank_status
from micraframe.heads.presence import Decision, decide_presence, presence_thresholds
from micraframe.heads.regions import drop_small
from micraframe.objects import centroids
from micraframe.types import FloatArray, Prediction, ScoreMap, Status, Threshold


class Detections(NamedTuple):
    """What a detector found in one image, best first.

    Attributes:
        boxes: float32 (N, 4): (x0, y0, x1, y1) in pixels.
        classes: int64 (N,), from 0.
        scores: float32 (N,), in [0, 1].
        masks: float32 (N, M, M): probability that a point of the box is of the object.
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor
    masks: Tensor


class Decided(NamedTuple):
    """What decides which detections count, and where their masks end.

    Attributes:
        decision: Score from which on a detection counts; one, or one per class.
        mask: Probability above which a pixel is of the object.
        minimum_size: Pixels that an object has at least.
    """

    decision: Decision
    mask: float
    minimum_size: float


def arrange(found: Detections, classes: int, size: tuple[int, int], decided: Decided) -> Prediction:
    """Return the prediction for one image.

    The score of a class is that of its best detection. A pixel's score is the largest product, over the class's
    detections, of the detection's score and the pixel's probability. Where objects of one class overlap, the pixel is
    the better one's.

    Args:
        found: What was found, whatever its score.
        classes: Number of classes K.
        size: (H, W) of the image.
        decided: What counts.
    """
    scores = np.zeros(classes, np.float32)
    values = np.zeros((classes, *size), np.float32)
    labels = np.zeros((classes, *size), np.int32)
    ranked: list[list[float]] = [[0.0] for _ in range(classes)]
    for index, score, place, probabilities in windows(found, size):
        scores[index] = max(scores[index], score)
        values[index][place] = np.maximum(values[index][place], score * probabilities)
        counts = decide_presence(np.full(classes, score, np.float32), decided.decision)[index]
        if counts:
            free = (probabilities > decided.mask) & (labels[index][place] == 0)
            labels[index][place][free] = len(ranked[index])
            ranked[index].append(score)

    instances = np.stack([drop_small(plane, decided.minimum_size) for plane in labels])
    present = decide_presence(scores, decided.decision)
    middles = centroids(instances)
    points = []
    for plane, kept, middle, rank in zip(labels, instances > 0, middles, ranked, strict=True):
        points.append(np.column_stack([middle, np.array(rank)[np.unique(plane[kept])]]).astype(np.float32))
    status: tuple[Status, ...] = tuple(
        blank_status(plane > 0, "ok" if here else "absent") for plane, here in zip(instances, present, strict=True)
    )
    seen: tuple[Status, ...] = tuple("ok" if plane.any() else "empty" for plane in values)
    return Prediction(
        scores=scores,
        present=present,
        masks=instances > 0,
        instances=instances,
        points=tuple(points),
        status=status,
        thresholds=(*presence_thresholds(decided.decision), Threshold("mask", decided.mask, rule="fixed")),
        score_map=ScoreMap(tuple(range(classes)), values, values, seen),
    )


def windows(found: Detections, size: tuple[int, int]) -> Iterator[tuple[int, float, tuple[slice, slice], FloatArray]]:
    """Yield class, score, rows and columns of each detection, best first, and its pixels' probabilities (h, w).

    As torchvision does, masks are enlarged by one cell of zeros on each side and stretched to their box, whose corners
    are rounded down. What is wholly outside of an image of this size (H, W) is left out.
    """
    masks, scale = expand_masks(found.masks[:, None], padding=1)
    boxes = expand_boxes(found.boxes, scale).to(torch.int64)
    for mask, box, index, score in zip(masks, boxes, found.classes.tolist(), found.scores.tolist(), strict=True):
        x0, y0 = (max(int(start), 0) for start in box[:2])
        x1, y1 = (min(int(end) + 1, edge) for end, edge in zip(box[2:], reversed(size), strict=True))
        if x0 < x1 and y0 < y1:
            shift = torch.tensor([x0, y0, x0, y0])
            probabilities = paste_mask_in_image(mask[0], box - shift, y1 - y0, x1 - x0).clamp(0, 1).numpy()
            yield index, score, (slice(y0, y1), slice(x0, x1)), probabilities
