"""The probability of every class in every window, in two ways.

`exact` runs the network on each window by itself, as the paper does. `dense` computes the deepest layer once for the
whole image and turns the global pooling into a sliding one, so that windows that overlap cost nothing:

    p(window) = sigmoid(W max_{cell in window} A^L(cell) + b)

The two differ in the network's input beyond a window's edge: the rest of the image (dense), or padding (exact).
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
from micraframe.errors import ModelError
from micraframe.extractors.frozen import frozen_copy
from micraframe.pooling import LogSumExp
from micraframe.runtime.device import exact_float32
from micraframe.sweep.image import LargeImage
from micraframe.sweep.windows import SweepAxis, reduce_spans
from micraframe.types import FloatArray, Normalisation, Progress

CPU_PIXELS = 4 * 256 * 256
"""Pixels of the windows in a batch on a CPU; more would overflow its caches."""

GPU_PIXELS = 64 * 256 * 256
"""Pixels of the windows in a batch on a GPU."""

_FURTHEST = 256
"""Largest reach of a network, in cells; beyond it, tiles would be mostly halo."""


@dataclass(frozen=True, eq=False)
class SweepEngine:
    """A frozen classifier, an image, and the layout of windows and tiles.

    Attributes:
        classifier: Without gradients, batch normalisations folded, channels last in memory.
        precision: Precision of the convolutions.
        image: The image to sweep.
        normalisation: `fixed` or `none`, so that tiles agree.
        rows: Windows and tiles along the rows.
        columns: Windows and tiles along the columns.
    """

    classifier: Classifier
    precision: torch.dtype
    image: LargeImage
    normalisation: Normalisation
    rows: SweepAxis
    columns: SweepAxis

    def crop(self, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """Return the pixels of a range of cells, normalised, as a batch of one (1, C, h, w).

        Where the last cells extend beyond the image, its last pixels are repeated.
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


def check_dense(classifier: Classifier) -> None:
    """Check that a sliding pooling of the last layer gives what the classifier gives for a window.

    Raises:
        ModelError: If the classifier pools evidence, or its last layer is shallower than others, whose cells would then
            be divided by the edges of windows.
    """
    if isinstance(classifier.pooling, LogSumExp) or any(
        layer.stride > classifier.layers[-1].stride for layer in classifier.layers
    ):
        raise ModelError(
            "a dense sweep slides the pooling of features over the deepest layer, and this classifier pools evidence "
            "or has a decoder; sweep with mode exact"
        )


