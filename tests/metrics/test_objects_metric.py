import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from micraframe.metrics.association import f1_score, ious, match_by_distance, match_by_iou, overlaps
from micraframe.metrics.objects import CURVE, FAILURES, area_under, failures
from micraframe.metrics.reduction import stack, summarise
from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores

labels = hnp.arrays(np.int32, (6, 7), elements=st.sampled_from([0, 1, 2, 5, 9]))


def measure(truth, predicted=None, masks=None, ignore=None, **params):
    count = len(truth)
    scores = Scores.without_maps(np.zeros(count, np.float32))
    prediction = Prediction(scores, np.zeros(count, bool), masks=masks, instances=predicted)
    sample = Sample("a", np.zeros((1, *truth.shape[1:]), np.float32), instances=truth, ignore=ignore)
    return build("metric", "objects", **params).measure(prediction, sample)


def f1_curve(truth, predicted, least):
    iou = ious(overlaps(truth, predicted))
    return [f1_score(len(match_by_iou(iou, one)), *iou.shape) for one in least]


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
    curve = np.array(f1_curve(truth, predicted, CURVE))
    if not (truth.any() or predicted.any()):
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
    expected = f1_curve(truth, predicted, CURVE)
    assert [found[name][0] for name in names] == pytest.approx(expected, nan_ok=True)
    chosen = measure(truth[None], predicted[None], iou=[0.42, 0.5])
    assert [name for name in chosen if "_f1@" in name] == ["object_f1@0.42", "object_f1@0.5"]
    expected = f1_curve(truth, predicted, [0.42, 0.5])
    assert [chosen[name][0] for name in ("object_f1@0.42", "object_f1@0.5")] == pytest.approx(expected, nan_ok=True)


def test_perfect_objects_and_none():
    truth = np.zeros((3, 8, 8), np.int32)
    truth[0, :3, :3], truth[0, 5:, 5:] = 1, 4
    truth[1, :3, :3] = 1
    predicted = np.zeros_like(truth)
    predicted[0, :3, :3], predicted[0, 5:, 5:] = 2, 1
    found = measure(truth, predicted)
    assert found["object_f1@0.5"] == pytest.approx([1, 0, np.nan], nan_ok=True)
    assert found["object_tp_area"] == pytest.approx([2, 0, 0])
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
    assert failures(overlaps(truth, predicted)) == dict.fromkeys(FAILURES, 0.2)
    found = measure(truth[None], predicted[None], iou=[0.5, 0.9])
    # At 0.5 a half of the split one counts, and one of the two that are merged.
    assert found["object_f1@0.5"] == pytest.approx([0.6])
    assert found["object_f1@0.9"] == pytest.approx([0.2])


def test_components_stand_for_instances_and_ignored_pixels_for_nothing():
    truth = np.zeros((1, 9, 9), np.int32)
    truth[0, :3, :3], truth[0, 6:, 6:] = 1, 2
    assert measure(truth, masks=truth > 0)["object_tp_area"] == pytest.approx([2])
    ignore = np.zeros((9, 9), bool)
    ignore[5:] = True
    one = np.where(ignore, 0, truth)
    assert measure(truth, one)["object_f1@0.5"] == pytest.approx([2 / 3])
    assert measure(truth, one, ignore=ignore)["object_f1@0.5"] == [1]


def test_without_objects_everything_is_undefined():
    found = measure(np.ones((2, 4, 4), np.int32), iou=[0.5, 0.75])
    defined = measure(np.ones((2, 4, 4), np.int32), np.ones((2, 4, 4), np.int32), iou=[0.5, 0.75])
    assert list(found) == list(defined)
    assert list(found)[:6] == ["object_f1@0.5", "object_f1@0.75", *FAILURES]
    assert all(np.isnan(value).all() and value.shape == (2,) for value in found.values())


def stardist_matching(images, threshold):
    """Return TP, FP, FN and the sum of the matched IoUs over images, as stardist.matching defines them."""
    tp = fp = fn = 0
    total = 0.0
    for truth, predicted in images:
        ones, others = ([labels == number for number in np.unique(labels[labels > 0])] for labels in (truth, predicted))
        scores = np.array([[(a & b).sum() / (a | b).sum() for b in others] for a in ones]).reshape(
            len(ones), len(others)
        )
        rows, columns = linear_sum_assignment(
            -(scores >= threshold).astype(float) - scores / (2 * max(1, min(scores.shape)))
        )
        matched = scores[rows, columns][scores[rows, columns] >= threshold]
        tp, fp, fn = tp + len(matched), fp + len(others) - len(matched), fn + len(ones) - len(matched)
        total += matched.sum()
    return tp, fp, fn, total


