"""How sure a mean is, and whether a difference is more than chance: by resampling, as the MICRA-Net paper does it.

NaN means "undefined here" and is left out of means. Everything random is fixed by a seed.

Images of one cluster, such as crops of one field, are not independent of each other: named clusters are resampled, and
exchanged between groups, whole. Taken for independent, they would make intervals too narrow and alarms too frequent.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 10_000
"""As many as the paper takes."""

Double = npt.NDArray[np.float64]

_CELLS = 10_000_000
"""Numbers drawn at once: what bounds memory."""


class Interval(NamedTuple):
    """A mean and its confidence interval; NaN where there is nothing to say."""

    mean: float
    low: float
    high: float


class Significance(NamedTuple):
    """A test's statistic and its p value; NaN where there is nothing to compare."""

    statistic: float
    p: float


class Pair(NamedTuple):
    """Two groups compared: the difference of their means, first minus second, its p value, and Holm's correction."""

    first: str
    second: str
    difference: float
    p: float
    p_holm: float


class Comparison(NamedTuple):
    """The test of all groups together, and the pairs, which are there only if that test is significant."""

    overall: Significance
    pairs: tuple[Pair, ...]


def bootstrap_mean(
    values: npt.ArrayLike,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    clusters: Sequence[Any] | None = None,
) -> Interval:
    """Return the mean and the percentile interval of its bootstrap distribution.

    Args:
        values: (N,).
        seed: Fixes the resamples.
        resamples: How many are drawn.
        level: Coverage of the interval.
        clusters: (N,): to which cluster, such as an image, a value belongs. Values of one cluster are not independent,
            so that clusters are resampled whole. None: each value by itself.

    Returns:
        NaN for the mean of nothing, and for the interval of fewer than two values or clusters.
    """
    sums, counts = _cells([np.asarray(values, np.float64)], clusters)
    if not sums.size:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(sums.sum() / counts.sum())
    return Interval(mean, *_percentiles(_resampled(sums, counts, seed, resamples)[0], sums.shape[1], level))


def bootstrap_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    clusters: Sequence[Any] | None = None,
) -> Interval:
    """Return mean(a) - mean(b) of paired values, and the percentile interval of its bootstrap distribution.

    Images are resampled, each with its values of both groups; each mean is over the images for which it is defined.

    Args:
        a: (N,).
        b: (N,): place i is of the same image.
        seed: Fixes the resamples.
        resamples: How many are drawn.
        level: Coverage of the interval.
        clusters: (N,): see `bootstrap_mean`.
    """
    sums, counts = _cells(_of_one_length([a, b]), clusters)
    if not counts.any(1).all():
        return Interval(np.nan, np.nan, np.nan)
    first, second = _resampled(sums, counts, seed, resamples)
    return Interval(_difference(sums, counts), *_percentiles(first - second, sums.shape[1], level))


def randomisation_test(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    seed: int,
    paired: bool = False,
    resamples: int = RESAMPLES,
    clusters: Sequence[Any] | None = None,
) -> Significance:
    """Return |mean(a) - mean(b)| and how often chance makes it as large, by exchanging values between the groups.

    Args:
        a: (N,).
        b: (M,); M = N where paired.
        seed: Fixes the resamples.
        paired: a[i] and b[i] are of the same image: they are exchanged with each other only, defined or not.
        resamples: How many are drawn; where there are fewer arrangements, each is taken once.
        clusters: (N,), where paired: all values of a cluster are exchanged together. None: each image by itself.

    Returns:
        A p value that is never 0: its floor is 1 / (resamples + 1). NaN where a group has fewer than two values or, if
        paired, fewer than two images or clusters have any.

    Raises:
        ValueError: If paired groups are not of one length, or clusters are named of such as are not paired.
    """
    if paired:
        return _exchange(*_cells(_of_one_length([a, b]), clusters), seed, resamples)
    groups = _unpaired([a, b], clusters)
    if min(map(len, groups)) < 2:
        return Significance(np.nan, np.nan)
    return _permute(groups, lambda a, b, axis: np.abs(a.mean(axis) - b.mean(axis)), seed, paired, resamples)


def least_p(clusters: int, resamples: int = RESAMPLES) -> float:
    """Return the smallest p value that `randomisation_test` can give of so many paired images or clusters.

    As large as the arrangement that was observed is always its mirror image, in which all are exchanged: 2 / 2^C where
    each arrangement is taken once. After Holm's correction, the smallest of M p values is M times that at least.
    """
    exact = clusters < 63 and 2**clusters <= resamples
    return 2.0 ** (1 - clusters) if exact else 1 / (resamples + 1)


