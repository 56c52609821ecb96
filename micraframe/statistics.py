"""Confidence intervals of means and ratios, and tests of differences, by resampling as in the MICRA-Net paper.

A number of N images is a function of sums over images. That of a mean is sum / count of the images for which it is
defined, with NaN for "undefined"; a pooled ratio divides a sum of numerators by one of denominators. Everything random
is fixed by a seed.

Images of one cluster, such as crops of one field, are not independent: clusters are resampled, and exchanged between
groups, whole. If they were taken for independent, intervals would be too narrow and false alarms too frequent.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES: Final = 10_000
"""As many as in the paper."""

Double = npt.NDArray[np.float64]

Reduce = Callable[[Double], Double]
"""From sums over images, (..., P), to numbers, (...); NaN where undefined."""

_BATCH: Final = 10_000_000
"""Numbers drawn at once, which bounds memory."""


class Interval(NamedTuple):
    """A number and its confidence interval; NaN where there is none."""

    mean: float
    low: float
    high: float


class Significance(NamedTuple):
    """A test's statistic and its p value; NaN where there is nothing to compare."""

    statistic: float
    p: float


class Pair(NamedTuple):
    """Two groups compared: the difference of their numbers, first minus second, its p value, and Holm's correction."""

    first: str
    second: str
    difference: float
    p: float
    p_holm: float


class Comparison(NamedTuple):
    """The test of all groups together, and the pairs, which are tested only if that test is significant."""

    overall: Significance
    pairs: tuple[Pair, ...]


def ratio(sums: Double) -> Double:
    """Return sum / count, (..., 2) to (...); NaN where the count is 0. This makes a mean."""
    counts = sums[..., 1]
    return np.asarray(np.divide(sums[..., 0], counts, out=np.full(counts.shape, np.nan), where=counts > 0))


def bootstrap(
    values: npt.ArrayLike,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    clusters: Sequence[Any] | None = None,
    reduce: Reduce | None = None,
) -> Interval:
    """Return a number and the percentile interval of its bootstrap distribution.

    Args:
        values: Of N images: (N,), of which the mean is taken, NaN where undefined; or (N, P), with `reduce`.
        seed: Fixes the resamples.
        resamples: Number of resamples.
        level: Coverage of the interval.
        clusters: (N,): the cluster of each image. None: each image by itself.
        reduce: Makes the number from sums over images, (..., P) to (...).

    Returns:
        NaN for the number of nothing, and for the interval of fewer than two images or clusters.
    """
    sums = _cluster_sums([values], clusters)
    if not sums.size:
        return Interval(np.nan, np.nan, np.nan)
    reduce = reduce or ratio
    number = float(reduce(sums[0].sum(axis=0)))
    return Interval(number, *_percentiles(_resampled(sums, reduce, seed, resamples)[0], sums.shape[1], level))


def bootstrap_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    clusters: Sequence[Any] | None = None,
    reduce: Reduce | None = None,
) -> Interval:
    """Return the number of `a` minus that of `b`, and the percentile interval of its bootstrap distribution.

    Images are resampled, each with its values of both groups.

    Args:
        a: Of N images, as in `bootstrap`.
        b: Of the same images in the same order.
        seed: Fixes the resamples.
        resamples: Number of resamples.
        level: Coverage of the interval.
        clusters: As in `bootstrap`.
        reduce: As in `bootstrap`.
    """
    sums, reduce = _cluster_sums([a, b], clusters), reduce or ratio
    first, second = reduce(sums.sum(axis=1))
    if np.isnan([first, second]).any():
        return Interval(np.nan, np.nan, np.nan)
    drawn = _resampled(sums, reduce, seed, resamples)
    return Interval(float(first - second), *_percentiles(drawn[0] - drawn[1], sums.shape[1], level))


