"""Cuts images into crops, and says of a crop whether a class is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe.types import BoolArray

POSITIVE, NEGATIVE, BETWEEN = 1, 0, -1
"""The answers of `judge`."""


class Window(NamedTuple):
    """A part of an image: its first row and column, its height and width."""

    y: int
    x: int
    height: int
    width: int

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns, to index an array's last two axes by `[..., *place]`."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def grid(size: tuple[int, int], crop: int, stride: int) -> list[Window]:
    """Cover an image with square crops, row by row.

    The last row and column of crops are moved inwards, so that no pixel is left out and none is beyond the edge. Where
    an image is smaller than a crop, the crop is as high or wide as the image.

    Args:
        size: (H, W) of the image.
        crop: Height and width of a crop.
        stride: From one crop to the next, at most `crop`.
    """
    height, width = (min(crop, length) for length in size)
    rows, columns = (
        [*range(0, length - edge, stride), length - edge] for length, edge in zip(size, (height, width), strict=True)
    )
    return [Window(y, x, height, width) for y in rows for x in columns]


def judge(masks: BoolArray, least: Sequence[float]) -> npt.NDArray[np.int8]:
    """Say for each class whether a crop holds enough of it.

    Args:
        masks: bool (K, H, W): what is annotated in the crop.
        least: Per class, the annotated pixels that it takes.

    Returns:
        int8 (K,): `NEGATIVE` where no pixel is annotated, `POSITIVE` where at least `least` are, else `BETWEEN`.
    """
    area = np.count_nonzero(masks, axis=(1, 2))
    return np.where(area == 0, NEGATIVE, np.where(area >= np.asarray(least), POSITIVE, BETWEEN)).astype(np.int8)