def f_test(
    groups: Sequence[npt.ArrayLike],
    seed: int,
    paired: bool = False,
    resamples: int = RESAMPLES,
    clusters: Sequence[Any] | None = None,
) -> Significance:
    """Return the F statistic of several groups' means and how often chance makes it as large.

    F is the variance between the groups over that within them; where paired, the means of images, or of clusters, are
    taken out first (repeated measures). p goes by the sum of squares between the groups, with which F rises.

    Args:
        groups: At least two, each (N,).
        seed: Fixes the resamples.
        paired: Place i of every group is of the same image: values are exchanged within an image only, defined or not.
        resamples: How many are drawn; where there are fewer arrangements, each is taken once.
        clusters: (N,), where paired: all values of a cluster are exchanged together. None: each image by itself.

    Returns:
        NaN where a group has fewer than two values or, if paired, fewer than two images or clusters have any; infinity
        where only the groups vary.

    Raises:
        ValueError: If there are fewer than two groups, paired groups are not of one length, or clusters are named of
            such as are not paired.
    """
    if len(groups) < 2:
        raise ValueError(f"{len(groups)} group; an F test compares at least two")
    if paired:
        sums, counts = _cells(_of_one_length(groups), clusters)
    else:
        # Each value is a cell of its own group.
        arrays = _unpaired(groups, clusters)
        sums, counts = np.zeros((2, len(arrays), sum(map(len, arrays))))
        for row, start, array in zip(itertools.count(), np.cumsum([0, *map(len, arrays)]), arrays, strict=False):
            sums[row, start : start + len(array)] = array
            counts[row, start : start + len(array)] = 1
    if sums.shape[1] < 2 or not counts.any(1).all() or (not paired and counts.sum(1).min() < 2):
        return Significance(np.nan, np.nan)
    centre = sums.sum() / counts.sum()

    def squares(sums: Double, counts: Double) -> Double:
        means = np.divide(sums, counts, out=np.full_like(sums, centre), where=counts > 0)
        return np.asarray(counts * (means - centre) ** 2)

    # What is exchanged leaves the rest of F's parts as they are, and nothing is divided by a variance that may be 0.
    def between(*groups: npt.NDArray[Any], axis: int) -> Double:
        if not paired:
            groups = tuple(group + 1j for group in groups)
        # Sum and number travel together as the parts of a complex number, which SciPy exchanges as one value.
        parts = np.stack([group.sum(axis) for group in groups])
        return np.asarray(squares(parts.real.copy(), parts.imag.copy()).sum(0))

    exchanged = list(sums + 1j * counts) if paired else arrays
    found, p = _permute(exchanged, between, seed, paired, resamples)
    within = float(squares(sums, counts).sum()) - found
    freedom = int(np.count_nonzero(counts)) - len(groups)
    if paired:
        within -= float(squares(sums.sum(0), counts.sum(0)).sum())
        freedom -= sums.shape[1] - 1
    if freedom <= 0:
        return Significance(np.nan, p)
    explained, rest = found / (len(groups) - 1), max(within, 0.0) / freedom
    if rest <= np.finfo(np.float64).eps * (explained + centre**2):
        return Significance(np.inf if found else np.nan, p)
    return Significance(explained / rest, p)


def holm(p_values: npt.ArrayLike) -> Double:
    """Return the p values, (N,), corrected for their number: the family-wise error stays below alpha (Holm 1979).

    In rising order, p'_(i) = max over j <= i of min(1, (N - j + 1) p_(j)). NaN stays NaN and does not count.
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
    paired: bool = False,
    alpha: float = 0.05,
    resamples: int = RESAMPLES,
    clusters: Sequence[Any] | None = None,
) -> Comparison:
    """Compare groups: all together first, and each pair if that says that they differ.

    Args:
        groups: At least two, by name, each (N,).
        seed: Fixes the resamples.
        paired: Place i of every group is of the same image.
        alpha: Level of the test of all groups; pairs of two groups are compared whatever it says.
        resamples: How many are drawn for each test.
        clusters: (N,), where paired: see `randomisation_test`.
    """
    names = list(groups)
    overall = f_test(list(groups.values()), seed, paired, resamples, clusters)
    if len(names) > 2 and not overall.p <= alpha:
        return Comparison(overall, ())
    chosen = list(itertools.combinations(names, 2))
    p_values = [randomisation_test(groups[a], groups[b], seed, paired, resamples, clusters).p for a, b in chosen]
    means = {name: _mean(np.asarray(values, np.float64)) for name, values in groups.items()}
    pairs = [
        Pair(a, b, means[a] - means[b], p, float(corrected))
        for (a, b), p, corrected in zip(chosen, p_values, holm(p_values), strict=True)
    ]
    return Comparison(overall, tuple(pairs))


def _mean(values: Double) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else np.nan


def _cells(groups: Sequence[Double], clusters: Sequence[Any] | None) -> tuple[Double, Double]:
    """Return sum and number, (groups, C), of the defined values of each of the C clusters that have any."""
    table = np.array(groups)
    length = table.shape[1]
    if clusters is None:
        clusters = range(length)
    if len(clusters) != length:
        raise ValueError(f"{length} values in {len(clusters)} places of clusters; one for each is wanted")
    numbers: dict[Any, int] = {}
    place = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], np.intp)
    sums, counts = np.zeros((2, len(table), len(numbers)))
    for row, values in enumerate(table):
        defined = ~np.isnan(values)
        counts[row] = np.bincount(place[defined], minlength=len(numbers))
        sums[row] = np.bincount(place[defined], weights=values[defined], minlength=len(numbers))
    some = counts.any(0)
    return sums[:, some], counts[:, some]


def _of_one_length(groups: Sequence[npt.ArrayLike]) -> list[Double]:
    arrays = [np.asarray(group, np.float64) for group in groups]
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"paired groups of lengths {lengths}; one length is wanted")
    return arrays


def _unpaired(groups: Sequence[npt.ArrayLike], clusters: Sequence[Any] | None) -> list[Double]:
    """Return the groups without NaN."""
    if clusters is not None:
        raise ValueError("clusters are exchanged between paired groups only; set paired, or leave them out")
    arrays = [np.asarray(group, np.float64) for group in groups]
    return [array[~np.isnan(array)] for array in arrays]


def _difference(sums: Double, counts: Double) -> float:
    first, second = sums.sum(1) / counts.sum(1)
    return float(first - second)


def _percentiles(drawn: Double, clusters: int, level: float) -> tuple[float, float]:
    """Return the ends of the interval; of a single cluster there is none."""
    if clusters < 2:
        return np.nan, np.nan
    # A few resamples of few clusters may have none for which a group is defined.
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(sums: Double, counts: Double, seed: int, resamples: int) -> Double:
    """Return each group's mean in each resample of the clusters, (groups, resamples); NaN where there are no values."""
    parts = []
    for drawn in _resamples(sums.shape[1], seed, resamples):
        numbers = counts @ drawn.T
        parts.append(np.divide(sums @ drawn.T, numbers, out=np.full(numbers.shape, np.nan), where=numbers > 0))
    return np.concatenate(parts, axis=1)


