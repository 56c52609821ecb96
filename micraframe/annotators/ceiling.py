"""The score of an annotation used as a prediction: the quality of its masks before any method learns from them.

A study shows it next to the methods that learned from the annotation. It is not a result, because it is derived from
the truth of the test images.
"""

from __future__ import annotations

import numpy as np

from micraframe.objects import box_window, fill
from micraframe.types import BoolArray, DatasetInfo, FloatArray, IntArray, Prediction, Sample, Scores


def as_prediction(annotated: Sample, info: DatasetInfo, ignore: BoolArray | None = None) -> Prediction | None:
    """Return an annotation as a prediction.

    Masks and instances are used as drawn; each box becomes a filled object; points stay points, without a mask. A class
    is present if it is among the labels.

    Args:
        annotated: What an annotator returned.
        info: Metadata of the dataset.
        ignore: bool (H, W): the pixels that the truth excludes.

    Returns:
        None if pixels that count stay unannotated: labels say nothing about pixels, and scribbles cover few.
    """
    size = (annotated.image.shape[1], annotated.image.shape[2])
    masks, instances, boxes, points = annotated.masks, annotated.instances, annotated.boxes, None
    if annotated.ignore is not None and (annotated.ignore & (True if ignore is None else ~ignore)).any():
        return None
    if instances is None and boxes is not None and (masks is None or np.array_equal(masks, fill(boxes, size))):
        instances = filled_objects(boxes, size)
    if masks is None and instances is not None:
        masks = instances > 0
    if masks is not None:
        maps = masks.astype(np.float32)
    elif annotated.points is not None:
        maps = point_maps(annotated.points, size)
        points = tuple(np.insert(each, 2, 1, axis=1) for each in annotated.points)
    else:
        return None
    present = np.asarray(maps.any(axis=(1, 2))) if annotated.labels is None else annotated.labels
    scores = Scores(np.asarray(present, np.float32), tuple(range(len(info.classes))), maps)
    return Prediction(scores, present, masks, instances, points, scores.status)


def filled_objects(boxes: tuple[FloatArray, ...], size: tuple[int, int]) -> IntArray:
    """Return the boxes (y0, x0, y1, x1) of each class, filled and numbered, int32 (K, H, W).

    Where boxes overlap, the smaller one is on top.

    Args:
        boxes: Per class, (N, 4).
        size: (H, W).
    """
    objects = np.zeros((len(boxes), *size), np.int32)
    for labels, several in zip(objects, boxes, strict=True):
        areas = np.prod(several[:, 2:] - several[:, :2], axis=1)
        for number, index in enumerate(np.argsort(-areas, kind="stable"), start=1):
            labels[box_window(several[index])] = number
    return objects


def point_maps(points: tuple[FloatArray, ...], size: tuple[int, int]) -> FloatArray:
    """Return maps that are 1 at the pixels nearest to points (y, x) and 0 elsewhere, float32 (K, H, W)."""
    maps = np.zeros((len(points), *size), np.float32)
    for values, several in zip(maps, points, strict=True):
        rows, columns = np.rint(several).astype(int).clip(0, np.array(size) - 1).T
        values[rows, columns] = 1
    return maps
