"""Intervals and tests over trained models and groups of images, against textbooks, least squares and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from micraframe.statistics import (
    among,
    contrast,
    equivalence,
    estimate,
    f_test,
    holm,
    jackknifed,
    jackknifed_ratio,
)

TABLES = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(0.6, 0.2, (3, 9)))


def crossed(random: np.random.Generator, groups: np.ndarray, models: int = 3, sd: float = 0.12) -> np.ndarray:
    """Return the values (models, groups) of newly trained models on given groups; their expectation is 0.6."""
    shape = models, len(groups)
    return 0.6 + random.normal(0, sd, (models, 1)) + groups + random.normal(0, 0.05, shape)


def residual_squares(y: np.ndarray, *factors: np.ndarray) -> float:
    """Return the residual sum of squares of a least-squares fit of y, (N,), by the levels of factors, (N,)."""
    columns = [np.ones(len(y))] + [(factor == level) * 1.0 for factor in factors for level in np.unique(factor)[1:]]
    design = np.stack(columns, axis=1)
    return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 4)), min_size=3, max_size=8))
def test_pseudo_values_of_ratios_are_those_of_computing_the_ratio_again(pairs):
    n, d = np.array([(top, below) if below else (0.0, 0.0) for top, below in pairs]).T
    if (d > 0).sum() < 2:
        return
    (found,) = jackknifed_ratio([n], [d])
    (again,) = jackknifed(lambda kept: [n[kept].sum() / d[kept].sum()], np.arange(len(n)))
    np.testing.assert_allclose(found, again, atol=1e-9)
    assert found.mean() == pytest.approx(n.sum() / d.sum())


def test_pseudo_values_of_equally_large_groups_are_their_means():
    np.testing.assert_allclose(jackknifed_ratio([[1, 4, 6]], [[2, 2, 2]]), [[0.5, 2, 3]])
    assert np.isnan(jackknifed_ratio([[0, 0]], [[0, 0]])).all()


def test_groups_that_contribute_nothing_change_nothing():
    n, d = np.array([[1.0, 2, 0, 3, 0]]), np.array([[2.0, 3, 0, 3, 0]])
    some = d[0] > 0
    np.testing.assert_allclose(among(jackknifed_ratio(n, d), some), jackknifed_ratio(n[:, some], d[:, some]))


@given(TABLES)
def test_one_model_has_the_t_interval_over_groups(table):
    found = estimate(table[:1])
    interval = stats.ttest_1samp(table[0], 0).confidence_interval()
    np.testing.assert_allclose(found[:3], [table[0].mean(), *interval])
    assert math.isnan(found.model_sd)
    assert (found.models, found.groups) == (1, 9)


@given(TABLES)
def test_the_variance_of_a_mean_is_that_of_crossed_random_effects(table):
    models, groups = np.indices(table.shape).reshape(2, -1)
    y, size = table.ravel(), table.size
    residual = residual_squares(y, models, groups) / (2 * 8)
    of_models = (residual_squares(y, groups) - residual_squares(y, models, groups)) / 2
    of_groups = (residual_squares(y, models) - residual_squares(y, models, groups)) / 8
    parts = np.array([of_models, of_groups, -residual]) / size
    variance, freedom = parts.sum(), parts.sum() ** 2 / (parts**2 / [2, 8, 16]).sum()
    if variance < max(parts):  # see the docstring: never less than either alone
        variance, freedom = max((parts[0], 2), (parts[1], 8))
    found = estimate(table)
    reach = stats.t.ppf(0.975, max(freedom, 1)) * math.sqrt(variance)
    np.testing.assert_allclose(found[:3], [y.mean(), y.mean() - reach, y.mean() + reach])
    assert found.model_sd == pytest.approx(table.mean(axis=1).std(ddof=1))


def test_copies_of_a_model_are_no_evidence():
    table = np.random.default_rng(0).normal(size=(1, 9))
    np.testing.assert_allclose(estimate(np.repeat(table, 5, axis=0))[:3], estimate(table)[:3])


def test_intervals_end_where_the_number_does():
    found = estimate([[1.0, 1, 1, 0.7]], bounds=(0, 1))
    assert found.low < 0.9 < found.high == 1


@pytest.mark.parametrize("sd", [0.0, 0.12])
def test_intervals_of_three_models_cover_what_they_say(sd):
    """The percentile bootstrap over images, given the models, covered 20 % with a standard deviation of 0.12."""
    random, hits = np.random.default_rng(0), 0
    for _ in range(500):
        found = estimate(crossed(random, random.normal(0, 0.15, 11), sd=sd))
        hits += found.low <= 0.6 <= found.high
    assert 0.92 <= hits / 500 <= 0.99


def test_identical_recipes_rarely_differ():
    """The randomisation test given the models found p <= 0.05 in 79 % of trials."""
    random, alarms = np.random.default_rng(1), 0
    for _ in range(500):
        groups = random.normal(0, 0.15, 30)
        alarms += contrast(crossed(random, groups), crossed(random, groups)).p <= 0.05
    assert alarms / 500 <= 0.07


def test_different_recipes_differ():
    random = np.random.default_rng(2)
    groups = random.normal(0, 0.15, 30)
    found = contrast(crossed(random, groups, sd=0.01) + 0.2, crossed(random, groups, sd=0.01))
    assert found.p < 0.001
    assert 0.1 < found.low < found.difference < found.high < 0.3


@given(TABLES)
def test_single_models_are_compared_by_the_paired_t_test(table):
    found, expected = contrast(table[:1], table[1:2]), stats.ttest_rel(table[0], table[1])
    assert found.p == pytest.approx(expected.pvalue)
    np.testing.assert_allclose(found[1:3], expected.confidence_interval())


def test_what_the_same_models_share_cancels():
    random = np.random.default_rng(3)
    table = crossed(random, random.normal(0, 0.15, 11))
    other = table + 0.02 + random.normal(0, 0.01, table.shape)
    assert contrast(other, table, paired=True).p < 0.01
    assert contrast(other, table).p > 0.5
    assert np.isnan(contrast(table[:, :1], other[:, :1], paired=True)).all()


def test_equal_but_for_rounding_is_equal():
    table = np.random.default_rng(0).random((3, 7))
    for paired in (True, False):
        found = contrast(table, table * (1 + 2e-16), paired=paired)
        assert found.difference == 0
        assert found.p > 0.99 or math.isnan(found.p)
    assert math.isnan(f_test([np.full((1, 5), 0.1 + 0.2), np.full((1, 5), 0.3)]).p)


def test_equivalence_is_two_one_sided_t_tests():
    random = np.random.default_rng(4)
    one = random.normal(0.6, 0.1, (1, 40))
    other = one + random.normal(0.01, 0.02, (1, 40))
    found = contrast(one, other)
    differences = (one - other)[0]
    expected = max(
        stats.ttest_1samp(differences, -0.05, alternative="greater").pvalue,
        stats.ttest_1samp(differences, 0.05, alternative="less").pvalue,
    )
    assert equivalence(found, 0.05) == pytest.approx(expected)
    assert equivalence(found, 0.05) < 0.001
    assert equivalence(found, abs(found.difference)) == pytest.approx(0.5)


def test_a_large_p_of_a_difference_does_not_mean_equivalent():
    found = contrast([[0.2, 0.9, 0.4]], [[0.3, 0.5, 0.6]])
    assert found.p > 0.5
    assert equivalence(found, 0.05) > 0.4


@pytest.mark.parametrize("models", [1, 3])
def test_f_is_that_of_least_squares(models):
    random = np.random.default_rng(5)
    groups = random.normal(0, 0.15, 11)
    tables = [crossed(random, groups, models) + shift for shift in (0, 0.05, 0.3, 0.1)]
    means = np.array([table.mean(axis=0) for table in tables])
    of, group = np.indices(means.shape).reshape(2, -1)
    full = residual_squares(means.ravel(), of, group)
    between, within = (residual_squares(means.ravel(), group) - full) / 3, full / (3 * 10)
    for table in tables if models > 1 else ():
        model, group = np.indices(table.shape).reshape(2, -1)
        rest = residual_squares(table.ravel(), model, group)
        of_models = (residual_squares(table.ravel(), group) - rest) / (models - 1)
        within += max(0, of_models - rest / ((models - 1) * 10)) / models / 4
    found = f_test(tables)
    assert found.f == pytest.approx(between / within)
    if models == 1:
        assert found.p == pytest.approx(stats.f.sf(found.f, 3, 30))


def test_f_of_two_is_the_square_of_t():
    random = np.random.default_rng(6)
    groups = random.normal(0, 0.15, 11)
    one, other = crossed(random, groups), crossed(random, groups)
    found = contrast(one, other)
    assert f_test([one, other]).f == pytest.approx((found.difference / found.error) ** 2)
    assert f_test([one, other]).p == pytest.approx(found.p)


def test_f_is_sane_where_data_has_structured_gaps():
    """Subtracting sums of squares as if data were balanced gave negative residuals and F = infinity."""
    random, alarms = np.random.default_rng(7), 0
    for _ in range(300):
        groups = random.normal(0, 0.15, 30)
        defined = np.ones((3, 30))
        # The first is undefined in the hardest groups, as methods that see nothing are, and the second in others.
        defined[0, np.argsort(groups)[:6]] = defined[1, :10] = 0
        tables = [crossed(random, groups - groups @ seen / seen.sum(), sd=0.03) * seen for seen in defined]
        found = f_test([jackknifed_ratio(t, np.broadcast_to(d, t.shape)) for t, d in zip(tables, defined, strict=True)])
        assert math.isfinite(found.f)
        assert 0 < found.p <= 1
        alarms += found.p <= 0.05
    assert alarms / 300 <= 0.08
    # Two methods without any difference in the groups where both are defined, on a single cell that both lack.
    gaps = jackknifed_ratio([[0.8, 0.2, 0.5, 0], [0.8, 0, 0.5, 0.1]], [[1, 1, 1, 0], [1, 0, 1, 1]])
    assert 0 <= f_test([gaps[:1], gaps[1:]]).f < 5


def test_too_little_has_neither_interval_nor_test():
    assert np.isnan(estimate(np.empty((0, 5)))[:4]).all()
    assert np.isnan(estimate([[np.nan] * 4])[:4]).all()
    single = estimate([[0.5], [0.7]])
    assert single.value == pytest.approx(0.6)
    assert np.isnan(single[1:3]).all()
    assert np.isnan(contrast([[0.5]], [[0.7]])).all()
    assert math.isnan(equivalence(contrast([[0.5]], [[0.7]]), 0.1))
    assert math.isnan(f_test([[[0.5, 0.6]]]).f)
    # A model whose number is undefined is left out.
    assert estimate([[0.5, 0.7], [np.nan, np.nan]]).models == 1


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_accepts_what_the_steps_accept(p_values):
    # Adjusted p <= alpha exactly where the step-down procedure at level alpha rejects.
    corrected = holm(p_values)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for step, index in enumerate(order):
            if p_values[index] * (len(p_values) - step) > alpha:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(corrected) if p <= alpha} == rejected


def test_holm_of_an_example_and_of_undefined_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.array_equal(holm([0.02, np.nan, 0.5]), [0.04, np.nan, 0.5], equal_nan=True)
    assert holm([]).shape == (0,)
