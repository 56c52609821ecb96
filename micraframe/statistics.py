"""How sure a mean is, and whether a difference is more than chance: by resampling, as the MICRA-Net paper does it.

NaN means "undefined here" and is left out. Everything random is fixed by a seed.
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
    values = np.asarray(values, np.float64)
    sums, counts = _clustered(values, clusters)
    if not len(sums):
        return Interval(np.nan, np.nan, np.nan)
    mean = float(sums.sum() / counts.sum())
    if len(sums) == 1:
        return Interval(mean, np.nan, np.nan)
    means = np.concatenate([(drawn @ sums) / (drawn @ counts) for drawn in _resamples(len(sums), seed, resamples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def randomisation_test(
    a: npt.ArrayLike, b: npt.ArrayLike, seed: int, paired: bool = False, resamples: int = RESAMPLES
) -> Significance:
    """Return |mean(a) - mean(b)| and how often chance makes it as large, by exchanging values between the groups.

    Args:
        a: (N,).
        b: (M,); M = N where paired.
        seed: Fixes the resamples.
        paired: a[i] and b[i] are of the same image: they are exchanged with each other only.
        resamples: How many are drawn; where there are fewer arrangements, each is taken once.

    Returns:
        A p value that is never 0: its floor is 1 / (resamples + 1). NaN where a group has fewer than two values.

    Raises:
        ValueError: If paired groups are not of one length.
    """
    groups = _defined([a, b], paired)
    if min(map(len, groups)) < 2:
        return Significance(np.nan, np.nan)
    if paired:
        return _flip_signs(groups[0] - groups[1], seed, resamples)
    return _permute(groups, lambda a, b, axis: np.abs(a.mean(axis) - b.mean(axis)), seed, paired, resamples)


def f_test(
    groups: Sequence[npt.ArrayLike], seed: int, paired: bool = False, resamples: int = RESAMPLES
) -> Significance:
    """Return the F statistic of several groups' means and how often chance makes it as large.

    F is the variance between the groups over that within them; where paired, the images' own means are taken out
    first (repeated measures).

    Args:
        groups: At least two, each (N,).
        seed: Fixes the resamples.
        paired: Place i of every group is of the same image: values are exchanged within an image only.
        resamples: How many are drawn; where there are fewer arrangements, each is taken once.

    Returns:
        NaN where a group has fewer than two values; infinity where only the groups vary.

    Raises:
        ValueError: If there are fewer than two groups, or paired groups are not of one length.
    """
    if len(groups) < 2:
        raise ValueError(f"{len(groups)} group; an F test compares at least two")
    defined = _defined(groups, paired)
    if min(map(len, defined)) < 2:
        return Significance(np.nan, np.nan)
    total = np.concatenate(defined)
    centre = total.mean()

    # The sum of squares between groups: what is exchanged leaves the rest of F's parts as they are, so that the one
    # rises with the other, and nothing is divided by a variance that may be 0.
    def between(*groups: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
        squares = [group.shape[axis] * (group.mean(axis) - centre) ** 2 for group in groups]
        return np.asarray(sum(squares))

    squares, p = _permute(defined, between, seed, paired, resamples)
    within = float(((total - centre) ** 2).sum()) - squares
    freedom = len(total) - len(defined)
    if paired:
        images = np.mean(defined, axis=0)
        within -= float(len(defined) * ((images - centre) ** 2).sum())
        freedom -= len(images) - 1
    if freedom <= 0:
        return Significance(np.nan, p)
    explained, rest = squares / (len(defined) - 1), max(within, 0.0) / freedom
    if rest <= np.finfo(np.float64).eps * (explained + centre**2):
        return Significance(np.inf if squares else np.nan, p)
    return Significance(explained / rest, p)


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
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
) -> Comparison:
    """Compare groups: all together first, and each pair if that says that they differ.

    Args:
        groups: At least two, by name, each (N,).
        seed: Fixes the resamples.
        paired: Place i of every group is of the same image.
        alpha: Level of the test of all groups; pairs of two groups are compared whatever it says.
        resamples: How many are drawn for each test.
    """
    names = list(groups)
    overall = f_test(list(groups.values()), seed, paired, resamples)
    if len(names) > 2 and not overall.p <= alpha:
        return Comparison(overall, ())
    chosen = list(itertools.combinations(names, 2))
    p_values = [randomisation_test(groups[a], groups[b], seed, paired, resamples).p for a, b in chosen]
    pairs = []
    for (a, b), p, corrected in zip(chosen, p_values, holm(p_values), strict=True):
        first, second = _defined([groups[a], groups[b]], paired)
        difference = float(first.mean() - second.mean()) if len(first) and len(second) else np.nan
        pairs.append(Pair(a, b, difference, p, float(corrected)))
    return Comparison(overall, tuple(pairs))


def _clustered(
    values: npt.NDArray[np.float64], clusters: Sequence[Any] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return sum and number of the defined values of each cluster that has any."""
    defined = ~np.isnan(values)
    if clusters is None:
        return values[defined], np.ones(int(defined.sum()))
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values in {len(clusters)} places of clusters; one for each is wanted")
    numbers: dict[Any, int] = {}
    place = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], np.intp)[defined]
    counts = np.bincount(place, minlength=len(numbers))
    sums = np.bincount(place, weights=values[defined], minlength=len(numbers)).astype(np.float64)
    return sums[counts > 0], counts[counts > 0].astype(np.float64)


def _defined(groups: Sequence[npt.ArrayLike], paired: bool) -> list[npt.NDArray[np.float64]]:
    """Return the groups without NaN: where paired, without the places at which any group has one."""
    arrays = [np.asarray(group, np.float64) for group in groups]
    if not paired:
        return [array[~np.isnan(array)] for array in arrays]
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"paired groups of lengths {lengths}; one length is wanted")
    kept = ~np.isnan(arrays).any(axis=0)
    return [array[kept] for array in arrays]


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


def _flip_signs(differences: npt.NDArray[np.float64], seed: int, resamples: int) -> Significance:
    """Return |mean| and its p value when signs are flipped: the same as exchanging paired values, and much faster.

    `scipy.stats.permutation_test`, which the rest uses, takes a second where this takes a hundredth.
    """
    count = len(differences)
    exact = count < 63 and 2**count <= resamples
    number = 2**count if exact else resamples
    observed = float(np.abs(differences.sum()))
    # Equal but for rounding is as large.
    least = observed * (1 - 1e-12) - 1e-12 * float(np.abs(differences).sum())
    larger, step = 0, _batch(count)
    for start in range(0, number, step):
        stop = min(start + step, number)
        if exact:
            flipped = ((np.arange(start, stop)[:, None] >> np.arange(count)) & 1).astype(np.float32)
        else:
            flipped = _flips(count, seed, start, stop - start)
        sums = differences.sum() - 2 * (flipped @ differences)
        larger += int(np.count_nonzero(np.abs(sums) >= least))
    p = larger / number if exact else (larger + 1) / (number + 1)
    return Significance(observed / count, min(p, 1.0))


def _permute(
    groups: Sequence[npt.NDArray[np.float64]], statistic: Any, seed: int, paired: bool, resamples: int
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
    return Significance(float(found.statistic), float(found.pvalue))


def _batch(number: int) -> int:
    return max(1, _CELLS // number)
