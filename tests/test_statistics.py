import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from micraframe import statistics
from micraframe.statistics import (
    bootstrap_difference,
    bootstrap_mean,
    compare,
    f_test,
    holm,
    least_p,
    randomisation_test,
)


def test_the_interval_is_the_one_of_the_normal_law_for_many_values():
    values = np.random.default_rng(0).normal(3, 2, 2000)
    mean, low, high = bootstrap_mean(values, seed=1)
    error = values.std() / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - 1.96 * error, abs=0.05 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.05 * error)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        _, low, high = bootstrap_mean(random.normal(size=50), seed, resamples=400, level=0.9)
        hits += low <= 0 <= high
    assert stats.binomtest(hits, 200, 0.9).pvalue > 0.001


def test_nan_is_left_out_and_a_seed_fixes_all():
    values = [1.0, np.nan, 2.0, 4.0, np.nan]
    assert bootstrap_mean(values, 7) == bootstrap_mean([1, 2, 4], 7)
    values = np.random.default_rng(1).normal(size=9)
    assert bootstrap_mean(values, 7) != bootstrap_mean(values, 8)


def test_too_little_has_no_interval():
    assert np.isnan(bootstrap_mean([], 0)).all()
    assert np.isnan(bootstrap_mean([np.nan], 0)).all()
    assert bootstrap_mean([2.0, np.nan], 0).mean == 2
    assert np.isnan(bootstrap_mean([2.0, np.nan], 0)[1:]).all()
    assert bootstrap_mean([2.0, 2.0], 0) == (2, 2, 2)


def test_repeated_values_of_a_cluster_say_nothing_new():
    values = np.random.default_rng(0).normal(size=40)
    once = bootstrap_mean(values, 3)
    again = bootstrap_mean(np.repeat(values, 5), 3, clusters=list(np.repeat(np.arange(40), 5)))
    assert again == pytest.approx(once)
    naive = bootstrap_mean(np.repeat(values, 5), 3)
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_clusters_weigh_by_their_defined_values():
    values, clusters = [1, 1, 1, np.nan, 5, np.nan], ["a", "a", "a", "a", "b", "c"]
    mean, low, high = bootstrap_mean(values, 0, clusters=clusters)
    assert (mean, low, high) == (2, 1, 5)
    with pytest.raises(ValueError, match="6 values in 5 places"):
        bootstrap_mean(values, 0, clusters=clusters[1:])


small = st.lists(st.integers(-5, 5), min_size=2, max_size=4)


@given(small, small)
@settings(max_examples=40, deadline=None)
def test_a_small_test_takes_every_arrangement(a, b):
    found = randomisation_test(a, b, seed=0)
    pool, seen = np.array(a + b, float), []
    for chosen in itertools.combinations(range(len(pool)), len(a)):
        other = np.delete(pool, chosen)
        seen.append(abs(pool[list(chosen)].mean() - other.mean()))
    assert found.statistic == pytest.approx(abs(np.mean(a) - np.mean(b)))
    assert found.p == pytest.approx(np.mean(np.array(seen) >= found.statistic - 1e-9))


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_small_paired_test_takes_every_sign(pairs):
    a, b = np.array(pairs, float).T
    found = randomisation_test(a, b, seed=0, paired=True)
    seen = [abs(np.mean(np.array(signs) * (a - b))) for signs in itertools.product((1, -1), repeat=len(a))]
    assert found.p == pytest.approx(np.mean(np.array(seen) >= found.statistic - 1e-9))


def test_p_is_never_zero():
    a, b = np.zeros(50) + np.arange(50) * 1e-3, np.ones(50)
    assert randomisation_test(a, b, 0, resamples=999).p == 1 / 1000
    assert randomisation_test(a, b, 0, paired=True, resamples=999).p == 1 / 1000
    assert f_test([a, b, a + 2], 0, resamples=999).p == 1 / 1000


def test_large_samples_agree_with_student():
    random = np.random.default_rng(3)
    a, b = random.normal(size=200), random.normal(0.2, 1, 200)
    assert randomisation_test(a, b, 0).p == pytest.approx(stats.ttest_ind(a, b).pvalue, abs=0.01)
    assert randomisation_test(a, b, 0, paired=True).p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)


def test_undefined_values_are_exchanged_as_such():
    a, b = [1, 2, np.nan, 4, 7], [2, 4, 9, np.nan, 1]
    observed = abs(np.nanmean(a) - np.nanmean(b))
    seen = [
        abs(np.nanmean(np.where(kept, a, b)) - np.nanmean(np.where(kept, b, a)))
        for kept in itertools.product((True, False), repeat=5)
    ]
    found = randomisation_test(a, b, 0, paired=True)
    assert found.statistic == pytest.approx(observed)
    assert found.p == pytest.approx(np.mean(np.array(seen) >= observed - 1e-9))
    assert randomisation_test(a, b, 0) == randomisation_test([1, 2, 4, 7], [2, 4, 9, 1], 0)
    assert np.isnan(randomisation_test([1], [2, 3], 0)).all()
    assert np.isnan(randomisation_test([1, np.nan], [2, np.nan], 0, paired=True)).all()
    assert np.isnan(randomisation_test([1, 2], [np.nan, np.nan], 0, paired=True)).all()
    with pytest.raises(ValueError, match=r"lengths \[2, 3\]"):
        randomisation_test([1, 2], [1, 2, 3], 0, paired=True)


