import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from micraframe import statistics
from micraframe.statistics import (
    bootstrap,
    bootstrap_difference,
    bootstrap_function,
    compare,
    f_test,
    holm,
    least_p,
    randomisation_test,
)


def test_the_interval_is_the_one_of_the_normal_law_for_many_values():
    values = np.random.default_rng(0).normal(3, 2, 2000)
    mean, low, high = bootstrap(values, seed=1)
    error = values.std() / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - 1.96 * error, abs=0.05 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.05 * error)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        _, low, high = bootstrap(random.normal(size=50), seed, resamples=400, level=0.9)
        hits += low <= 0 <= high
    assert stats.binomtest(hits, 200, 0.9).pvalue > 0.001


def test_nan_is_left_out_and_a_seed_fixes_all():
    values = [1.0, np.nan, 2.0, 4.0, np.nan]
    assert bootstrap(values, 7) == bootstrap([1, 2, 4], 7)
    values = np.random.default_rng(1).normal(size=9)
    assert bootstrap(values, 7) != bootstrap(values, 8)


def test_too_little_has_no_interval():
    assert np.isnan(bootstrap([], 0)).all()
    assert np.isnan(bootstrap([np.nan], 0)).all()
    assert bootstrap([2.0, np.nan], 0).mean == 2
    assert np.isnan(bootstrap([2.0, np.nan], 0)[1:]).all()
    assert bootstrap([2.0, 2.0], 0) == (2, 2, 2)


def test_repeated_values_of_a_cluster_say_nothing_new():
    values = np.random.default_rng(0).normal(size=40)
    once = bootstrap(values, 3)
    again = bootstrap(np.repeat(values, 5), 3, clusters=list(np.repeat(np.arange(40), 5)))
    assert again == pytest.approx(once)
    naive = bootstrap(np.repeat(values, 5), 3)
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_clusters_weigh_by_their_defined_values():
    values, clusters = [1, 1, 1, np.nan, 5, np.nan], ["a", "a", "a", "a", "b", "c"]
    mean, low, high = bootstrap(values, 0, clusters=clusters)
    assert (mean, low, high) == (2, 1, 5)
    with pytest.raises(ValueError, match="cluster of each of 6 values, got 5"):
        bootstrap(values, 0, clusters=clusters[1:])


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_small_test_takes_every_exchange(pairs):
    a, b = np.array(pairs, float).T
    found = randomisation_test(a, b, seed=0)
    seen = [abs(np.mean(np.array(signs) * (a - b))) for signs in itertools.product((1, -1), repeat=len(a))]
    assert found.p == pytest.approx(np.mean(np.array(seen) >= found.statistic - 1e-9))


def test_p_is_never_zero():
    a, b = np.zeros(50) + np.arange(50) * 1e-3, np.ones(50)
    assert randomisation_test(a, b, 0, resamples=999).p == 1 / 1000
    assert f_test([a, b, a + 2], 0, resamples=999).p == 1 / 1000


def test_large_samples_agree_with_student():
    random = np.random.default_rng(3)
    a, b = random.normal(size=200), random.normal(0.2, 1, 200)
    assert randomisation_test(a, b, 0).p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)


def test_undefined_values_are_exchanged_as_such():
    a, b = [1, 2, np.nan, 4, 7], [2, 4, 9, np.nan, 1]
    observed = abs(np.nanmean(a) - np.nanmean(b))
    seen = [
        abs(np.nanmean(np.where(kept, a, b)) - np.nanmean(np.where(kept, b, a)))
        for kept in itertools.product((True, False), repeat=5)
    ]
    found = randomisation_test(a, b, 0)
    assert found.statistic == pytest.approx(observed)
    assert found.p == pytest.approx(np.mean(np.array(seen) >= observed - 1e-9))
    assert np.isnan(randomisation_test([1, np.nan], [2, np.nan], 0)).all()
    assert np.isnan(randomisation_test([1, 2], [np.nan, np.nan], 0)).all()
    with pytest.raises(ValueError, match=r"got lengths \[2, 3\]"):
        randomisation_test([1, 2], [1, 2, 3], 0)


def test_what_is_tested_is_the_difference_that_tables_show():
    # One is right about empty images, where nothing is to be measured; the other is charged for claiming something.
    a, b = np.r_[np.full(10, 0.5), np.full(10, np.nan)], np.r_[np.full(10, 0.51), np.zeros(10)]
    found = compare({"a": a, "b": b}, 0)
    assert found.pairs[0].difference == pytest.approx(0.5 - 0.255)
    assert found.pairs[0].p < 0.01
    mean, low, high = bootstrap_difference(a, b, 0)
    assert mean == pytest.approx(found.pairs[0].difference)
    assert 0 < low < mean < high