def bootstrap_function(
    function: Callable[[npt.NDArray[np.intp]], Double],
    clusters: Sequence[Any],
    seed: int,
    resamples: int,
    level: float = 0.95,
) -> list[Interval]:
    """Return numbers that no sums express, each with the percentile interval of its bootstrap distribution.

    Args:
        function: Computes the numbers from the images with these indices, some of them repeated.
        clusters: (N,): the cluster of each image.
        seed: Fixes the resamples.
        resamples: Number of resamples; the function is evaluated for each.
        level: Coverage of the intervals.
    """
    places = _places(clusters)
    members = [np.flatnonzero(places == number) for number in range(int(places.max(initial=-1)) + 1)]
    found = function(np.arange(len(places)))
    if len(members) < 2:
        return [Interval(float(number), np.nan, np.nan) for number in found]
    random = np.random.default_rng(seed)
    drawn = np.array(
        [
            function(np.concatenate([members[number] for number in random.integers(0, len(members), len(members))]))
            for _ in range(resamples)
        ]
    )
    return [
        Interval(float(number), *_percentiles(column, len(members), level))
        for number, column in zip(found, drawn.T, strict=True)
    ]


def randomisation_test(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    seed: int,
    resamples: int = RESAMPLES,
    clusters: Sequence[Any] | None = None,
    reduce: Reduce | None = None,
) -> Significance:
    """Return |number of a - number of b| and how often chance makes it as large, by exchanging values of images.

    Args:
        a: Of N images, as in `bootstrap`.
        b: Of the same images in the same order; an image's values are exchanged with each other, defined or not.
        seed: Fixes the arrangements.
        resamples: Number of arrangements; if there are no more, each is taken once.
        clusters: All images of a cluster are exchanged together. None: each image by itself.
        reduce: As in `bootstrap`.

    Returns:
        A p value that is never 0: its floor is 1 / (resamples + 1). NaN where a group has no number, or fewer than two
        images or clusters have any.

    Raises:
        ValueError: If the groups do not have the same length.
    """
    sums = _cluster_sums([a, b], clusters)
    numbers = (reduce or ratio)(sums.sum(axis=1))
    if sums.shape[1] < 2 or np.isnan(numbers).any():
        return Significance(np.nan, np.nan)

    def difference(sums: Double) -> Double:
        first, second = (reduce or ratio)(sums).T
        return np.asarray(np.abs(first - second))

    return _permute(sums, difference, float(np.abs(numbers).sum()), seed, resamples)


def least_p(clusters: int, resamples: int = RESAMPLES) -> float:
    """Return the smallest p value that `randomisation_test` can give for so many images or clusters.

    The mirror image of the observed arrangement, in which all are exchanged, is always as large: 2 / 2^C where each
    arrangement is taken once. After Holm's correction, the smallest of M p values is at least M times that.
    """
    exact = clusters < 63 and 2**clusters <= resamples
    return 2.0 ** (1 - clusters) if exact else 1 / (resamples + 1)


def f_test(
    groups: Sequence[npt.ArrayLike],
    seed: int,
    resamples: int = RESAMPLES,
    clusters: Sequence[Any] | None = None,
    reduce: Reduce | None = None,
) -> Significance:
    """Return the F statistic of the means of several groups and how often chance makes it as large.

    F is the variance between the groups over that within them after the means of images, or of clusters, are removed
    (repeated measures). p is that of the sum of squares between the groups, with which F increases. For numbers that
    are no means, F is NaN, and p is that of the variance of the groups' numbers.

    Args:
        groups: At least two, each of N images, as in `bootstrap`; an image's values are exchanged among the groups.
        seed: Fixes the arrangements.
        resamples: Number of arrangements; if there are no more, each is taken once.
        clusters: As in `randomisation_test`.
        reduce: As in `bootstrap`.

    Returns:
        NaN where a group has no number, or fewer than two images or clusters have any; infinity where only the groups
        vary.

    Raises:
        ValueError: If there are fewer than two groups, or they do not have the same length.
    """
    if len(groups) < 2:
        raise ValueError(f"expected at least two groups for an F test, got {len(groups)}")
    sums = _cluster_sums(groups, clusters)
    if sums.shape[1] < 2 or np.isnan((reduce or ratio)(sums.sum(axis=1))).any():
        return Significance(np.nan, np.nan)
    centre = sums[..., 0].sum() / sums[..., 1].sum()

    def spread(sums: Double) -> Double:
        """Return the sum of squares between the groups, (R, groups, P) to (R,)."""
        if reduce:
            return np.asarray(np.var(reduce(sums), axis=-1))
        return np.asarray(_squares(sums, centre).sum(axis=-1))

    scale = 0.0 if reduce else float(_squares(sums, centre).sum())
    found, p = _permute(sums, spread, scale, seed, resamples)
    if reduce:
        return Significance(np.nan, p)
    within = scale - found - float(_squares(sums.sum(axis=0), centre).sum())
    freedom = int(np.count_nonzero(sums[..., 1])) - len(groups) - (sums.shape[1] - 1)
    if freedom <= 0:
        return Significance(np.nan, p)
    explained, rest = found / (len(groups) - 1), max(within, 0.0) / freedom
    if rest <= np.finfo(np.float64).eps * (explained + centre**2):
        return Significance(np.inf if found else np.nan, p)
    return Significance(explained / rest, p)


