"""The objects of label images, int32 (K, H, W) with 0 for background: where they are and how large.

An object is all pixels of one number in one class, whether connected or not. Numbers may have gaps; results per object
are in the order of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from micraframe.errors import DataError
from micraframe.types import BoolArray, FloatArray, IntArray, Sample

_Pixels = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp], int]


def objects_of(sample: Sample) -> IntArray:
    """Return a sample's instances, or the connected components of its masks where it has none.

    Raises:
        DataError: If it has neither.
    """
    if sample.instances is not None:
        return sample.instances
    if sample.masks is None:
        raise DataError(f"sample {sample.id!r}: expected instances or masks to find its objects in, got neither")
    return components(sample.masks)


def is_numbered(planes: IntArray) -> bool:
    """Return whether a mask of any class, (K, H, W), has several values other than 0."""
    positive = [plane[plane != 0] for plane in planes]
    return any(values.size > 0 and values.min() != values.max() for values in positive)


def components(masks: BoolArray) -> IntArray:
    """Return the components of each class's mask (K, H, W), connected over edges and corners, numbered from 1."""
    labels = np.zeros(masks.shape, np.int32)
    for mask, output in zip(masks, labels, strict=True):
        ndimage.label(mask, np.ones((3, 3)), output=output)
    return labels


def centroids(instances: IntArray) -> tuple[FloatArray, ...]:
    """Return per class the centroid of each object, float32 (N, 2): (y, x), which need not lie in the object."""
    return tuple(_centroids(_pixels(labels)).astype(np.float32) for labels in instances)


def inner_points(instances: IntArray) -> tuple[FloatArray, ...]:
    """Return per class the pixel of each object that is nearest to its centroid, float32 (N, 2): (y, x)."""
    points = []
    for labels in instances:
        y, x, number, count = pixels = _pixels(labels)
        centre = _centroids(pixels)[number]
        distance = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2
        # By object, then by distance; equal distances keep the reading order.
        order = np.lexsort((distance, number))
        first = order[np.searchsorted(number[order], np.arange(count))]
        points.append(np.stack([y[first], x[first]], axis=1).astype(np.float32))
    return tuple(points)


def bounding_boxes(instances: IntArray) -> tuple[FloatArray, ...]:
    """Return per class the box around each object, float32 (N, 4): (y0, x0, y1, x1), end exclusive."""
    return tuple(
        np.array([[y.start, x.start, y.stop, x.stop] for _, (y, x) in windows(labels)], np.float32).reshape(-1, 4)
        for labels in instances
    )


def boxes_of(sample: Sample) -> tuple[FloatArray, ...]:
    """Return the boxes around a sample's objects, as `bounding_boxes`, or those that it has, if only these are known.

    Raises:
        DataError: If it has no instances, masks or boxes.
    """
    if sample.instances is None and sample.masks is None and sample.boxes is not None:
        return sample.boxes
    return bounding_boxes(objects_of(sample))


def box_window(box: FloatArray) -> tuple[slice, slice]:
    """Return the rows and columns of the pixels that a box (y0, x0, y1, x1), end exclusive, touches."""
    y0, x0, y1, x1 = box
    # Below 0, a slice would count from the end.
    return (
        slice(max(0, math.floor(y0)), max(0, math.ceil(y1))),
        slice(max(0, math.floor(x0)), max(0, math.ceil(x1))),
    )


def fill(boxes: Sequence[FloatArray], size: tuple[int, int]) -> BoolArray:
    """Return the pixels of an image (H, W) that any box (N, 4) of a class touches, bool (K, H, W)."""
    masks = np.zeros((len(boxes), *size), np.bool_)
    for mask, several in zip(masks, boxes, strict=True):
        for box in several:
            mask[box_window(box)] = True
    return masks


def compact(labels: IntArray) -> IntArray:
    """Return objects (..., H, W), numbered from 1 in their order if their largest number is above that of pixels."""
    if labels.max(initial=0) <= labels.size:
        return labels
    return np.searchsorted(np.unique(labels[labels > 0]), labels, side="right").astype(np.int32)


def windows(labels: IntArray) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Yield the number of each object of one class (H, W), and the rows and columns that it spans."""
    numbers = np.unique(labels[labels > 0])
    labels = compact(labels)  # `find_objects` makes a list as long as the largest number
    found = (window for window in ndimage.find_objects(labels) if window is not None)
    yield from zip(numbers.tolist(), found, strict=True)


def edges(instances: IntArray) -> BoolArray:
    """Return where a pixel has another number than one of its neighbours: bool (K, H, W), of (K, H, W).

    Neighbours are the pixels above, below, left and right; the image's border is not an edge.
    """
    # skimage.segmentation.find_boundaries gives the same in ten times the time.
    edge = np.zeros(instances.shape, np.bool_)
    rows, columns = np.diff(instances, axis=1) != 0, np.diff(instances, axis=2) != 0
    edge[:, 1:] |= rows
    edge[:, :-1] |= rows
    edge[:, :, 1:] |= columns
    edge[:, :, :-1] |= columns
    return edge


def edge_pixels(instances: IntArray) -> int:
    """Return the number of pixels, of all classes, that lie in an object beside another object or background."""
    return int(np.count_nonzero(edges(instances) & (instances > 0)))


def count(instances: IntArray) -> int:
    """Return the number of objects of all classes."""
    return sum(len(np.unique(labels[labels > 0])) for labels in instances)


def _pixels(labels: IntArray) -> _Pixels:
    """Return the row, column and object, counted from 0, of every pixel of an object; and the number of objects."""
    if not labels.any():  # most classes are absent from most images
        nothing = np.zeros(0, np.intp)
        return nothing, nothing, nothing, 0
    flat = np.flatnonzero(labels > 0)
    values = labels.ravel()[flat]
    y, x = np.divmod(flat, labels.shape[1])
    numbers, number = np.unique(values, return_inverse=True)
    return y, x, number, len(numbers)


def _centroids(pixels: _Pixels) -> npt.NDArray[np.float64]:
    y, x, number, count = pixels
    area = np.bincount(number, minlength=count)
    sums = [np.bincount(number, position, minlength=count) for position in (y, x)]
    return np.stack(sums, axis=1) / area[:, None]
