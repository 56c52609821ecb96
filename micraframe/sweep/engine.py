"""The probability of every class in every window, in two ways.

`exact` runs the network on each window by itself, as the paper does. `dense` computes the deepest layer once for the
whole image and turns the global pooling into a sliding one, so that windows that overlap cost nothing:

    p(window) = sigmoid(W max_{cell in window} A^L(cell) + b)

The two differ in what the network sees beyond a window's edge: the image there (dense), or padding (exact).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from micraframe.classifier import Classifier
from micraframe.device import choose_precision, exact_float32
from micraframe.errors import ModelError
from micraframe.extractors.frozen import frozen_copy
from micraframe.sweep.image import LargeImage
from micraframe.sweep.windows import Axis, reduce_runs
from micraframe.types import FloatArray, Normalisation, Progress

CPU_PIXELS = 4 * 256 * 256
"""Pixels of the windows that are computed together on a CPU, whose caches more would overflow."""

GPU_PIXELS = 64 * 256 * 256
"""Pixels of the windows that are computed together on a GPU."""

_FURTHEST = 256
"""Cells within which the reach of a network is sought; beyond it, tiles would be mostly halo."""


@dataclass(frozen=True, eq=False)
class Engine:
    """A frozen classifier, and the image and windows that it is to look at.

    Attributes:
        classifier: Without gradients, batch normalisations folded, channels last in memory.
        precision: Of the convolutions.
        image: What to sweep.
        normalisation: `fixed` or `none`, so that tiles agree.
        rows: How windows and tiles lie down the image.
        columns: How they lie across it.
    """

    classifier: Classifier
    precision: torch.dtype
    image: LargeImage
    normalisation: Normalisation
    rows: Axis
    columns: Axis

    def part(self, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """Return runs of cells of the image as a batch of one (1, C, h, w), normalised.

        Where the last cells reach beyond the image, its last pixels are repeated.
        """
        (top, bottom), (left, right) = (
            (first * axis.stride, last * axis.stride)
            for axis, (first, last) in ((self.rows, rows), (self.columns, columns))
        )
        down, across = min(bottom, self.rows.pixels), min(right, self.columns.pixels)
        read = self.normalisation.apply(self.image.read(top, down, left, across))
        if (down, across) != (bottom, right):
            read = np.pad(read, ((0, 0), (0, bottom - down), (0, right - across)), mode="edge")
        device = next(self.classifier.parameters()).device
        batch = torch.from_numpy(read)[None].to(device, self.precision)
        return batch.contiguous(memory_format=torch.channels_last)


def freeze(classifier: Classifier, precision: str) -> tuple[Classifier, torch.dtype]:
    """Return a copy of a classifier that computes as fast as it can, and the precision of its convolutions."""
    twin = frozen_copy(classifier, fold=True)
    dtype = choose_precision(precision, next(twin.parameters()).device)
    twin.backbone.to(dtype)
    return twin, dtype


def reach(classifier: Classifier, progress: Progress | None = None) -> int:
    """Return how many cells beyond its own a cell of the deepest layer depends on, at most, in any direction.

    The middle third of a strip of image is set to NaN, which no layer lets vanish; the furthest cell beyond it that
    turns to NaN is found. Unlike gradients this cannot be misled by weights of zero or inactive units.

    Args:
        classifier: Is left as it is.
        progress: Whom to tell.

    Raises:
        ModelError: If there is no such limit, as with squeeze-and-excitation.
    """
    progress = progress or Progress()
    # In float64, whose convolutions on a CPU take no short cuts through values that they need not look at.
    twin = frozen_copy(classifier).to("cpu", torch.float64)
    stride = twin.layers[-1].stride
    thirds = [8 * 2**n for n in range(int(math.log2(_FURTHEST // 8)) + 1)]
    for done, third in enumerate(thirds):
        progress.advance("measure the network's reach", done, len(thirds))
        found = 0
        for axis in (0, 1):
            sides, spoilt = [4, 4], [slice(None), slice(None)]
            sides[axis], spoilt[axis] = 3 * third, slice(third * stride, 2 * third * stride)
            cells = _lost(twin, (sides[0], sides[1]), (spoilt[0], spoilt[1])).any(1 - axis).nonzero().flatten().tolist()
            found = max([found, *(max(third - cell, cell - 2 * third + 1) for cell in cells)])
        if found < third:
            progress.advance("measure the network's reach", len(thirds), len(thirds))
            return found
        # Everything is reached: by one pixel that far away too? To double up to that would take long.
        if third == thirds[0] and _is_global(twin):
            raise ModelError(
                "each cell of the network looks at the whole image at once (as squeeze-and-excitation does), so that "
                "features cannot be computed tile by tile; sweep with mode exact, or train another backbone"
            )
    raise ModelError(
        f"the network looks further than {_FURTHEST * stride} pixels around, so that features cannot be computed tile "
        "by tile; sweep with mode exact, or train another backbone"
    )


def _is_global(twin: Classifier) -> bool:
    """Return whether one pixel in the corner reaches all cells of a strip of the greatest length."""
    return bool(_lost(copy.deepcopy(twin).float(), (4, 2 * _FURTHEST), (slice(1), slice(1))).all())


def _lost(twin: Classifier, cells: tuple[int, int], spoilt: tuple[slice, slice]) -> Tensor:
    """Return which cells (down, across) of the deepest layer are NaN where those pixels of an image are."""
    first = next(module for module in twin.modules() if isinstance(module, torch.nn.Conv2d))
    stride = twin.layers[-1].stride
    image = torch.zeros((1, first.in_channels, cells[0] * stride, cells[1] * stride), dtype=first.weight.dtype)
    image[:, :, spoilt[0], spoilt[1]] = math.nan
    with torch.inference_mode():
        deepest = twin.features(image)[-1]
    _check_cells(deepest, image.shape, stride)
    return deepest[0].isnan().any(0)


def dense_tile(engine: Engine, halo: int, row: int, column: int) -> FloatArray:
    """Return what a tile's cells come to within each segment: their maximum, or where the pooling is the mean, sum.

    Args:
        engine: What to compute with.
        halo: The network's `reach`.
        row: Number of the tile, from above.
        column: Number of the tile, from the left.

    Returns:
        float32 (segments down, segments across, channels).
    """
    cores, outer, cuts = [], [], []
    for axis, number in ((engine.rows, row), (engine.columns, column)):
        first, last = (int(cell) for cell in axis.tiles[number])
        start = max(0, first - halo)
        cores.append(slice(first - start, last - start))
        outer.append((start, min(axis.cells, last + halo)))
        cuts.append([int(cut) - first for cut in axis.cuts if first <= cut <= last])
    with torch.inference_mode(), exact_float32():
        images = engine.part(outer[0], outer[1])
        deepest = engine.classifier.features(images)[-1]
        _check_cells(deepest, images.shape, engine.rows.stride)
        cells = deepest[0, :, cores[0], cores[1]].float()
        reduce = torch.amax if engine.classifier.pooling == "max" else torch.sum
        for dim, along in ((1, cuts[0]), (2, cuts[1])):
            pieces = [reduce(cells.narrow(dim, a, b - a), dim, keepdim=True) for a, b in itertools.pairwise(along)]
            cells = torch.cat(pieces, dim)
        reduced: FloatArray = cells.permute(1, 2, 0).contiguous().cpu().numpy()
    return reduced


def dense_windows(engine: Engine, load: Callable[[int, int], FloatArray]) -> FloatArray:
    """Pool over windows what `dense_tile` made of all tiles.

    Args:
        engine: What it was computed with.
        load: Returns what was computed for the tile in a row and a column; no more than a few rows are held.

    Returns:
        float32 (windows down, windows across, K): probabilities.
    """
    rows, columns = engine.rows, engine.columns
    is_max = engine.classifier.pooling == "max"
    combine, reduce = (np.maximum, np.max) if is_max else (np.add, np.sum)
    linear = engine.classifier.linear
    weight, bias = linear.weight.float().cpu().numpy(), linear.bias.float().cpu().numpy()
    across = columns.segments(columns.windows)
    area = 1 if is_max else rows.window * columns.window

    ends = rows.segments(rows.tiles)[:, 1]
    held: dict[int, FloatArray] = {}  # rows of tiles, by their number
    probabilities = np.empty((len(rows.windows), len(columns.windows), len(bias)), np.float32)
    for number, (first, last) in enumerate(rows.segments(rows.windows)):
        wanted = range(int(np.searchsorted(ends, first, "right")), int(np.searchsorted(ends, last, "left")) + 1)
        held = {
            tile: held[tile]
            if tile in held
            else np.concatenate([load(tile, column) for column in range(len(columns.tiles))], 1)
            for tile in wanted
        }
        begin = int(ends[wanted[0] - 1]) if wanted[0] else 0
        band = np.concatenate(list(held.values()))[first - begin : last - begin]
        pooled = reduce_runs(reduce(band, axis=0), across, combine) / area
        probabilities[number] = expit(pooled @ weight.T + bias)
    return probabilities


def exact_tile(engine: Engine, row: int, column: int) -> FloatArray:
    """Return the probabilities, float32 (windows, K), of the windows that begin in a tile, row by row."""
    down, across = engine.rows.beginning_in(row), engine.columns.beginning_in(column)
    if not (len(down) and len(across)):
        return np.empty((0, engine.classifier.linear.out_features), np.float32)
    stride = engine.rows.stride
    whole = engine.part((int(down[0, 0]), int(down[-1, 1])), (int(across[0, 0]), int(across[-1, 1])))
    corners = [(top * stride, left * stride) for top in down[:, 0] - down[0, 0] for left in across[:, 0] - across[0, 0]]
    height, width = engine.rows.window * stride, engine.columns.window * stride
    at_once = max(1, (CPU_PIXELS if whole.device.type == "cpu" else GPU_PIXELS) // (height * width))
    answers = []
    with torch.inference_mode(), exact_float32():
        for start in range(0, len(corners), at_once):
            crops = [
                whole[:, :, top : top + height, left : left + width] for top, left in corners[start : start + at_once]
            ]
            batch = torch.cat(crops).contiguous(memory_format=torch.channels_last)
            logits = engine.classifier.logits(engine.classifier.features(batch)[-1].float())
            answers.append(torch.sigmoid(logits).cpu().numpy())
    return np.concatenate(answers).astype(np.float32, copy=False)


def exact_windows(engine: Engine, load: Callable[[int, int], FloatArray]) -> FloatArray:
    """Join what `exact_tile` made of all tiles to float32 (windows down, windows across, K)."""
    classes = engine.classifier.linear.out_features
    bands = []
    for row in range(len(engine.rows.tiles)):
        down = len(engine.rows.beginning_in(row))
        parts = [
            load(row, column).reshape(down, len(engine.columns.beginning_in(column)), classes)
            for column in range(len(engine.columns.tiles))
        ]
        bands.append(np.concatenate(parts, 1))
    return np.concatenate(bands)


def _check_cells(deepest: Tensor, shape: torch.Size | list[int], stride: int) -> None:
    wanted = (shape[2] // stride, shape[3] // stride)
    if tuple(deepest.shape[2:]) != wanted:
        raise ModelError(
            f"the deepest layer has {tuple(deepest.shape[2:])} cells for an image of {shape[2]} x {shape[3]} pixels; "
            f"at its stride of {stride} there must be {wanted}; sweep with mode exact"
        )