def reach(classifier: Classifier, progress: Progress | None = None) -> int:
    """Return the largest distance, in cells, over which a cell of the deepest layer depends on the image.

    The middle third of a strip of image is set to NaN, which every layer propagates; the reach is the distance of the
    furthest cell that becomes NaN. Unlike with gradients, weights of zero and inactive units do not matter.

    Raises:
        ModelError: If the reach is unlimited, as with squeeze-and-excitation.
    """
    progress = progress or Progress()
    # In float64, where convolutions on a CPU have no shortcuts that skip values.
    twin = frozen_copy(classifier).to("cpu", torch.float64)
    stride = twin.layers[-1].stride
    thirds = [8 * 2**n for n in range(int(math.log2(_FURTHEST // 8)) + 1)]
    for done, third in enumerate(thirds):
        progress.advance("measuring the receptive field", done, len(thirds))
        found = 0
        for axis in (0, 1):
            sides, pixels = [4, 4], [slice(None), slice(None)]
            sides[axis], pixels[axis] = 3 * third, slice(third * stride, 2 * third * stride)
            affected = _affected(twin, (sides[0], sides[1]), (pixels[0], pixels[1])).any(1 - axis)
            cells = affected.nonzero().flatten().tolist()
            found = max([found, *(max(third - cell, cell - 2 * third + 1) for cell in cells)])
        if found < third:
            progress.advance("measuring the receptive field", len(thirds), len(thirds))
            return found
        # Every cell is affected. A single distant pixel shows whether doubling the strip can help.
        if third == thirds[0] and _is_global(twin):
            raise ModelError(
                "every cell of the network's deepest layer depends on the whole image, as with squeeze-and-excitation, "
                "so features cannot be computed by tiles; sweep with mode exact, or train another backbone"
            )
    raise ModelError(
        f"a cell of the network's deepest layer depends on pixels more than {_FURTHEST * stride} pixels away, so "
        "features cannot be computed tile by tile; sweep with mode exact, or train another backbone"
    )


def _is_global(twin: Classifier) -> bool:
    """Return whether one pixel in the corner affects all cells of a strip of the greatest length."""
    return bool(_affected(copy.deepcopy(twin).float(), (4, 2 * _FURTHEST), (slice(1), slice(1))).all())


def _affected(twin: Classifier, cells: tuple[int, int], pixels: tuple[slice, slice]) -> Tensor:
    """Return which cells (rows, columns) of the deepest layer become NaN if those pixels of an image are NaN."""
    stride = twin.layers[-1].stride
    shape = (1, twin.channels, cells[0] * stride, cells[1] * stride)
    image = torch.zeros(shape, dtype=twin.linear.weight.dtype)
    image[:, :, pixels[0], pixels[1]] = math.nan
    with torch.inference_mode():
        deepest = twin.features(image)[-1]
    _check_cells(deepest, image.shape, stride)
    return deepest[0].isnan().any(0)


def dense_tile(engine: SweepEngine, halo: int, row: int, column: int) -> FloatArray:
    """Return the maximum of a tile's cells within each segment, or their sum if the pooling is the mean.

    Args:
        engine: Classifier, image and layout.
        halo: The network's `reach`.
        row: Number of the tile, from the top.
        column: Number of the tile, from the left.

    Returns:
        float32 (row segments, column segments, channels).
    """
    cores, outer, cuts = [], [], []
    for axis, number in ((engine.rows, row), (engine.columns, column)):
        first, last = (int(cell) for cell in axis.tiles[number])
        start = max(0, first - halo)
        cores.append(slice(first - start, last - start))
        outer.append((start, min(axis.cells, last + halo)))
        cuts.append([int(cut) - first for cut in axis.cuts if first <= cut <= last])
    with torch.inference_mode(), exact_float32():
        images = engine.crop(outer[0], outer[1])
        deepest = engine.classifier.features(images)[-1]
        _check_cells(deepest, images.shape, engine.rows.stride)
        cells = deepest[0, :, cores[0], cores[1]].float()
        reduce = torch.amax if engine.classifier.pooling == "max" else torch.sum
        for dim, along in ((1, cuts[0]), (2, cuts[1])):
            pieces = [reduce(cells.narrow(dim, a, b - a), dim, keepdim=True) for a, b in itertools.pairwise(along)]
            cells = torch.cat(pieces, dim)
        reduced: FloatArray = cells.permute(1, 2, 0).contiguous().cpu().numpy()
    return reduced


def dense_windows(engine: SweepEngine, load: Callable[[int, int], FloatArray]) -> FloatArray:
    """Pool the results of `dense_tile` over windows: the probabilities, float32 (window rows, window columns, K).

    `load` returns the result of the tile in a row and a column; only a few rows of tiles are in memory.
    """
    rows, columns = engine.rows, engine.columns
    is_max = engine.classifier.pooling == "max"
    combine, reduce = (np.maximum, np.max) if is_max else (np.add, np.sum)
    linear = engine.classifier.linear
    weight, bias = linear.weight.float().cpu().numpy(), linear.bias.float().cpu().numpy()
    across = columns.segments(columns.windows)
    area = 1 if is_max else rows.window * columns.window

    ends = rows.segments(rows.tiles)[:, 1]
    held: dict[int, FloatArray] = {}  # rows of tiles, by number
    probabilities = np.empty((len(rows.windows), len(columns.windows), len(bias)), np.float32)
    for number, (first, last) in enumerate(rows.segments(rows.windows)):
        needed = range(int(np.searchsorted(ends, first, "right")), int(np.searchsorted(ends, last, "left")) + 1)
        held = {
            tile: held[tile]
            if tile in held
            else np.concatenate([load(tile, column) for column in range(len(columns.tiles))], 1)
            for tile in needed
        }
        begin = int(ends[needed[0] - 1]) if needed[0] else 0
        band = np.concatenate(list(held.values()))[first - begin : last - begin]
        pooled = reduce_spans(reduce(band, axis=0), across, combine) / area
        probabilities[number] = expit(pooled @ weight.T + bias)
    return probabilities


def exact_tile(engine: SweepEngine, row: int, column: int) -> FloatArray:
    """Return the probabilities, float32 (windows, K), of the windows that start in a tile, row by row."""
    down, across = engine.rows.starting_in(row), engine.columns.starting_in(column)
    if not (len(down) and len(across)):
        return np.empty((0, engine.classifier.classes), np.float32)
    stride = engine.rows.stride
    whole = engine.crop((int(down[0, 0]), int(down[-1, 1])), (int(across[0, 0]), int(across[-1, 1])))
    corners = [(top * stride, left * stride) for top in down[:, 0] - down[0, 0] for left in across[:, 0] - across[0, 0]]
    height, width = engine.rows.window * stride, engine.columns.window * stride
    at_once = max(1, (CPU_PIXELS if whole.device.type == "cpu" else GPU_PIXELS) // (height * width))
    probabilities = []
    with torch.inference_mode(), exact_float32():
        for start in range(0, len(corners), at_once):
            crops = [
                whole[:, :, top : top + height, left : left + width] for top, left in corners[start : start + at_once]
            ]
            batch = torch.cat(crops).contiguous(memory_format=torch.channels_last)
            logits = engine.classifier.logits(engine.classifier.features(batch)[-1].float())
            probabilities.append(torch.sigmoid(logits).cpu().numpy())
    return np.concatenate(probabilities).astype(np.float32, copy=False)


def exact_windows(engine: SweepEngine, load: Callable[[int, int], FloatArray]) -> FloatArray:
    """Join the results of `exact_tile` for all tiles: float32 (window rows, window columns, K)."""
    classes = engine.classifier.classes
    bands = []
    for row in range(len(engine.rows.tiles)):
        down = len(engine.rows.starting_in(row))
        parts = [
            load(row, column).reshape(down, len(engine.columns.starting_in(column)), classes)
            for column in range(len(engine.columns.tiles))
        ]
        bands.append(np.concatenate(parts, 1))
    return np.concatenate(bands)


def _check_cells(deepest: Tensor, shape: torch.Size | tuple[int, ...], stride: int) -> None:
    expected = (shape[2] // stride, shape[3] // stride)
    if tuple(deepest.shape[2:]) != expected:
        raise ModelError(
            f"the deepest layer: expected {expected} cells for an image of {shape[2]} x {shape[3]} pixels at its "
            f"stride of {stride}, got {tuple(deepest.shape[2:])}; sweep with mode exact"
        )