def holm(p_values: npt.ArrayLike) -> Double:
    """Return the p values, (N,), corrected for their number: the family-wise error stays below alpha (Holm 1979).

    In increasing order, p'_(i) = max over j <= i of min(1, (N - j + 1) p_(j)). NaN stays NaN and does not count.
    """
    p = np.asarray(p_values, np.float64)
    corrected = p.copy()
    defined = np.flatnonzero(~np.isnan(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.maximum.accumulate(np.minimum(1, factors * p[order]))
    return corrected


def compare(
    groups: Mapping[str, npt.ArrayLike],
    seed: int,
    alpha: float = 0.05,
    resamples: int = RESAMPLES,
    clusters: Sequence[Any] | None = None,
    reduce: Reduce | None = None,
) -> Comparison:
    """Compare groups: all together first, and each pair if that test is significant.

    Args:
        groups: At least two, by name, each of the same N images, as in `bootstrap`.
        seed: Fixes the arrangements.
        alpha: Level of the test of all groups; if there are two, they are compared whatever it says.
        resamples: Number of arrangements for each test.
        clusters: As in `randomisation_test`.
        reduce: As in `bootstrap`.
    """
    names = list(groups)
    together = f_test(list(groups.values()), seed, resamples, clusters, reduce)
    if len(names) > 2 and not together.p <= alpha:
        return Comparison(together, ())
    chosen = list(itertools.combinations(names, 2))
    p_values = [randomisation_test(groups[a], groups[b], seed, resamples, clusters, reduce).p for a, b in chosen]
    numbers = {name: float((reduce or ratio)(_image_parts(values).sum(axis=0))) for name, values in groups.items()}
    pairs = [
        Pair(a, b, numbers[a] - numbers[b], p, float(corrected))
        for (a, b), p, corrected in zip(chosen, p_values, holm(p_values), strict=True)
    ]
    return Comparison(together, tuple(pairs))


def _image_parts(values: npt.ArrayLike) -> Double:
    """Return what is summed over images, (N, P): for a mean, (N,), the value where it is defined and 1, otherwise 0."""
    array = np.asarray(values, np.float64)
    if array.ndim == 2:
        return array
    defined = ~np.isnan(array)
    return np.stack([np.where(defined, array, 0.0), defined.astype(np.float64)], axis=1)


def _cluster_sums(groups: Sequence[npt.ArrayLike], clusters: Sequence[Any] | None) -> Double:
    """Return the sums over each of the C clusters that have any value in any group, (groups, C, P)."""
    parts = [_image_parts(group) for group in groups]
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise ValueError(f"expected groups of one length, got lengths {lengths}")
    places = np.arange(lengths[0]) if clusters is None else _places(clusters)
    if len(places) != lengths[0]:
        raise ValueError(f"expected the cluster of each of {lengths[0]} values, got {len(places)}")
    count = int(places.max(initial=-1)) + 1
    sums = np.array(
        [
            np.stack([np.bincount(places, weights=column, minlength=count) for column in part.T], axis=1)
            for part in parts
        ]
    )
    return np.asarray(sums[:, sums.any(axis=(0, 2))])


def _places(clusters: Sequence[Any]) -> npt.NDArray[np.intp]:
    """Return the number of each image's cluster, in order of first appearance."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], np.intp)


def _squares(sums: Double, centre: float) -> Double:
    """Return count x (mean - centre)^2, (..., 2) to (...); 0 where the count is 0."""
    means = np.divide(sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], centre), where=sums[..., 1] > 0)
    return np.asarray(sums[..., 1] * (means - centre) ** 2)


def _percentiles(drawn: Double, clusters: int, level: float) -> tuple[float, float]:
    """Return the ends of the interval; a single cluster has none."""
    if clusters < 2 or np.isnan(drawn).all():
        return np.nan, np.nan
    # In a few resamples of few clusters, a group may be undefined.
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(sums: Double, reduce: Reduce, seed: int, resamples: int) -> Double:
    """Return each group's number in each resample of the clusters, (groups, resamples)."""
    parts = [
        reduce(np.stack([drawn @ group for group in sums])) for drawn in _resamples(sums.shape[1], seed, resamples)
    ]
    return np.concatenate(parts, axis=1)


def _resamples(count: int, seed: int, resamples: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield how often each of `count` clusters is drawn in each resample, float32 (some resamples, count).

    The same images are resampled for every pair of methods, so the draws, which take most of the time, are made once.
    """
    if resamples * count <= 2 * _BATCH:
        yield _drawn(count, seed, 0, resamples)
        return
    step = _batch(count)
    for start in range(0, resamples, step):
        yield _drawn.__wrapped__(count, seed, start, min(step, resamples - start))


@functools.lru_cache(maxsize=2)
def _drawn(count: int, seed: int, start: int, resamples: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng((seed, start))
    places = rng.integers(0, count, (resamples, count), np.int32) + count * np.arange(resamples)[:, None]
    return np.bincount(places.ravel(), minlength=resamples * count).reshape(resamples, count).astype(np.float32)


def _permute(
    sums: Double, statistic: Callable[[Double], Double], scale: float, seed: int, resamples: int
) -> Significance:
    """Return a statistic and the share of exchanges of clusters among the groups for which it is at least as large.

    Args:
        sums: (groups, C, P).
        statistic: From the groups' sums, (R, groups, P) to (R,); NaN, where an exchange leaves a group empty, counts as
            large.
        scale: Of the numbers that it is computed from: a difference by rounding is none.
        seed: Fixes random arrangements.
        resamples: Number of arrangements.
    """
    observed = float(statistic(sums.sum(axis=1)[None])[0])
    least = observed * (1 - 1e-12) - 1e-12 * scale
    larger = sum(int(np.count_nonzero(~(statistic(each) < least))) for each in _exchanged(sums, seed, resamples))
    total = _arrangements(len(sums), sums.shape[1], resamples)
    return Significance(observed, larger / total if total else (larger + 1) / (resamples + 1))


def _exchanged(sums: Double, seed: int, resamples: int) -> Iterator[Double]:
    """Yield the groups' sums, (some arrangements, groups, P), with the values of clusters exchanged among the groups.

    Every arrangement once if there are at most `resamples`, otherwise so many random ones.

    Args:
        sums: (groups, C, P).
        seed: Fixes random arrangements.
        resamples: Number of arrangements.
    """
    groups, clusters, _ = sums.shape
    total, step = _arrangements(groups, clusters, resamples), _batch(clusters if groups == 2 else groups * clusters)
    for start in range(0, total or resamples, step):
        stop = min(start + step, total or resamples)
        if groups == 2:
            flipped = _digits(start, stop, 2, clusters) if total else _flips(clusters, seed, start, stop - start)
            moved = flipped.astype(np.float32) @ (sums[1] - sums[0])
            yield np.stack([sums[0].sum(axis=0) + moved, sums[1].sum(axis=0) - moved], axis=1)
            continue
        if total:
            orders = np.array(list(itertools.permutations(range(groups))))
            order = orders[_digits(start, stop, len(orders), clusters)]
        else:
            order = np.random.default_rng((seed, start)).random((stop - start, clusters, groups)).argsort(axis=-1)
        yield np.stack([sums[order[..., group], np.arange(clusters)].sum(axis=1) for group in range(groups)], axis=1)


def _arrangements(groups: int, clusters: int, resamples: int) -> int:
    """Return how many arrangements there are; 0 if more than `resamples`."""
    few = clusters * math.lgamma(groups + 1) <= math.log(resamples) + 1e-9
    return math.factorial(groups) ** clusters if few else 0


def _digits(start: int, stop: int, base: int, length: int) -> npt.NDArray[np.int64]:
    """Return the digits of numbers, lowest first, (stop - start, length)."""
    return np.arange(start, stop)[:, None] // base ** np.arange(length) % base


@functools.lru_cache(maxsize=2)
def _flips(count: int, seed: int, start: int, resamples: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng((seed, start))
    bits = np.unpackbits(np.frombuffer(rng.bytes(resamples * -(-count // 8)), np.uint8))
    return bits.reshape(resamples, -1)[:, :count]


def _batch(number: int) -> int:
    return max(1, _BATCH // number)
