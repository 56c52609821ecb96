"""The connected components of a mask, and its holes.

Objects are connected over edges and corners; their background, and so their holes, over edges only.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from micraframe.objects import components
from micraframe.types import BoolArray, FloatArray, IntArray


def remove_small(mask: BoolArray, area: float) -> BoolArray:
    """Return the mask (H, W) without components of fewer pixels than `area`."""
    labels = components(mask[None])[0]
    kept = np.bincount(labels.ravel()) >= area
    kept[0] = False
    return np.asarray(kept[labels])


def fill_holes(mask: BoolArray, area: float) -> BoolArray:
    """Return the mask (H, W) with holes of at most `area` pixels filled; a hole does not touch the image's border."""
    labels, count = ndimage.label(~mask)
    filled = np.bincount(labels.ravel(), minlength=count + 1) <= area
    filled[0] = False
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        filled[border] = False
    return np.asarray(mask | filled[labels])


def keep_maximum(mask: BoolArray, values: FloatArray) -> BoolArray:
    """Return the component of the mask (H, W) that holds the largest of the values (H, W) in the mask."""
    if not mask.any():
        return mask
    labels = components(mask[None])[0]
    return np.asarray(labels == labels.flat[np.where(mask, values, -np.inf).argmax()])


def split_touching(mask: BoolArray, distance: int) -> IntArray:
    """Return the objects of a mask, int32 (H, W), numbered from 1, cut at their necks.

    Watershed of the distance to the background, which is everything beyond the image too, from the pixels where it is
    highest within `distance` rows and columns. A component without such a pixel is one object.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    peaks = mask & (depth == ndimage.maximum_filter(depth, 2 * distance + 1))
    seeds = components(peaks[None])[0]
    labels = watershed(-depth, seeds, mask=mask, connectivity=2)  # type: ignore[no-untyped-call]
    rest = components((mask & (labels == 0))[None])[0]
    return np.asarray(np.where(rest > 0, rest + labels.max(), labels), np.int32)


def drop_small(labels: IntArray, area: float) -> IntArray:
    """Return the objects of at least `area` pixels, int32 (H, W), numbered from 1 without gaps."""
    kept = np.bincount(labels.ravel()) >= max(area, 1)
    kept[0] = False
    return np.asarray(np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels])