def test_a_difference_of_complete_pairs_is_the_mean_of_differences():
    a, b = np.random.default_rng(0).normal(size=(2, 60))
    assert bootstrap_difference(a, b, 4) == pytest.approx(bootstrap(a - b, 4))
    clusters = [place // 4 for place in range(60)]
    assert bootstrap_difference(a, b, 4, clusters=clusters) == pytest.approx(bootstrap(a - b, 4, clusters=clusters))
    assert np.isnan(bootstrap_difference([1, 2], [np.nan, np.nan], 0)).all()
    assert np.isnan(bootstrap_difference([1, 2], [3, 5], 0, clusters="xx")[1:]).all()


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.integers(0, 3)), min_size=2, max_size=9))
@settings(max_examples=40, deadline=None)
def test_clusters_are_exchanged_whole(rows):
    a, b, clusters = np.array(rows, float).T
    found = randomisation_test(a, b, 0, clusters=list(clusters))
    names = np.unique(clusters)
    if len(names) < 2:
        assert np.isnan(found.p)
        return
    seen = []
    for kept in itertools.product((True, False), repeat=len(names)):
        where = np.array(kept)[np.searchsorted(names, clusters)]
        seen.append(abs(np.mean(np.where(where, a, b)) - np.mean(np.where(where, b, a))))
    assert found.p == pytest.approx(np.mean(np.array(seen) >= found.statistic - 1e-9))


def test_clusters_of_one_image_change_nothing():
    random = np.random.default_rng(3)
    groups = list(random.normal(size=(3, 40)))
    alone = list(range(40))
    assert randomisation_test(*groups[:2], 0, clusters=alone) == randomisation_test(*groups[:2], 0)
    assert f_test(groups, 0, clusters=alone) == f_test(groups, 0)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_fields_that_differ_raise_no_false_alarms(missing):
    # Twelve fields of ten crops. Methods do better on one field than on another, each in its own way.
    random = np.random.default_rng(11)
    clusters = [field for field in range(12) for _ in range(10)]
    pairs = groups = naive = 0
    for _ in range(200):
        draws = np.repeat(random.normal(size=(3, 12)), 10, axis=1) + random.normal(size=(3, 120))
        draws[random.random(draws.shape) < missing] = np.nan
        pairs += randomisation_test(*draws[:2], 0, 199, clusters).p <= 0.05
        groups += f_test(list(draws), 0, 199, clusters).p <= 0.05
        naive += randomisation_test(*draws[:2], 0, 199).p <= 0.05
    assert stats.binomtest(pairs, 200, 0.05).pvalue > 0.001
    assert stats.binomtest(groups, 200, 0.05).pvalue > 0.001
    assert naive > 60


def test_f_of_clusters_is_that_of_their_means_where_all_are_alike():
    random = np.random.default_rng(5)
    groups = random.normal(size=(3, 30)) + random.normal(0, 3, 30)
    clusters = list(np.repeat(np.arange(10), 3))
    means = groups.reshape(3, 10, 3).mean(2)
    assert f_test(list(groups), 0, clusters=clusters).statistic == pytest.approx(f_test(list(means), 0).statistic)


@pytest.mark.parametrize(("groups", "images"), [(2, 12), (3, 4), (3, 20), (5, 30)])
def test_p_is_that_of_scipys_permutation_test(groups, images):
    random = np.random.default_rng(groups * images)
    table = random.normal(size=(groups, images)) + np.linspace(0, 0.5, groups)[:, None]

    def between(*parts, axis):
        means = np.stack([part.mean(axis) for part in parts])
        return ((means - means.mean(0)) ** 2).sum(0)

    peer = stats.permutation_test(
        list(table),
        between,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=10_000,
        rng=np.random.default_rng(0),
    )
    exact = math.factorial(groups) ** images <= 10_000
    tolerance = 1e-12 if exact else 4 * np.sqrt(peer.pvalue * (1 - peer.pvalue) / 10_000) + 1e-4
    assert f_test(list(table), 0).p == pytest.approx(peer.pvalue, abs=tolerance)
    if groups == 2:
        assert randomisation_test(*table, 0).p == pytest.approx(peer.pvalue, abs=tolerance)


def test_f_with_every_exchange_once_is_that_of_all_permutations():
    table = np.array([[1.0, 2, 5], [2, 7, 1], [9, 2, 3]])
    seen = []
    for orders in itertools.product(itertools.permutations(range(3)), repeat=3):
        exchanged = np.array([table[list(order), image] for image, order in enumerate(orders)]).T
        seen.append(((exchanged.mean(1) - table.mean()) ** 2).sum())
    observed = ((table.mean(1) - table.mean()) ** 2).sum()
    assert f_test(list(table), 0).p == pytest.approx(np.mean(np.array(seen) >= observed - 1e-9))


