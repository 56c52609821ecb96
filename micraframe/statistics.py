"""How certain a number is, and whether two numbers differ by more than chance.

A number in a study is the mean over M trained models of one number per model, which is computed from the images of G
independent groups, such as fields or patients. Training again gives another number, and so do other groups. Both vary,
as the crossed random effects of

    y_mg = mu + model_m + group_g + (model x group)_mg

The y_mg are pseudo-values: their mean over groups is the model's own number, and each says what its group contributes.
They come from leaving out one group at a time (Tukey 1958; Miller, Biometrika 61, 1974): for a ratio of sums in closed
form (`jackknifed_ratio`), for any other number by computing it again (`jackknifed`). Variances come from the mean
squares of the two-way table, intervals and tests from Student's t with Satterthwaite's degrees of freedom
(Satterthwaite, Biometrics Bulletin 2, 1946; for crossed effects, Searle, Casella and McCulloch, Variance Components,
1992). A bootstrap of three trained models cannot do this: three values have no tails. `benchmarks/coverage` shows by
simulation how often these intervals cover, and how often these tests raise a false alarm.

A single trained model does not show how models vary: its intervals and tests hold for that model alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special  # the functions of scipy.stats take a hundred times as long

from micraframe.interfaces import quotient

Double = npt.NDArray[np.float64]

_ROUNDING: Final = 1e-12
"""Relative differences below this are none."""


class Estimate(NamedTuple):
    """A number with its confidence interval; NaN where undefined.

    Attributes:
        value: Mean over trained models.
        low: Lower end of the interval.
        high: Upper end.
        model_sd: Standard deviation between trained models; NaN for a single one.
        models: Number of trained models M.
        groups: Number of independent groups G.
    """

    value: float
    low: float
    high: float
    model_sd: float
    models: int
    groups: int


class Contrast(NamedTuple):
    """The difference between two numbers measured on the same groups; NaN where undefined.

    Attributes:
        difference: First minus second.
        low: Lower end of the confidence interval.
        high: Upper end.
        error: Standard error.
        freedom: Degrees of freedom.
        p: Two-sided p value of "no difference".
    """

    difference: float
    low: float
    high: float
    error: float
    freedom: float
    p: float


class FTest(NamedTuple):
    """The test that several numbers measured on the same groups are equal; NaN where undefined."""

    f: float
    freedom: tuple[float, float]
    p: float


@dataclass(frozen=True)
class _Variance:
    """A variance as a signed sum of independent mean squares, each with its degrees of freedom."""

    terms: tuple[tuple[float, float], ...]

    @property
    def value(self) -> float:
        return sum(term for term, _ in self.terms)

    @property
    def freedom(self) -> float:
        """Satterthwaite's: (sum of terms)^2 / sum of (term^2 / its degrees of freedom), at least 1."""
        below = sum(term**2 / freedom for term, freedom in self.terms)
        return max(self.value**2 / below, 1.0) if below > 0 else math.inf


def jackknifed_ratio(numerators: npt.ArrayLike, denominators: npt.ArrayLike) -> Double:
    """Return the pseudo-values of ratios of sums, float64 (M, G).

    With R_m = sum_g n_mg / sum_g d_mg and R_m(g) the same without group g,
    y_mg = R_m + (G - 1) (mean over h of R_m(h) - R_m(g)). Where all denominators are equal, y_mg = n_mg / d_mg.

    Args:
        numerators: (M, G): sums over the images of each group.
        denominators: (M, G), likewise; for a mean over images, the number of images for which it is defined.

    Returns:
        NaN for a model whose denominators are all 0.
    """
    n, d = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    whole = quotient(n.sum(axis=1, keepdims=True), d.sum(axis=1, keepdims=True))
    rest = d.sum(axis=1, keepdims=True) - d
    without = quotient(n.sum(axis=1, keepdims=True) - n, np.where(rest > _ROUNDING * np.abs(d), rest, 0.0))
    return _pseudo_values(whole, without)


