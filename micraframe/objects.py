"""The objects of label images, int32 (K, H, W) with 0 for background: where they are and what holds them.

An object is all pixels of one number in one class, whether they hang together or not. Numbers may have gaps; what is
returned per object is in the order of the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

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
        raise DataError(f"sample {sample.id!r} has neither instances nor masks, of which its objects could be known")
    return components(sample.masks)


def components(masks: BoolArray) -> IntArray:
    """Return the connected components, over edges and corners, of each class's mask (K, H, W), numbered from 1."""
    labels = np.zeros(masks.shape, np.int32)
    for mask, output in zip(masks, labels, strict=True):
        ndimage.label(mask, np.ones((3, 3)), output=output)
    return labels


def centroids(instances: IntArray) -> tuple[FloatArray, ...]:
    """Return per class the objects' centres of mass, float32 (N, 2): (y, x), which need not be inside the objects."""
    return tuple(_centroids(_pixels(labels)).astype(np.float32) for labels in instances)


def inner_points(instances: IntArray) -> tuple[FloatArray, ...]:
    """Return per class, for each object, its pixel nearest to its centre of mass, float32 (N, 2): (y, x)."""
    points = []
    for labels in instances:
        y, x, number, count = pixels = _pixels(labels)
        centre = _centroids(pixels)[number]
        distance = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2
        # Sorted by object, then by distance; equally near ones stay in reading order.
        order = np.lexsort((distance, number))
        first = order[np.searchsorted(number[order], np.arange(count))]
        points.append(np.stack([y[first], x[first]], axis=1).astype(np.float32))
    return tuple(points)


def bounding_boxes(instances: IntArray) -> tuple[FloatArray, ...]:
    """Return per class the objects' boxes, float32 (N, 4): (y0, x0, y1, x1), the end not included."""
    boxes = []
    for labels in instances:
        y, x, number, count = _pixels(labels)
        box = np.empty((count, 4), np.intp)
        box[:, :2], box[:, 2:] = max(labels.shape), 0
        np.minimum.at(box[:, 0], number, y)
        np.minimum.at(box[:, 1], number, x)
        np.maximum.at(box[:, 2], number, y + 1)
        np.maximum.at(box[:, 3], number, x + 1)
        boxes.append(box.astype(np.float32))
    return tuple(boxes)


def windows(labels: IntArray) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Yield the number of each object of one class (H, W), and the rows and columns that it fills."""
    (boxes,) = bounding_boxes(labels[None])
    for number, (y0, x0, y1, x1) in zip(np.unique(labels[labels > 0]), boxes.astype(int), strict=True):
        yield int(number), (slice(y0, y1), slice(x0, x1))


def edge_pixels(instances: IntArray) -> int:
    """Return the number of objects' pixels, of all classes, beside a pixel above, below, left or right of another kind.

    The edge of the image is no edge of an object.
    """
    edge = np.zeros(instances.shape, np.bool_)
    rows, columns = np.diff(instances, axis=1) != 0, np.diff(instances, axis=2) != 0
    edge[:, 1:] |= rows
    edge[:, :-1] |= rows
    edge[:, :, 1:] |= columns
    edge[:, :, :-1] |= columns
    return int(np.count_nonzero(edge & (instances > 0)))


def count(instances: IntArray) -> int:
    """Return the number of objects of all classes."""
    return sum(len(np.unique(labels[labels > 0])) for labels in instances)


def _pixels(labels: IntArray) -> _Pixels:
    """Return row, column and object, counted from 0, of every pixel that is not background; and how many objects."""
    if not labels.any():  # as most classes of most images are
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