@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=4))
@settings(deadline=None)
def test_pooled_objects_and_panoptic_quality_are_those_of_stardist(images):
    metric = build("metric", "objects", iou=[0.3, 0.5])
    statistics = stack([measure(one[None], other[None], iou=[0.3, 0.5]) for one, other in images], 1)
    found = {reduced.column.name: float(reduced.per_class[0]) for reduced in summarise(metric, statistics)}
    for least in (0.3, 0.5):
        tp, fp, fn, total = stardist_matching(images, least)
        assert statistics[f"object_tp@{least:g}"].sum() == tp
        assert statistics["object_predicted"].sum() - tp == fp
        assert statistics["object_true"].sum() - tp == fn
        expected = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else np.nan
        assert found[f"object_f1_pooled@{least:g}"] == pytest.approx(expected, nan_ok=True)
    segmentation = total / tp if tp else np.nan
    assert found["segmentation_quality"] == pytest.approx(segmentation, nan_ok=True)
    quality = total / (tp + fp / 2 + fn / 2) if tp + fp + fn else np.nan
    assert found["panoptic_quality"] == pytest.approx(quality, nan_ok=True)
    if tp:
        assert quality == pytest.approx(segmentation * found["object_f1_pooled@0.5"])


@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=4))
@settings(deadline=None)
def test_the_area_is_that_under_f1_of_pooled_counts(images):
    metric = build("metric", "objects")
    statistics = stack([measure(one[None], other[None]) for one, other in images], 1)
    found = {reduced.column.name: reduced.overall for reduced in summarise(metric, statistics)}
    curve = [found[f"object_f1_pooled@{least:g}"] for least in CURVE]
    assert found["object_auc"] == pytest.approx(area_under(curve), nan_ok=True)


def test_an_image_counts_by_its_objects():
    crowd = np.arange(1, 10, dtype=np.int32).repeat(4).reshape(1, 6, 6)
    lonely = np.zeros_like(crowd)
    lonely[0, 0, 0] = 1
    statistics = stack([measure(crowd, crowd), measure(lonely, np.zeros_like(lonely))], 1)
    found = {reduced.column.name: reduced.overall for reduced in summarise(build("metric", "objects"), statistics)}
    # TP 9, FP 0, FN 1 at every IoU; the mean over images would be (1 + 0) / 2.
    assert found["object_auc"] == pytest.approx(18 / 19)
    assert found["object_f1@0.5"] == 0.5


def test_a_fragment_splits_an_object_from_a_tenth_of_it():
    truth = np.zeros((10, 12), np.int32)
    truth[:, :10] = 3

    def found(pixels, rest=True):
        predicted = np.zeros_like(truth)
        predicted[1:, :10] = rest
        predicted[0, :pixels] = 2
        return failures(overlaps(truth, predicted))

    assert found(1) == {"object_missed": 0, "object_extra": 0.5, "object_split": 0, "object_merged": 0}
    assert found(9) == {"object_missed": 0, "object_extra": 0.5, "object_split": 0, "object_merged": 0}
    assert found(10) == {"object_missed": 0, "object_extra": 0, "object_split": 1, "object_merged": 0}
    assert found(1, rest=False) == {"object_missed": 1, "object_extra": 1, "object_split": 0, "object_merged": 0}
    # What is small itself can be merged, however large the object that swallows it.
    small = truth.copy()
    small[0, 0] = 7
    swallowed = failures(overlaps(small, truth))
    assert swallowed == {"object_missed": 0, "object_extra": 0, "object_split": 0, "object_merged": 1}


def test_directions_of_the_columns():
    columns = build("metric", "objects", iou=[0.5]).columns()
    assert {column.name for column in columns if not column.higher_is_better} == set(FAILURES)
    assert {column.name for column in columns if not column.is_mean} == {
        "object_auc",
        "object_f1_pooled@0.5",
        "segmentation_quality",
        "panoptic_quality",
    }