def test_f_removes_differences_between_images():
    random = np.random.default_rng(5)
    images = random.normal(0, 10, 30)
    groups = [images + random.normal(shift, 1, 30) for shift in (0, 0.5, 1)]
    table = np.array(groups)
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    wanted = (30 * ((table.mean(1) - table.mean()) ** 2).sum() / 2) / ((rest**2).sum() / (2 * 29))
    found = f_test(groups, 0)
    assert found.statistic == pytest.approx(wanted)
    assert found.p == pytest.approx(stats.f.sf(wanted, 2, 58), abs=0.01)


def test_two_groups_have_one_p():
    a, b = np.random.default_rng(6).normal(size=(2, 9))
    assert f_test([a, b], 0).p == randomisation_test(a, b, 0).p


def test_f_without_spread():
    assert np.isnan(f_test([[1, 1], [1, 1], [1, 1]], 0).statistic)
    assert f_test([[1, 1], [1, 1], [1, 1]], 0).p == 1
    assert f_test([[1, 1], [2, 2], [1, 1]], 0).statistic == np.inf
    with pytest.raises(ValueError, match="at least two"):
        f_test([[1, 2]], 0)


def test_false_alarms_are_as_rare_as_alpha():
    random = np.random.default_rng(8)
    draws = random.normal(size=(300, 3, 12))
    pairs = sum(randomisation_test(a, b, 0, resamples=199).p <= 0.05 for a, b, _ in draws)
    groups = sum(f_test(list(three), 0, resamples=199).p <= 0.05 for three in draws)
    assert stats.binomtest(pairs, 300, 0.05).pvalue > 0.001
    assert stats.binomtest(groups, 300, 0.05).pvalue > 0.001


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


def test_pairs_are_compared_only_after_all_groups():
    random = np.random.default_rng(9)
    same = {name: random.normal(size=30) for name in "abc"}
    assert compare(same, 0, resamples=999).pairs == ()
    one_off = same | {"c": same["c"] + 2}
    found = compare(one_off, 0, resamples=999)
    assert found.overall.p == 0.001
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.p_holm <= 0.05 for pair in found.pairs] == [False, True, True]
    assert found.pairs[1].difference == pytest.approx(one_off["a"].mean() - one_off["c"].mean())
    assert len(compare({"a": same["a"], "b": same["b"]}, 0, resamples=99).pairs) == 1


def test_the_paper_takes_ten_thousand():
    assert statistics.RESAMPLES == 10_000


@pytest.mark.parametrize("images", [2, 5, 11, 13, 14, 40])
def test_no_pair_can_differ_more_than_by_the_least_p(images):
    a = np.random.default_rng(images).random(images)
    assert randomisation_test(a, a - 5, 0).p == least_p(images)
    apart = randomisation_test(np.repeat(a, 3), np.repeat(a - 5, 3), 0, clusters=np.arange(3 * images) // 3)
    assert apart.p == least_p(images)


def pooled(sums):
    """Return the ratio of two sums, (..., 2) to (...)."""
    return sums[..., 0] / sums[..., 1]


def test_pooled_ratios_are_resampled_and_exchanged_as_their_sums():
    random = np.random.default_rng(0)
    total = random.integers(1, 30, size=40)
    a, b = (np.stack([random.binomial(total, share), total], axis=1) for share in (0.5, 0.8))
    mean, low, high = bootstrap(a, 0, reduce=pooled)
    assert mean == pytest.approx(a[:, 0].sum() / a[:, 1].sum())
    spread = [pooled(a[random.integers(0, 40, 40)].sum(axis=0)) for _ in range(2000)]
    assert (low, high) == pytest.approx(np.quantile(spread, [0.025, 0.975]), abs=0.01)
    found = bootstrap_difference(a, b, 0, reduce=pooled)
    assert found.mean == pytest.approx(mean - pooled(b.sum(axis=0)))
    assert found.low < found.mean < found.high < 0
    together = compare({"a": a, "b": b, "c": a}, 0, reduce=pooled)
    assert np.isnan(together.overall.statistic)
    assert together.overall.p < 0.01
    assert [pair.p_holm <= 0.05 for pair in together.pairs] == [True, False, True]
    # Means are ratios of sums, too.
    values = random.random(40)
    parts = np.stack([values, np.ones(40)], axis=1)
    assert bootstrap(parts, 3, reduce=pooled) == pytest.approx(bootstrap(values, 3))


def test_any_function_of_images_can_be_resampled():
    values = np.random.default_rng(1).normal(size=60)
    clusters = [place // 2 for place in range(60)]

    def numbers(images):
        return np.array([values[images].mean(), values[images].max()])

    mean, largest = bootstrap_function(numbers, clusters, 0, resamples=4000)
    assert mean == pytest.approx(bootstrap(values, 5, clusters=clusters), abs=0.02)
    assert largest.mean == largest.high == values.max()
    assert np.isnan(bootstrap_function(numbers, ["x"] * 60, 0, resamples=9)[0][1:]).all()