def _resamples(count: int, seed: int, resamples: int) -> Iterable[npt.NDArray[np.float32]]:
    """Yield how often each of `count` values is drawn in each resample, float32 (some resamples, count).

    As the same images are resampled for every pair of methods, the draws are made once for all of them: with
    `scipy.stats.bootstrap` it is they that take the time.
    """
    if resamples * count <= 2 * _CELLS:
        return (_drawn(count, seed, 0, resamples),)
    step = _batch(count)
    return (_drawn.__wrapped__(count, seed, start, min(step, resamples - start)) for start in range(0, resamples, step))


@functools.lru_cache(maxsize=2)
def _drawn(count: int, seed: int, start: int, resamples: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng((seed, start))
    places = rng.integers(0, count, (resamples, count), np.int32) + count * np.arange(resamples)[:, None]
    return np.bincount(places.ravel(), minlength=resamples * count).reshape(resamples, count).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _flips(count: int, seed: int, start: int, resamples: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng((seed, start))
    bits = np.unpackbits(np.frombuffer(rng.bytes(resamples * -(-count // 8)), np.uint8))
    return bits.reshape(resamples, -1)[:, :count].astype(np.float32)


def _exchange(sums: Double, counts: Double, seed: int, resamples: int) -> Significance:
    """Return |difference of means| and its p value when clusters, (2, C), are exchanged between the two groups.

    `scipy.stats.permutation_test`, which the rest uses, takes a second where this takes a hundredth.
    """
    number = sums.shape[1]
    if number < 2 or not counts.any(1).all():
        return Significance(np.nan, np.nan)
    exact = number < 63 and 2**number <= resamples
    arrangements = 2**number if exact else resamples
    observed = abs(_difference(sums, counts))
    # Equal but for rounding is as large.
    least = observed * (1 - 1e-12) - 1e-12 * float(np.abs(sums).sum() / counts.sum())
    move, leave = np.stack([sums[1] - sums[0], counts[1] - counts[0]], axis=1), np.array([1.0, -1.0])
    larger, step = 0, _batch(number)
    for start in range(0, arrangements, step):
        stop = min(start + step, arrangements)
        if exact:
            flipped = ((np.arange(start, stop)[:, None] >> np.arange(number)) & 1).astype(np.float32)
        else:
            flipped = _flips(number, seed, start, stop - start)
        moved, gained = (flipped @ move).T
        total = sums.sum(1)[:, None] + leave[:, None] * moved
        filled = counts.sum(1)[:, None] + leave[:, None] * gained
        means = np.divide(total, filled, out=np.full(total.shape, np.nan), where=filled > 0)
        # Where an arrangement leaves a group without values, it may be as large as any.
        larger += int(np.count_nonzero(~(np.abs(means[0] - means[1]) < least)))
    p = larger / arrangements if exact else (larger + 1) / (arrangements + 1)
    return Significance(observed, min(p, 1.0))


def _permute(
    groups: Sequence[npt.NDArray[Any]], statistic: Any, seed: int, paired: bool, resamples: int
) -> Significance:
    found = stats.permutation_test(
        groups,
        statistic,
        permutation_type="samples" if paired else "independent",
        alternative="greater",
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(sum(map(len, groups))),
        rng=np.random.default_rng(seed),
    )
    # Of complex values, SciPy makes its p complex.
    return Significance(float(np.real(found.statistic)), float(np.real(found.pvalue)))


def _batch(number: int) -> int:
    return max(1, _CELLS // number)
