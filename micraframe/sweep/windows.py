"""Where windows lie on an image, and how what windows say is brought back to its pixels. Pure arithmetic.

Everything is counted in cells: squares of `stride` pixels, one for each position of the backbone's deepest layer. An
image whose sides are no multiple of the stride is extended to one. Along each axis windows begin at every step, and
the last is flush with the end. The beginnings and ends of windows and tiles cut the axis into segments, so that every
window and every tile is a run of whole segments, whatever window, step and tile were asked for.
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
"""Runs (N, 2): the first and, not included, the last."""


@dataclass(frozen=True)
class Axis:
    """The windows and tiles along rows or columns; all but `pixels` and `stride` counted in cells.

    Attributes:
        pixels: Side of the image.
        stride: Pixels per cell.
        window: Side of a window.
        step: From one window to the next; at most a window, so that no cell is left out.
        tile: Side of a tile.
    """

    pixels: int
    stride: int
    window: int
    step: int
    tile: int

    @property
    def cells(self) -> int:
        """Side of the image; its last cell may reach beyond the image."""
        return -(-self.pixels // self.stride)

    @cached_property
    def windows(self) -> Spans:
        """The windows, as runs of cells."""
        last = self.cells - self.window
        starts = np.array(sorted({*range(0, last + 1, self.step), last}))
        return np.stack([starts, starts + self.window], 1)

    @cached_property
    def tiles(self) -> Spans:
        """The tiles, as runs of cells."""
        starts = np.arange(0, self.cells, self.tile)
        return np.stack([starts, np.minimum(starts + self.tile, self.cells)], 1)

    def beginning_in(self, tile: int) -> Spans:
        """Return the windows that begin in the tile of that number."""
        first, last = self.tiles[tile]
        starts = self.windows[:, 0]
        inside: Spans = self.windows[(first <= starts) & (starts < last)]
        return inside

    @cached_property
    def cuts(self) -> npt.NDArray[np.int64]:
        """The cells at which segments begin, and the end of the last."""
        return np.unique(np.concatenate([[0, self.cells], self.windows.ravel(), self.tiles.ravel()]))

    def segments(self, runs: Spans) -> Spans:
        """Return runs of cells, beginning and ending at cuts, as runs of segments."""
        return np.searchsorted(self.cuts, runs)

    @cached_property
    def averaging(self) -> npt.NDArray[np.float64]:
        """Matrix (blocks, windows) that averages over the windows that contain a cell, then over a block's cells.

        A block is `step` cells long; the last may be shorter. The mean over windows of two axes is the product of the
        matrices of both, for a cell lies in a window if its row and its column do.
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


def lay(size: tuple[int, int], stride: int, window: tuple[int, int], overlap: float, tile: int) -> tuple[Axis, Axis]:
    """Lay windows and tiles on an image: return its rows and its columns.

    Args:
        size: (H, W) of the image in pixels.
        stride: Pixels per cell.
        window: (height, width) of a window in pixels; the nearest multiples of the stride are taken, at most the image.
        overlap: Share of a window that the next one covers too, in [0, 1); the step is a multiple of the stride, the
            same down and across: that of the shorter side.
        tile: Side of a tile in pixels; the next lower multiple of the stride is taken.

    Raises:
        ConfigError: If one of them is out of range.
    """
    if min(window) < 1 or tile < 1 or not 0 <= overlap < 1:
        raise ConfigError(
            f"window {window}, overlap {overlap}, tile {tile}; a window and a tile of at least 1 pixel and an overlap "
            "in [0, 1) are wanted"
        )
    sides = [max(1, round(side / stride)) for side in window]
    step = max(1, round(min(sides) * (1 - overlap)))
    rows, columns = (
        Axis(pixels, stride, min(side, -(-pixels // stride)), step, max(1, tile // stride))
        for pixels, side in zip(size, sides, strict=True)
    )
    return rows, columns


def reduce_runs(values: FloatArray, runs: Spans, combine: Callable[[FloatArray, FloatArray], FloatArray]) -> FloatArray:
    """Combine the values of each run, (S, ...) to (N, ...); `combine` is `np.maximum` or `np.add`.

    Neighbouring runs may overlap: this is what `ufunc.reduceat` cannot do.
    """
    first, last = runs.T
    reduced: FloatArray = values[first].copy()
    for offset in range(1, int((last - first).max())):
        live = np.flatnonzero(first + offset < last)
        reduced[live] = combine(reduced[live], values[first[live] + offset])
    return reduced


def probability_map(probabilities: FloatArray, rows: Axis, columns: Axis) -> FloatArray:
    """Average for every pixel the probabilities of the windows that contain it, by blocks of a step's side.

    Args:
        probabilities: float32 (windows down, windows across, K).
        rows: How windows lie down the image.
        columns: How they lie across it.

    Returns:
        float32 (K, blocks down, blocks across).
    """
    planes: npt.NDArray[Any] = np.moveaxis(probabilities, -1, 0).astype(np.float64)
    averaged = rows.averaging @ planes @ columns.averaging.T
    clipped: FloatArray = np.clip(averaged, 0, 1).astype(np.float32)
    return clipped
