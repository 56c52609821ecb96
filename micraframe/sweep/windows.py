"""The layout of windows on an image, and the map that their probabilities make. Pure arithmetic.

The unit is a cell: a square of `stride` pixels, one for each position of the backbone's deepest layer. An image whose
sides are not multiples of the stride is extended. Along each axis, windows start at every step, and the last one is
flush with the end. The starts and ends of windows and tiles divide the axis into segments, so that every window and
every tile, of any size, consists of whole segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from micraframe.errors import ConfigError
from micraframe.types import FloatArray

Spans = npt.NDArray[np.int64]
"""Ranges (N, 2): start and end, exclusive."""


@dataclass(frozen=True)
class SweepAxis:
    """The windows and tiles along rows or columns; in cells, except for `pixels` and `stride`.

    Attributes:
        pixels: Side of the image in pixels.
        stride: Pixels per cell.
        window: Side of a window.
        step: From one window to the next; at most a window, so that every cell is covered.
        tile: Side of a tile.
    """

    pixels: int
    stride: int
    window: int
    step: int
    tile: int

    @property
    def cells(self) -> int:
        """Side of the image; its last cell may extend beyond the image."""
        return -(-self.pixels // self.stride)

    @cached_property
    def windows(self) -> Spans:
        """The windows, as ranges of cells."""
        last = self.cells - self.window
        starts = np.array(sorted({*range(0, last + 1, self.step), last}))
        return np.stack([starts, starts + self.window], 1)

    @cached_property
    def tiles(self) -> Spans:
        """The tiles, as ranges of cells."""
        starts = np.arange(0, self.cells, self.tile)
        return np.stack([starts, np.minimum(starts + self.tile, self.cells)], 1)

    def starting_in(self, tile: int) -> Spans:
        """Return the windows that start in the tile with this number."""
        first, last = self.tiles[tile]
        starts = self.windows[:, 0]
        inside: Spans = self.windows[(first <= starts) & (starts < last)]
        return inside

    @cached_property
    def cuts(self) -> npt.NDArray[np.int64]:
        """The cells at which segments start, and the end of the last."""
        return np.unique(np.concatenate([[0, self.cells], self.windows.ravel(), self.tiles.ravel()]))

    def segments(self, spans: Spans) -> Spans:
        """Return ranges of cells, which start and end at cuts, as ranges of segments."""
        return np.searchsorted(self.cuts, spans)

    @cached_property
    def averaging(self) -> npt.NDArray[np.float64]:
        """Matrix (blocks, windows) that averages over the windows that contain a cell, then over the cells of a block.

        A block is `step` cells long; the last may be shorter. In two dimensions the mean is the product of the matrices
        of both axes, since a cell lies in a window if its row and its column do.
        """
        lengths = np.diff(self.cuts)
        first, last = self.segments(self.windows).T
        segment = np.arange(len(lengths))[:, None]
        inside = (first <= segment) & (segment < last)
        starts = np.arange(0, self.cells, self.step)[:, None]
        ends = np.minimum(starts + self.step, self.cells)
        shared = np.minimum(ends, self.cuts[1:]) - np.maximum(starts, self.cuts[:-1])
        averaging: npt.NDArray[np.float64] = (np.maximum(shared, 0) / (ends - starts)) @ (
            inside / inside.sum(1, keepdims=True)
        )
        return averaging


def lay_windows(
    size: tuple[int, int], stride: int, window: tuple[int, int], overlap: float, tile: int
) -> tuple[SweepAxis, SweepAxis]:
    """Return the windows and tiles of an image, along its rows and along its columns.

    Args:
        size: (H, W) of the image in pixels.
        stride: Pixels per cell.
        window: (height, width) of a window in pixels, rounded to multiples of the stride, and at most the image.
        overlap: Fraction of a window that the next one covers too, in [0, 1). The step, a multiple of the stride, is
            the same along both axes and follows from the window's shorter side.
        tile: Side of a tile in pixels, rounded down to a multiple of the stride.

    Raises:
        ConfigError: If one of them is out of range.
    """
    if min(window) < 1 or tile < 1 or not 0 <= overlap < 1:
        raise ConfigError(
            f"expected a window and a tile of at least 1 pixel and an overlap in [0, 1), got window {window}, "
            f"tile {tile} and overlap {overlap}"
        )
    sides = [max(1, round(side / stride)) for side in window]
    step = max(1, round(min(sides) * (1 - overlap)))
    rows, columns = (
        SweepAxis(pixels, stride, min(side, -(-pixels // stride)), step, max(1, tile // stride))
        for pixels, side in zip(size, sides, strict=True)
    )
    return rows, columns


def reduce_spans(
    values: FloatArray, spans: Spans, combine: Callable[[FloatArray, FloatArray], FloatArray]
) -> FloatArray:
    """Combine the values of each range, (S, ...) to (N, ...); `combine` is `np.maximum` or `np.add`.

    Unlike with `ufunc.reduceat`, neighbouring ranges may overlap.
    """
    first, last = spans.T
    reduced: FloatArray = values[first].copy()
    for offset in range(1, int((last - first).max())):
        live = np.flatnonzero(first + offset < last)
        reduced[live] = combine(reduced[live], values[first[live] + offset])
    return reduced


def probability_map(probabilities: FloatArray, rows: SweepAxis, columns: SweepAxis) -> FloatArray:
    """Return the mean probability of the windows that contain each pixel, averaged over blocks with sides of one step.

    From float32 (window rows, window columns, K) to float32 (K, block rows, block columns).
    """
    planes: npt.NDArray[Any] = np.moveaxis(probabilities, -1, 0).astype(np.float64)
    averaged = rows.averaging @ planes @ columns.averaging.T
    clipped: FloatArray = np.clip(averaged, 0, 1).astype(np.float32)
    return clipped