def test_what_is_tested_is_the_difference_that_tables_show():
    # One is right about empty images, where nothing is to be measured; the other is charged for claiming something.
    a, b = np.r_[np.full(10, 0.5), np.full(10, np.nan)], np.r_[np.full(10, 0.51), np.zeros(10)]
    found = compare({"a": a, "b": b}, 0, paired=True)
    assert found.pairs[0].difference == pytest.approx(0.5 - 0.255)
    assert found.pairs[0].p < 0.01
    mean, low, high = bootstrap_difference(a, b, 0)
    assert mean == pytest.approx(found.pairs[0].difference)
    assert 0 < low < mean < high


def test_a_difference_of_complete_pairs_is_the_mean_of_differences():
    a, b = np.random.default_rng(0).normal(size=(2, 60))
    assert bootstrap_difference(a, b, 4) == pytest.approx(bootstrap_mean(a - b, 4))
    clusters = [place // 4 for place in range(60)]
    assert bootstrap_difference(a, b, 4, clusters=clusters) == pytest.approx(
        bootstrap_mean(a - b, 4, clusters=clusters)
    )
    assert np.isnan(bootstrap_difference([1, 2], [np.nan, np.nan], 0)).all()
    assert np.isnan(bootstrap_difference([1, 2], [3, 5], 0, clusters="xx")[1:]).all()


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.integers(0, 3)), min_size=2, max_size=9))
@settings(max_examples=40, deadline=None)
def test_clusters_are_exchanged_whole(rows):
    a, b, clusters = np.array(rows, float).T
    found = randomisation_test(a, b, 0, paired=True, clusters=list(clusters))
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
    assert randomisation_test(*groups[:2], 0, True, clusters=alone) == randomisation_test(*groups[:2], 0, True)
    assert f_test(groups, 0, True, clusters=alone) == f_test(groups, 0, True)
    with pytest.raises(ValueError, match="paired groups only"):
        randomisation_test(*groups[:2], 0, clusters=alone)
    with pytest.raises(ValueError, match="paired groups only"):
        f_test(groups, 0, clusters=alone)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_fields_that_differ_raise_no_false_alarms(missing):
    # Twelve fields of ten crops. Methods do better on one field than on another, each in its own way.
    random = np.random.default_rng(11)
    clusters = [field for field in range(12) for _ in range(10)]
    pairs = groups = naive = 0
    for _ in range(200):
        draws = np.repeat(random.normal(size=(3, 12)), 10, axis=1) + random.normal(size=(3, 120))
        draws[random.random(draws.shape) < missing] = np.nan
        pairs += randomisation_test(*draws[:2], 0, True, 199, clusters).p <= 0.05
        groups += f_test(list(draws), 0, True, 199, clusters).p <= 0.05
        naive += randomisation_test(*draws[:2], 0, True, 199).p <= 0.05
    assert stats.binomtest(pairs, 200, 0.05).pvalue > 0.001
    assert stats.binomtest(groups, 200, 0.05).pvalue > 0.001
    assert naive > 60


def test_f_of_clusters_is_that_of_their_means_where_all_are_alike():
    random = np.random.default_rng(5)
    groups = random.normal(size=(3, 30)) + random.normal(0, 3, 30)
    clusters = list(np.repeat(np.arange(10), 3))
    means = groups.reshape(3, 10, 3).mean(2)
    assert f_test(list(groups), 0, True, clusters=clusters).statistic == pytest.approx(
        f_test(list(means), 0, True).statistic
    )


def test_f_is_that_of_scipy_and_so_is_p():
    random = np.random.default_rng(4)
    groups = [random.normal(mean, 1, size) for mean, size in ((0, 40), (0.3, 30), (0.4, 50))]
    found, peer = f_test(groups, 0), stats.f_oneway(*groups)
    assert found.statistic == pytest.approx(peer.statistic)
    assert found.p == pytest.approx(peer.pvalue, abs=0.015)


def test_paired_f_takes_the_images_out():
    random = np.random.default_rng(5)
    images = random.normal(0, 10, 30)
    groups = [images + random.normal(shift, 1, 30) for shift in (0, 0.5, 1)]
    table = np.array(groups)
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    wanted = (30 * ((table.mean(1) - table.mean()) ** 2).sum() / 2) / ((rest**2).sum() / (2 * 29))
    found = f_test(groups, 0, paired=True)
    assert found.statistic == pytest.approx(wanted)
    assert found.p == pytest.approx(stats.f.sf(wanted, 2, 58), abs=0.01)
    assert f_test(groups, 0).p > 0.5


def test_two_groups_have_one_p():
    random = np.random.default_rng(6)
    a, b = random.normal(size=9), random.normal(1, 1, 8)
    assert f_test([a, b], 0).p == pytest.approx(randomisation_test(a, b, 0).p, abs=0.02)


def test_f_without_spread():
    assert np.isnan(f_test([[1, 1], [1, 1], [1, 1]], 0).statistic)
    assert f_test([[1, 1], [1, 1], [1, 1]], 0).p == 1
    assert f_test([[1, 1], [2, 2], [1, 1]], 0).statistic == np.inf
    with pytest.raises(ValueError, match="at least two"):
        f_test([[1, 2]], 0)


@pytest.mark.parametrize("paired", [False, True])
def test_false_alarms_are_as_rare_as_alpha(paired):
    random = np.random.default_rng(8)
    draws = random.normal(size=(300, 3, 12))
    pairs = sum(randomisation_test(a, b, 0, paired, resamples=199).p <= 0.05 for a, b, _ in draws)
    groups = sum(f_test(list(three), 0, paired, resamples=199).p <= 0.05 for three in draws)
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
    assert randomisation_test(a, a - 5, 0, paired=True).p == least_p(images)
    apart = randomisation_test(np.repeat(a, 3), np.repeat(a - 5, 3), 0, True, clusters=np.arange(3 * images) // 3)
    assert apart.p == least_p(images)