def jackknifed(numbers: Callable[[npt.NDArray[np.bool_]], npt.ArrayLike], groups: npt.ArrayLike) -> Double:
    """Return the pseudo-values of any numbers of one model, float64 (P, G), as in `jackknifed_ratio`.

    Args:
        numbers: Computes P numbers from the images that a mask, bool (N,), selects.
        groups: (N,): the index of each image's group, from 0 to G - 1.
    """
    index = np.asarray(groups)
    whole = np.asarray(numbers(np.ones(len(index), np.bool_)), np.float64)
    without = [np.asarray(numbers(index != group), np.float64) for group in range(int(index.max(initial=-1)) + 1)]
    return _pseudo_values(whole[:, None], np.array(without).reshape(-1, len(whole)).T)


def among(pseudo: npt.ArrayLike, groups: npt.NDArray[np.bool_]) -> Double:
    """Return the pseudo-values, (M, G), of some groups, bool (G,), if the others contribute nothing to the number."""
    y = np.asarray(pseudo, np.float64)
    numbers, kept = y.mean(axis=1, keepdims=True), y[:, groups]
    scale = (kept.shape[1] - 1) / max(y.shape[1] - 1, 1)
    return numbers + scale * (kept - kept.mean(axis=1, keepdims=True)) if kept.size else kept


def estimate(pseudo: npt.ArrayLike, bounds: tuple[float, float] = (-math.inf, math.inf)) -> Estimate:
    """Return the mean over trained models, with its 95 % interval over models and groups.

    Args:
        pseudo: (M, G) pseudo-values; models whose number is undefined, NaN, are left out.
        bounds: Range of the number, to which the interval is clipped.
    """
    y = _defined(pseudo)
    models, groups = y.shape
    if not y.size:
        return Estimate(*(math.nan,) * 4, models, groups)
    means = y.mean(axis=1)
    value, spread = float(means.mean()), float(means.std(ddof=1)) if models > 1 else math.nan
    if groups < 2:
        return Estimate(value, math.nan, math.nan, spread, models, groups)
    found = _contrast(value, _of_mean(y))
    return Estimate(value, max(found.low, bounds[0]), min(found.high, bounds[1]), spread, models, groups)


