import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from micraframe.metrics.association import match_by_distance, match_by_score
from micraframe.metrics.detection import pooled_curves
from micraframe.metrics.precision_recall import area_under_roc, curve_of
from micraframe.metrics.reduction import stack, summarise
from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores

decided = st.lists(st.tuples(st.booleans(), st.integers(0, 5).map(float)), min_size=1)
places = hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(2)), elements=st.integers(0, 6).map(float))
scored = hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(3)), elements=st.integers(0, 6).map(float))


@given(decided, st.integers(0, 3))
def test_the_curve_of_decided_detections_is_that_of_scikit_learn(pairs, missed):
    hit, scores = np.array([one for one, _ in pairs]), np.array([score for _, score in pairs], np.float32)
    found = curve_of(hit, scores, int(hit.sum()) + missed)
    if not hit.sum() + missed:
        assert np.isnan(found.area)
        assert np.isnan(found.recall).all()
        return
    if not hit.any():
        assert found.area == 0
        assert (found.recall == 0).all()
        return
    # scikit-learn does not know of missed positives, orders thresholds upwards, and adds an end point.
    share = hit.sum() / (hit.sum() + missed)
    precision, recall, thresholds = precision_recall_curve(hit, scores)
    assert found.thresholds.tolist() == thresholds[::-1].tolist()
    np.testing.assert_allclose(found.precision, precision[-2::-1])
    np.testing.assert_allclose(found.recall, recall[-2::-1] * share)
    assert found.area == pytest.approx(average_precision_score(hit, scores) * share)


def slowly(truth, predicted, distance):
    """Return which predicted points are hits: the best one of all that are left takes the nearest that is free."""
    hits, free, left = set(), set(range(len(truth))), set(range(len(predicted)))
    while pairs := [
        (-predicted[j, 2], np.hypot(*(truth[i] - predicted[j, :2])), i, j)
        for i in free
        for j in left
        if np.hypot(*(truth[i] - predicted[j, :2])) <= distance
    ]:
        _, _, i, j = min(pairs)
        free.remove(i)
        left.remove(j)
        hits.add(j)
    return hits


def distinct(predicted):
    """Return the points with scores of which no two are equal, so that there is one association only."""
    return np.column_stack([predicted[:, :2], np.arange(len(predicted))[::-1]]).astype(np.float32)


@given(places, scored, st.integers(0, 4))
@settings(deadline=None)
def test_the_best_point_takes_the_nearest_that_is_free(truth, predicted, distance):
    truth = truth + np.arange(len(truth), dtype=np.float32)[:, None] * np.float32(1e-3)  # none is as near as another
    for points in (predicted, distinct(predicted)):
        hit = match_by_score(truth, points, distance)
        assert hit.sum() <= len(match_by_distance(truth, points[:, :2], distance))
    assert set(np.flatnonzero(hit).tolist()) == slowly(truth, points, distance)


@given(places, scored, st.integers(0, 4), st.integers(0, 5))
def test_a_lower_threshold_changes_nothing_above_it(truth, predicted, distance, kept):
    predicted = distinct(predicted)
    hit = match_by_score(truth, predicted, distance)
    assert match_by_score(truth, predicted[:kept], distance).tolist() == hit[:kept].tolist()


def measured(images, distance):
    """Return the metric, and its statistics of images of one class: true points (N, 2), and predicted ones (M, 3)."""
    metric = build("metric", "detection", distance=distance)
    statistics = [
        metric.measure(
            Prediction(Scores.without_maps(np.zeros(1, np.float32)), np.zeros(1, bool), points=(predicted,)),
            Sample("a", np.zeros((1, 30, 20), np.float32), points=(truth,)),
        )
        for truth, predicted in images
    ]
    return metric, stack(statistics, 1)


