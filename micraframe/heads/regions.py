"""Pieces of a mask: which hang together, which are too small, where the holes are.

Objects hang together over edges and corners; their background, and so their holes, over edges only.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from micraframe.thresholds import EIGHT
from micraframe.types import BoolArray, FloatArray, IntArray


def components(mask: BoolArray) -> IntArray:
    """Return the connected components of a mask (H, W), int32 (H, W), numbered from 1 in reading order."""
    labels, _ = ndimage.label(mask, EIGHT, output=np.int32)
    return np.asarray(labels)


def remove_small(mask: BoolArray, area: float) -> BoolArray:
    """Return the mask (H, W) without components of fewer pixels than `area`."""
    labels = components(mask)
    kept = np.bincount(labels.ravel()) >= area
    kept[0] = False
    return np.asarray(kept[labels])


def fill_holes(mask: BoolArray, area: float) -> BoolArray:
    """Return the mask (H, W) with its holes of at most `area` pixels filled; what touches the border is no hole."""
    labels, count = ndimage.label(~mask)
    filled = np.bincount(labels.ravel(), minlength=count + 1) <= area
    filled[0] = False
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        filled[border] = False
    return np.asarray(mask | filled[labels])


def keep_maximum(mask: BoolArray, values: FloatArray) -> BoolArray:
    """Return the component of the mask (H, W) that holds the largest value under the mask (H, W)."""
    if not mask.any():
        return mask
    labels = components(mask)
    return np.asarray(labels == labels.flat[np.where(mask, values, -np.inf).argmax()])
