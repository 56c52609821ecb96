"""The paper's combiner: the first principal component of the layers, per pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from micraframe.combiners.layers import Scale, Selection, coarse_map, differs, select_layers, stretch
from micraframe.combiners.pyramid import Level, pixels, pyramid, visible
from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.types import FloatArray, Maps, Scores, Status

Sign = Literal["deepest-weighted", "largest-score", "largest-loading"]

Double = npt.NDArray[np.float64]


@final
class Pca(Combiner["Pca.Params"]):
    """The first principal component over the layers' maps, per pixel of the image (Bilodeau et al. 2022, Methods).

    Each layer's map is scaled to [0, 1] and upsampled by nearest neighbour; the component is scaled to [0, 1]. A PCA
    does not determine which of its ends means "present"; the sign policy does.
    """

    class Params(Parameters):
        layers: Selection = Field(
            "all-but-deepest", description="Layers: all-but-deepest, as in the paper, all, or their names."
        )
        scale: Scale = Field(
            "min-max", description="Scaling of each layer: min-max to [0, 1], as in the paper, or none."
        )
        sign: Sign = Field(
            "deepest-weighted",
            description="Which end of the component means present: its mean, weighted by the deepest layer's rectified "
            "map, is positive (deepest-weighted); its largest absolute score is positive (largest-score, as in "
            "scikit-learn before 1.5); its largest absolute loading is positive (largest-loading).",
        )
        weight: Literal["none", "coarse"] = Field(
            "none", description="Multiply by the deepest layer's map, interpolated bilinearly (coarse), or not (none)."
        )

    def combine(self, maps: Maps, image: FloatArray) -> Scores:
        """Combine.

        A class is `empty` if its maps are 0 and `constant` if none of them varies; under `deepest-weighted` it is
        `negative`, or `empty`, if the deepest layer has no positive value to weight with. Its map is then 0.

        The notes of each class are the sign policy; whether it inverted the component, whose largest absolute loading
        was made positive before; the fraction of the variance that the component explains; and its loadings by layer.
        """
        params = self.params
        chosen = select_layers(maps.layers, params.layers)
        planes = [visible(maps, index) for index in chosen]
        low, high = (
            np.stack([reduce(plane, axis=(1, 2)) for plane in planes], 1).astype(np.float64)
            for reduce in (np.min, np.max)
        )
        varies = differs(low, high)
        if params.scale == "min-max":
            scale = np.divide(1, high - low, out=np.zeros_like(low), where=varies)
        else:
            scale = varies.astype(np.float64)

        # The deepest layer is appended; only its covariance with the others is used.
        deepest = np.maximum(visible(maps, -1), 0)
        layers = [*(maps.layers[index] for index in chosen), maps.layers[-1]]
        levels = pyramid(layers, [*planes, deepest], maps.size, np.float64)
        covariance = center(levels)
        loadings, explained = principal(covariance[:, :-1, :-1] * scale[:, :, None] * scale[:, None])
        weights = loadings * scale
        component = gather(levels, np.pad(weights, ((0, 0), (0, 1))))

        if params.sign == "deepest-weighted":
            # As the component's mean is 0, its weighted mean is its covariance with the weights, up to a factor.
            sign = np.where((weights * covariance[:, :-1, -1]).sum(1) < 0, -1, 1)
            known = (deepest > 0).any((1, 2))
        else:
            sign = sign_of_largest(component if params.sign == "largest-score" else loadings)
            known = np.ones(len(sign), bool)

        contrast = np.asarray(varies.any(1))
        scored = known & contrast
        stretched, _ = stretch(component * (sign * scored)[:, None, None])
        grid = levels[0].grid
        values = grid.spread(stretched.astype(np.float32), pixels(maps.size))
        if params.weight == "coarse":
            values = values * coarse_map(maps, "bilinear")
        status = tuple(
            "ok" if scored[k] else _status([plane[k] for plane in planes], maps.maps[-1][k], bool(contrast[k]))
            for k in range(len(maps.classes))
        )
        notes = tuple(
            {
                "sign": params.sign,
                "inverted": bool(sign[k] < 0),
                "explained": float(explained[k]),
                "loadings": {
                    layer.name: float(loading)
                    for layer, loading in zip(layers[:-1], loadings[k] * sign[k], strict=True)
                },
            }
            for k in range(len(maps.classes))
        )
        return Scores(maps.presence, maps.classes, values, status, notes=notes)


def _status(planes: list[FloatArray], deepest: FloatArray, varies: bool) -> Status:
    """Return why a class has no map, from its selected maps and its deepest one, each (h, w)."""
    if not any(plane.any() for plane in planes):
        return "empty"
    if not varies:
        return "constant"
    return "negative" if deepest.any() else "empty"


def center(levels: Sequence[Level]) -> Double:
    """Subtract from each layer, in place, its mean over the image, and return the covariance of layers, (M, L, L).

    The covariance is over all pixels of the maps upsampled by nearest neighbour, computed exactly from the maps' cells:
    with x_l the centred map of layer l, and l the shallower of two layers,

        cov(l, m) = 1 / (HW) sum_{cells p of m} x_m(p) sum_{cells q of l in p} area(q) x_l(q)

    Args:
        levels: The layers, float64, on nested grids.
    """
    area = float(np.prod(levels[0].grid.size))
    blocks: list[Double] = []
    carried: Double | None = None  # area times value of all layers so far, summed over the cells of this grid
    for index, (grid, values) in enumerate(levels):
        areas = np.multiply.outer(grid.heights, grid.widths).astype(np.float64)
        flat = _flat(values)
        flat -= (flat @ areas.ravel() / area)[..., None]
        weighted = values if areas.max() == 1 else values * areas
        if carried is None:
            carried = weighted
        else:
            carried = np.concatenate([levels[index - 1].grid.sums(carried, grid), weighted], axis=1)
        blocks.append(_flat(carried) @ flat.swapaxes(1, 2) / area)

    count = blocks[-1].shape[1]
    covariance = np.empty((len(blocks[-1]), count, count))
    for block in blocks:
        last = block.shape[1]
        first = last - block.shape[2]
        covariance[:, :last, first:last] = block
        covariance[:, first:last, :last] = block.swapaxes(1, 2)
    return covariance


def principal(covariance: Double) -> tuple[Double, Double]:
    """Return the first principal component of each class's layers, given their covariance, (M, L, L).

    Returns:
        Loadings, (M, L), of length 1, the largest absolute one of each class positive; and the fraction of the variance
        that the component explains, (M,), 0 without variance.
    """
    variances, vectors = np.linalg.eigh(covariance)
    loadings = vectors[:, :, -1]
    total = variances.sum(1)
    explained = np.divide(variances[:, -1], total, out=np.zeros_like(total), where=total > 0)
    return loadings * sign_of_largest(loadings)[:, None], explained


def gather(levels: Sequence[Level], weights: Double) -> Double:
    """Return the sum of layers times weights (M, L) on the first level's grid, (M, h, w).

    It accumulates from the deepest level to the shallowest; the stack of layers at the image's size is never built.
    """
    gathered: Double | None = None
    last = weights.shape[1]
    for index in range(len(levels) - 1, -1, -1):
        grid, values = levels[index]
        first = last - values.shape[1]
        part = (weights[:, None, first:last] @ _flat(values)).reshape(len(values), *values.shape[2:])
        if gathered is not None:
            part += levels[index + 1].grid.spread(gathered, grid)
        gathered, last = part, first
    assert gathered is not None
    return gathered


def sign_of_largest(values: Double) -> npt.NDArray[np.int_]:
    """Return per class the sign, 1 or -1, that makes the first of its largest absolute values, (M, ...), positive."""
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    largest = np.take_along_axis(flat, np.abs(flat).argmax(1)[:, None], 1)[:, 0]
    return np.where(largest < 0, -1, 1)


def _flat(values: Double) -> Double:
    """View (M, n, h, w) as (M, n, h * w); M may be 0."""
    return values.reshape(*values.shape[:2], math.prod(values.shape[2:]))
