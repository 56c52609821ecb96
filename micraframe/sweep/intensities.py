"""Normalisation of an image that is never in memory as a whole.

Kinds that depend on the image (`min-max`, `mean-sd`, `percentile`) are measured over all of it, rectangle by rectangle,
and become `fixed`, so that a pixel's value does not depend on the tile in which it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from micraframe.types import FloatArray, Normalisation

Parts = Callable[[], Iterator[FloatArray]]
"""Starts a new pass over an image: yields disjoint rectangles (C, h, w) that cover it."""

Doubles = npt.NDArray[np.float64]


def passes(normalisation: Normalisation) -> int:
    """Return the number of passes over the image that `fix` makes."""
    return {"none": 0, "fixed": 0, "percentile": 2}.get(normalisation.kind, 1)


def fix(normalisation: Normalisation, parts: Parts) -> Normalisation:
    """Return the `fixed` (or `none`) normalisation that gives for each part of an image what this one gives for all."""
    if normalisation.kind in ("none", "fixed"):
        return normalisation

    def samples() -> Iterator[FloatArray]:
        """Yield arrays (groups, pixels): one group per channel, or one of all channels."""
        for part in parts():
            yield part.reshape(part.shape[0] if normalisation.per_channel else 1, -1)

    if normalisation.kind == "mean-sd":
        offset, scale = mean_and_deviation(samples())
    else:
        if normalisation.kind == "min-max":
            offset, top = extremes(samples())
        else:
            offset, top = percentiles(samples, (normalisation.low, normalisation.high))
        scale = top - offset
    floor = np.finfo(np.float32).eps * np.maximum(np.abs(offset), np.finfo(np.float32).tiny)
    # A constant image becomes 0, as in `Normalisation.apply`.
    scale = np.where(np.abs(scale) <= floor, np.finfo(np.float32).max, scale)
    return Normalisation(
        "fixed",
        offset=tuple(offset.tolist()),
        scale=tuple(scale.tolist()),
        clip=normalisation.clip and normalisation.kind != "mean-sd",
    )


def extremes(samples: Iterator[FloatArray]) -> tuple[Doubles, Doubles]:
    """Return the minimum and the maximum of each group, for arrays (groups, pixels)."""
    ends = [(part.min(1), part.max(1)) for part in samples]
    low, high = (np.array(end, np.float64) for end in zip(*ends, strict=True))
    return low.min(0), high.max(0)


def mean_and_deviation(samples: Iterator[FloatArray]) -> tuple[Doubles, Doubles]:
    """Return mean and standard deviation of each group, for arrays (groups, pixels).

    Moments are merged pairwise (Chan, Golub and LeVeque 1983), which avoids cancellation, however large the mean.
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for part in samples:
        n = part.shape[1]
        here = part.mean(1, dtype=np.float64)
        difference = here - mean
        squares = squares + part.var(1, dtype=np.float64) * n + difference**2 * count * n / (count + n)
        mean = mean + difference * n / (count + n)
        count += n
    return np.broadcast_to(mean, squares.shape), np.sqrt(squares / count)


def percentiles(samples: Callable[[], Iterator[FloatArray]], percents: tuple[float, ...]) -> list[Doubles]:
    """Return the exact percentiles of each group, linearly interpolated, by two passes over (groups, pixels).

    The bits of float32 are mapped to integers in the same order. The first pass counts their upper halves, the second
    the lower halves of those that contain the ranks in question.
    """
    upper = sum(np.stack([np.bincount(_keys(row) >> 16, minlength=1 << 16) for row in part]) for part in samples())
    assert isinstance(upper, np.ndarray)
    total = int(upper[0].sum())
    positions = [percent / 100 * (total - 1) for percent in percents]
    ranks = sorted({rank for position in positions for rank in (int(position), min(int(position) + 1, total - 1))})
    # Per group and rank: the upper half of the key, and the rank among the keys that share it.
    found = []
    for group in upper:
        sums = np.cumsum(group)
        halves = np.searchsorted(sums, ranks, side="right")
        found.append((halves, np.array(ranks) - (sums[halves] - group[halves])))
    buckets = np.unique([halves for halves, _ in found])
    lower = {bucket: np.zeros((len(upper), 1 << 16), np.int64) for bucket in buckets.tolist()}
    for part in samples():
        for group, row in enumerate(part):
            keys = _keys(row)
            for bucket, counts in lower.items():
                counts[group] += np.bincount(keys[keys >> 16 == bucket] & 0xFFFF, minlength=1 << 16)
    values = np.empty((len(upper), len(ranks)))
    for group, (halves, within) in enumerate(found):
        for column, (half, rank) in enumerate(zip(halves.tolist(), within.tolist(), strict=True)):
            low = np.searchsorted(np.cumsum(lower[half][group]), rank, side="right")
            values[group, column] = _value(half << 16 | int(low))
    return [np.array([np.interp(position, ranks, row) for row in values]) for position in positions]


def _keys(values: FloatArray) -> npt.NDArray[np.uint32]:
    """Return integers in the same order: negative numbers have their bits inverted, others their sign bit set."""
    bits = (np.ascontiguousarray(values) + np.float32(0)).view(np.uint32)  # adding 0 turns -0 into 0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint32)


def _value(key: int) -> float:
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))
