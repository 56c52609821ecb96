import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from micraframe.metrics.association import ious, match_by_distance, match_by_iou, overlaps
from micraframe.metrics.objects import CURVE, FAILURES, area_under, f1_curve, failures
from micraframe.registry import build
from micraframe.types import Prediction, Sample

labels = hnp.arrays(np.int32, (6, 7), elements=st.sampled_from([0, 1, 2, 5, 9]))


def measure(truth, predicted=None, masks=None, ignore=None, **params):
    count = len(truth)
    prediction = Prediction(np.zeros(count, np.float32), np.zeros(count, bool), masks=masks, instances=predicted)
    sample = Sample("a", np.zeros((1, *truth.shape[1:]), np.float32), instances=truth, ignore=ignore)
    return build("metric", "objects", **params).measure(prediction, sample)


@given(labels, labels)
def test_ious_are_those_of_every_pair(truth, predicted):
    found = ious(overlaps(truth, predicted))
    numbers = [[number for number in np.unique(side) if number] for side in (truth, predicted)]
    assert found.shape == tuple(map(len, numbers))
    for (i, one), (j, other) in itertools.product(*map(enumerate, numbers)):
        a, b = truth == one, predicted == other
        assert found[i, j] == pytest.approx((a & b).sum() / (a | b).sum())


matrices = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 4), st.integers(0, 4)), elements=st.integers(0, 10).map(lambda n: n / 10)
)


def best_by_trying_all(allowed, value):
    """Return the greatest number of pairs, and the greatest sum of values among the associations of that many."""
    n, m = allowed.shape
    best = (0, 0.0)
    for columns in itertools.permutations(range(m + n), n):
        pairs = [(row, column) for row, column in enumerate(columns) if column < m and allowed[row, column]]
        best = max(best, (len(pairs), sum(value[pair] for pair in pairs)))
    return best


@given(matrices, st.integers(1, 10).map(lambda n: n / 10))
@settings(max_examples=50, deadline=None)
def test_the_association_is_the_best_of_all(iou, least):
    pairs = match_by_iou(iou, least)
    number, total = best_by_trying_all(iou >= least, iou)
    assert len(pairs) == number
    assert sum(iou[i, j] for i, j in pairs) == pytest.approx(total)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)


@given(matrices, st.integers(1, 10).map(lambda n: n / 10))
def test_there_are_as_many_pairs_as_stardist_has(iou, least):
    # stardist.matching (Schmidt et al. 2018) weighs pairs that do not count, too, and then drops them.
    rows, columns = linear_sum_assignment(-(iou >= least).astype(float) - iou / (2 * max(1, min(iou.shape))))
    assert len(match_by_iou(iou, least)) == np.count_nonzero(iou[rows, columns] >= least)


points = hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(2)), elements=st.integers(0, 6).map(float))


@given(points, points, st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_points_are_associated_as_the_best_of_all(truth, predicted, most):
    distance = np.array([[np.hypot(*(a - b)) for b in predicted] for a in truth]).reshape(len(truth), len(predicted))
    pairs = match_by_distance(truth, predicted, most)
    number, total = best_by_trying_all(distance <= most, -distance)
    assert len(pairs) == number
    assert -sum(distance[i, j] for i, j in pairs) == pytest.approx(total)


@given(labels, labels)
@settings(deadline=None)
def test_f1_falls_with_the_iou_and_its_area_is_its_mean(truth, predicted):
    iou = ious(overlaps(truth, predicted))
    curve = np.array(f1_curve(iou, CURVE))
    if not sum(iou.shape):
        assert np.isnan(area_under(curve))
        return
    fine = np.linspace(CURVE[0], CURVE[-1], 4001)
    assert (np.diff(curve) <= 0).all()
    assert area_under(curve) == pytest.approx(np.interp(fine, CURVE, curve).mean(), abs=1e-3)


@given(labels, labels)
@settings(deadline=None)
def test_by_default_the_whole_curve_is_measured(truth, predicted):
    found = measure(truth[None], predicted[None])
    names = [f"object_f1@{least:g}" for least in CURVE]
    assert names[:3] + names[-1:] == ["object_f1@0.05", "object_f1@0.1", "object_f1@0.15", "object_f1@0.95"]
    assert list(found)[: len(CURVE)] == names
    wanted = f1_curve(ious(overlaps(truth, predicted)), CURVE)
    assert [found[name][0] for name in names] == pytest.approx(wanted, nan_ok=True)
    chosen = measure(truth[None], predicted[None], iou=[0.42, 0.5])
    assert [name for name in chosen if "@" in name] == ["object_f1@0.42", "object_f1@0.5"]
    wanted = f1_curve(ious(overlaps(truth, predicted)), [0.42, 0.5])
    assert [chosen[name][0] for name in ("object_f1@0.42", "object_f1@0.5")] == pytest.approx(wanted, nan_ok=True)


def test_perfect_objects_and_none():
    truth = np.zeros((3, 8, 8), np.int32)
    truth[0, :3, :3], truth[0, 5:, 5:] = 1, 4
    truth[1, :3, :3] = 1
    predicted = np.zeros_like(truth)
    predicted[0, :3, :3], predicted[0, 5:, 5:] = 2, 1
    found = measure(truth, predicted)
    assert found["object_f1@0.5"] == pytest.approx([1, 0, np.nan], nan_ok=True)
    assert found["object_auc"] == pytest.approx([1, 0, np.nan], nan_ok=True)
    assert found["object_missed"] == pytest.approx([0, 1, np.nan], nan_ok=True)
    assert found["object_extra"] == pytest.approx([0, np.nan, np.nan], nan_ok=True)
    assert all(value.dtype == np.float32 for value in found.values())


def test_the_four_ways_to_fail():
    def boxes(*spans):
        row = np.zeros((3, 40), np.int32)
        for number, (start, stop) in enumerate(spans, 1):
            row[:, start:stop] = number
        return row

    truth = boxes((0, 8), (10, 14), (14, 18), (20, 24), (30, 34))
    predicted = boxes((0, 4), (4, 8), (10, 18), (20, 24), (36, 38))
    assert failures(overlaps(truth, predicted)) == {"missed": 0.2, "extra": 0.2, "split": 0.2, "merged": 0.2}
    found = measure(truth[None], predicted[None], iou=[0.5, 0.9])
    # At 0.5 a half of the split one counts, and one of the two that are merged.
    assert found["object_f1@0.5"] == pytest.approx([0.6])
    assert found["object_f1@0.9"] == pytest.approx([0.2])


def test_components_stand_for_instances_and_ignored_pixels_for_nothing():
    truth = np.zeros((1, 9, 9), np.int32)
    truth[0, :3, :3], truth[0, 6:, 6:] = 1, 2
    assert measure(truth, masks=truth > 0)["object_auc"] == [1]
    ignore = np.zeros((9, 9), bool)
    ignore[5:] = True
    one = np.where(ignore, 0, truth)
    assert measure(truth, one)["object_f1@0.5"] == pytest.approx([2 / 3])
    assert measure(truth, one, ignore=ignore)["object_f1@0.5"] == [1]


def test_without_objects_all_is_undefined():
    found = measure(np.ones((2, 4, 4), np.int32), iou=[0.5, 0.75])
    assert list(found) == ["object_f1@0.5", "object_f1@0.75", "object_auc", *(f"object_{name}" for name in FAILURES)]
    assert all(np.isnan(value).all() for value in found.values())
