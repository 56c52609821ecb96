"""Upsampling from a layer's cells to the image's pixels, so that each cell covers the pixels that it was computed from.

A layer of stride s has one cell for every s pixels: cell 0 covers the pixels 0 to s - 1, its centre is at (s - 1) / 2.
If the image's size is not a multiple of s, the last cell also covers the rest; stretching the layer to the image
instead would shift the map by up to a cell.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from micraframe.types import FloatArray

Interpolation = Literal["nearest", "bilinear"]


def cells(length: int, count: int, stride: int) -> npt.NDArray[np.intp]:
    """Return for each pixel along a side the index of the cell that it lies in.

    Args:
        length: Number of pixels.
        count: Number of cells.
        stride: Pixels per cell.
    """
    return np.minimum(np.arange(length) // stride, count - 1)


def upsample(
    maps: FloatArray, size: tuple[int, int], stride: int, interpolation: Interpolation = "nearest"
) -> FloatArray:
    """Return maps (M, h, w) of a layer as float32 (M, H, W).

    Args:
        maps: float32 (M, h, w).
        size: (H, W) of the image.
        stride: Pixels per cell.
        interpolation: `nearest` gives a pixel its cell's value; `bilinear` interpolates between the centres of cells,
            and continues the outermost values beyond them.
    """
    _, rows, columns = maps.shape
    height, width = size
    if interpolation == "nearest":
        if stride > 1 and height <= rows * stride and width <= columns * stride:
            return maps.repeat(stride, 1)[:, :height].repeat(stride, 2)[:, :, :width]
        return np.ascontiguousarray(maps[:, cells(height, rows, stride)][:, :, cells(width, columns, stride)])
    low, high, weight = _neighbours(height, rows, stride)
    part: FloatArray = maps[:, low] * (1 - weight)[:, None] + maps[:, high] * weight[:, None]
    low, high, weight = _neighbours(width, columns, stride)
    whole: FloatArray = part[:, :, low] * (1 - weight) + part[:, :, high] * weight
    return whole


def _neighbours(length: int, count: int, stride: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """Return for each pixel the cells before and after it, and the weight of the latter."""
    position = np.clip((np.arange(length) + 0.5) / stride - 0.5, 0, count - 1).astype(np.float32)
    low = position.astype(np.intp)
    return low, np.minimum(low + 1, count - 1), position - low.astype(np.float32)