@given(st.lists(st.tuples(places, scored), min_size=1, max_size=4), st.integers(0, 4))
@settings(deadline=None)
def test_every_point_of_the_curve_is_counted_from_all_images(images, distance):
    truth, predicted = [one for one, _ in images], [other for _, other in images]
    metric, statistics = measured(images, distance)
    (found,) = pooled_curves(statistics)
    areas = {each.column.name: each.per_class for each in summarise(metric, statistics)}
    assert areas["detection_average_precision_pooled"] == pytest.approx([found.area], nan_ok=True)
    true = sum(map(len, truth))
    for threshold, precision, recall in zip(*found[:3], strict=True):
        above = [points[points[:, 2] >= threshold] for points in predicted]
        hits = sum(int(match_by_score(*pair, distance).sum()) for pair in zip(truth, above, strict=True))
        assert precision == hits / sum(map(len, above))
        assert recall == pytest.approx(hits / true if true else np.nan, nan_ok=True)
    assert sorted({float(score) for points in predicted for score in points[:, 2]}, reverse=True) == (
        found.thresholds.tolist()
    )
    assert np.isnan(found.area) == (true == 0)


def test_each_image_has_an_area_of_its_own():
    def measure(predicted, ignore=None, **more):
        truth = np.array([[5, 5], [20, 10]], np.float32), np.zeros((0, 2), np.float32)
        scores = Scores.without_maps(np.zeros(2, np.float32))
        prediction = Prediction(scores, np.zeros(2, bool), points=predicted, **more)
        sample = Sample("a", np.zeros((1, 30, 20), np.float32), points=truth, ignore=ignore)
        return build("metric", "detection", distance=3).measure(prediction, sample)["detection_average_precision"]

    found = np.array([[5, 6, 0.9], [1, 15, 0.8], [21, 10, 0.7]], np.float32)
    assert measure((found, found)) == pytest.approx([1 / 2 + 1 / 2 * 2 / 3, np.nan], nan_ok=True)
    assert measure((found[:0], found)) == pytest.approx([0, np.nan], nan_ok=True)
    ignore = np.zeros((30, 20), bool)
    ignore[:3] = True
    assert measure((found, found), ignore) == pytest.approx([1, np.nan], nan_ok=True)
    assert np.isnan(measure(None, masks=np.ones((2, 30, 20), bool))).all(), "objects without scores have no order"


@given(st.lists(st.tuples(places, scored), min_size=1, max_size=4), st.integers(0, 4))
@settings(deadline=None)
def test_pooled_numbers_count_the_points_of_all_images(images, distance):
    metric, statistics = measured(images, distance)
    found = {each.column.name: float(each.per_class[0]) for each in summarise(metric, statistics)}
    matched = sum(len(match_by_distance(truth, points[:, :2], distance)) for truth, points in images)
    true, predicted = (sum(len(each[side]) for each in images) for side in (0, 1))
    expected = {"precision": (matched, predicted), "recall": (matched, true), "f1": (2 * matched, true + predicted)}
    for name, (numerator, denominator) in expected.items():
        value = numerator / denominator if denominator else np.nan
        assert found[f"detection_{name}_pooled"] == pytest.approx(value, nan_ok=True)


def test_detections_without_scores_have_no_pooled_area():
    metric = build("metric", "detection", distance=3)
    masks = np.zeros((1, 30, 20), bool)
    masks[0, 4:7, 4:7] = True
    prediction = Prediction(Scores.without_maps(np.zeros(1, np.float32)), np.zeros(1, bool), masks)
    sample = Sample("a", np.zeros((1, 30, 20), np.float32), points=(np.array([[5, 5]], np.float32),))
    found = {each.column.name: each for each in summarise(metric, stack([metric.measure(prediction, sample)], 1))}
    assert found["detection_f1_pooled"].overall == 1
    assert np.isnan(found["detection_average_precision_pooled"].overall)


@given(hnp.arrays(np.bool_, (4, 5)), hnp.arrays(np.float64, (4, 5), elements=st.integers(0, 5).map(float)))
def test_the_area_under_the_roc_curve_is_that_of_scikit_learn(positive, values):
    expected = roc_auc_score(positive.ravel(), values.ravel()) if 0 < positive.sum() < positive.size else 0.5
    assert area_under_roc(positive, values) == pytest.approx(expected)