def contrast(first: npt.ArrayLike, second: npt.ArrayLike, paired: bool = False) -> Contrast:
    """Compare two numbers measured on the same groups, with a 95 % interval.

    Of independently trained models, the variance is that of the groups' differences, plus what models vary beyond it:
    S^2_d / G + sum over both of max(0, MS_model - MS_residual) / (M G).

    Args:
        first: (M1, G) pseudo-values.
        second: (M2, G) pseudo-values.
        paired: Whether rows are the same trained models, which differ only in what follows training.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if paired:
        y = _defined(_difference(one, other))
        if not y.size or y.shape[1] < 2:
            return Contrast(*(math.nan,) * 6)
        return _contrast(float(y.mean()), _of_mean(y))
    one, other = _defined(one), _defined(other)
    if not one.size or not other.size or one.shape[1] < 2:
        return Contrast(*(math.nan,) * 6)
    differences = _difference(one.mean(axis=0), other.mean(axis=0))
    groups = len(differences)
    within = float(differences.var(ddof=1)) / groups, groups - 1.0
    variance = _Variance((within, *_beyond_groups(one), *_beyond_groups(other)))
    return _contrast(float(differences.mean()), variance)


def equivalence(found: Contrast, margin: float) -> float:
    """Return the p value of "the difference is at least the margin", of either sign: two one-sided t tests.

    A small one means equivalent within the margin; a large p of "no difference" does not (Schuirmann 1987).
    """
    if math.isnan(found.difference):
        return math.nan
    if found.error == 0:
        return 0.0 if abs(found.difference) < margin else 1.0
    ends = [(margin - found.difference) / found.error, (margin + found.difference) / found.error]
    return float(max(special.stdtr(found.freedom, -end) for end in ends))


def f_test(pseudo: Sequence[npt.ArrayLike]) -> FTest:
    """Test that several numbers, each of its own trained models and all on the same groups, are equal.

    A quasi-F: with e_j the mean of number j, F = G sum_j (e_j - e)^2 / (J - 1) divided by what this mean square is
    expected to be where nothing differs: the mean square of numbers x groups, plus what models vary beyond it.

    Args:
        pseudo: J tables (M_j, G) of pseudo-values.
    """
    tables = [table for table in map(_defined, pseudo) if table.size]
    count = len(tables)
    if count < 2 or tables[0].shape[1] < 2:
        return FTest(math.nan, (math.nan, math.nan), math.nan)
    means = np.stack([table.mean(axis=0) for table in tables])
    groups = means.shape[1]
    between = groups * float(means.mean(axis=1).var(ddof=1))
    residual = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    freedom = float((count - 1) * (groups - 1))
    terms = [(float((residual**2).sum()) / freedom, freedom)]
    for table in tables:
        terms += [(groups * term / count, own) for term, own in _beyond_groups(table)]
    within = _Variance(tuple(terms))
    if not within.value > _ROUNDING**2 * float((means**2).mean()):
        return FTest(math.nan, (count - 1.0, freedom), math.nan)
    f = between / within.value
    return FTest(f, (count - 1.0, within.freedom), float(special.fdtrc(count - 1, within.freedom, f)))


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


def _difference(one: Double, other: Double) -> Double:
    """Return one - other; 0 where they differ by rounding only."""
    return np.where(np.isclose(one, other, rtol=_ROUNDING, atol=0), 0.0, one - other)


def _pseudo_values(whole: Double, without: Double) -> Double:
    """Return pseudo-values (P, G) of P numbers (P, 1), and of the same without each group (P, G).

    A number that is undefined without a group is taken to be the same: how much the group matters is unknown.
    """
    without = np.where(np.isnan(without), whole, without)
    return np.asarray(whole + (without.shape[1] - 1) * (without.mean(axis=1, keepdims=True) - without))


def _defined(pseudo: npt.ArrayLike) -> Double:
    y = np.asarray(pseudo, np.float64)
    return y[~np.isnan(y).any(axis=1)]


def _mean_squares(y: Double) -> tuple[float, float, float]:
    """Return the mean squares of models, groups and residuals of a table (M, G), each divided by M G; M, G > 1."""
    models, groups = y.shape
    rows, columns = y.mean(axis=1), y.mean(axis=0)
    residual = ((y - rows[:, None] - columns + y.mean()) ** 2).sum() / ((models - 1) * (groups - 1))
    return float(rows.var(ddof=1)) / models, float(columns.var(ddof=1)) / groups, float(residual) / (models * groups)


def _of_mean(y: Double) -> _Variance:
    """Return the variance of the mean of a table (M, G): (MS_model + MS_group - MS_residual) / (M G).

    It is never less than models or groups alone give, which the subtraction could otherwise make it.
    """
    models, groups = y.shape
    if models == 1:
        return _Variance(((float(y.var(ddof=1)) / groups, groups - 1.0),))
    of_models, of_groups, residual = _mean_squares(y)
    both = (of_models, models - 1.0), (of_groups, groups - 1.0)
    whole = _Variance((*both, (-residual, float((models - 1) * (groups - 1)))))
    return max(whole, *(_Variance((margin,)) for margin in both), key=lambda variance: variance.value)


def _beyond_groups(y: Double) -> list[tuple[float, float]]:
    """Return what models add to the variance of the mean of (M, G) beyond what shows in its groups' means."""
    models, groups = y.shape
    if models == 1:
        return []
    of_models, _, residual = _mean_squares(y)
    if of_models <= residual:
        return []
    return [(of_models, models - 1.0), (-residual, float((models - 1) * (groups - 1)))]


def _contrast(difference: float, variance: _Variance) -> Contrast:
    """Return a difference with its 95 % interval and two-sided p value by Student's t."""
    error, freedom = math.sqrt(variance.value), variance.freedom
    reach = float(special.stdtrit(freedom, 0.975)) * error
    if error == 0:
        p = math.nan if difference == 0 else 0.0
    else:
        p = float(2 * special.stdtr(freedom, -abs(difference) / error))
    return Contrast(difference, difference - reach, difference + reach, error, freedom, p)
