"""Maps of different resolution on nested grids, so that work per pixel is done once per cell.

Nearest upsampling repeats values. Sums over the pixels of upsampled layers, and functions of them pixel by pixel, can
therefore be computed from the native cells, each weighted by its number of pixels - if each cell of one layer lies in
one cell of the next. If a stride does not divide the next, cells of the shallower layer are cut where those of the
deeper one begin.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe.types import FloatArray, Layer, Maps

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Grid:
    """A division of the image into rows and columns of cells.

    Attributes:
        rows: The first pixel of each row of cells, increasing from 0.
        columns: The first pixel of each column of cells, increasing from 0.
        size: (H, W) of the image.
    """

    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    size: tuple[int, int]

    @property
    def heights(self) -> npt.NDArray[np.intp]:
        """The pixels in each row of cells."""
        return np.diff(self.rows, append=self.size[0])

    @property
    def widths(self) -> npt.NDArray[np.intp]:
        """The pixels in each column of cells."""
        return np.diff(self.columns, append=self.size[1])

    def cut(self, other: Grid) -> Grid:
        """Return the grid with the cuts of both."""
        return Grid(np.union1d(self.rows, other.rows), np.union1d(self.columns, other.columns), self.size)

    def sums(self, values: Array, coarser: Grid) -> Array:
        """Return for each cell of a coarser grid the sum of the values (..., h, w) of this grid's cells in it."""
        for axis, starts, others in ((-2, self.rows, coarser.rows), (-1, self.columns, coarser.columns)):
            if len(starts) > len(others):
                values = sum_runs(values.swapaxes(axis, -1), np.searchsorted(starts, others)).swapaxes(axis, -1)
        return values

    def spread(self, values: Array, finer: Grid) -> Array:
        """Return for each cell of a finer grid the value, of (..., h, w), of this grid's cell that it lies in."""
        for axis, starts, others in ((-1, self.columns, finer.columns), (-2, self.rows, finer.rows)):
            if len(starts) < len(others):
                values = values.repeat(np.diff(np.searchsorted(others, starts), append=len(others)), axis)
        return values


def pixels(size: tuple[int, int]) -> Grid:
    """Return the grid whose cells are the pixels of an image (H, W)."""
    return Grid(np.arange(size[0]), np.arange(size[1]), size)


class Level(NamedTuple):
    """The layers that share a grid: its cells, and their values, (M, n, h, w) of n layers."""

    grid: Grid
    values: Array


def visible(maps: Maps, index: int) -> FloatArray:
    """Return the map (M, h, w) of a layer without the cells outside the image."""
    stride, (height, width) = maps.layers[index].stride, maps.size
    return maps.maps[index][:, : -(-height // stride), : -(-width // stride)]


def pyramid(
    layers: Sequence[Layer], planes: Sequence[Array], size: tuple[int, int], dtype: npt.DTypeLike = np.float32
) -> list[Level]:
    """Return layers on nested grids: each cell lies in one cell of the next grid.

    Args:
        layers: Shallow to deep.
        planes: Their maps, each (M, h, w), all of it visible.
        size: (H, W) of the image.
        dtype: Type of the result.
    """
    nested: list[tuple[Grid, Array]] = []
    for layer, values in zip(reversed(layers), reversed(planes), strict=True):
        rows, columns = (np.arange(count) * layer.stride for count in values.shape[1:])
        native = Grid(rows, columns, size)
        grid = native.cut(nested[-1][0]) if nested else native
        nested.append((grid, native.spread(values, grid)))
    # Nested grids of the same shape are equal.
    groups = [list(group) for _, group in itertools.groupby(reversed(nested), key=lambda pair: pair[1].shape)]
    return [Level(group[0][0], np.stack([values for _, values in group], axis=1, dtype=dtype)) for group in groups]


def sum_runs(values: Array, starts: npt.NDArray[np.intp]) -> Array:
    """Return the sums of runs along the last axis, each from its start to the next, the last one to the end."""
    step = starts[1] if len(starts) > 1 else 1
    if np.any(np.diff(starts) != step):
        return np.add.reduceat(values, starts, axis=-1)
    # If all runs but the last are equally long, slices are faster than reduceat by the length of a run.
    sums = np.empty((*values.shape[:-1], len(starts)), values.dtype)
    head, last = sums[..., :-1], starts[-1]
    head[...] = values[..., 0:last:step]
    for offset in range(1, step):
        head += values[..., offset:last:step]
    sums[..., -1] = values[..., last:].sum(-1)
    return sums
