import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from micraframe.metrics.reduction import stack, summarise
from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores


def measure(truth, values, classes, ignore=None, **params):
    values = np.array(values, np.float32)
    scores = Scores(np.zeros(len(truth), np.float32), classes, values)
    prediction = Prediction(scores, np.zeros(len(truth), bool))
    sample = Sample("a", np.zeros((1, *truth.shape[1:]), np.float32), masks=truth, ignore=ignore)
    return build("metric", "localisation", **params).measure(prediction, sample)


def test_a_class_in_the_truth_that_was_not_explained_is_a_miss():
    truth = np.zeros((3, 8, 9), bool)
    truth[:2, 2:5, 3:6] = True
    values = np.random.default_rng(0).random((2, 8, 9))
    values[0, 3, 4] = 1
    found = measure(truth, values, (1, 2))
    expected = average_precision_score(truth[1].ravel(), values[0].ravel())
    assert found["pxap"] == pytest.approx([9 / 72, expected, np.nan], nan_ok=True)
    assert found["pointing"] == pytest.approx([0, 1, np.nan], nan_ok=True)
    nothing = measure(truth, np.zeros((0, 8, 9)), ())
    assert nothing["pxap"] == pytest.approx([9 / 72, 9 / 72, np.nan], nan_ok=True)
    ignore = np.zeros((8, 9), bool)
    ignore[:, :4] = True
    assert measure(truth, values, (1, 2), ignore=ignore)["pxap"][0] == pytest.approx(6 / 40)
    assert np.isnan(measure(truth, values, (1, 2), ignore=truth[0])["pxap"]).all()


def test_leaving_the_worst_images_unexplained_does_not_raise_the_mean():
    truth = np.zeros((1, 10, 10), bool)
    truth[0, 4, 4] = True
    hit = measure(truth, truth, (0,))
    missed = measure(truth, np.zeros((0, 10, 10)), ())
    pxap, pointing = summarise(build("metric", "localisation"), stack([hit, missed], 1))
    assert pxap.overall == pytest.approx((1 + 1 / 100) / 2)
    assert pointing.overall == 0.5
    assert pointing.images == 2


def test_pointing_forgives_by_the_tolerance():
    truth = np.zeros((1, 8, 9), bool)
    truth[0, 2, 2] = True
    values = np.zeros((1, 8, 9))
    values[0, 2, 5] = 1
    assert measure(truth, values, (0,), tolerance=2.9)["pointing"] == [0]
    assert measure(truth, values, (0,), tolerance=3)["pointing"] == [1]
    values[0, 2, 2] = 1
    assert measure(truth, values, (0,))["pointing"] == [0.5]
    ignore = np.zeros((8, 9), bool)
    ignore[2, 5] = True
    assert measure(truth, values, (0,), ignore=ignore)["pointing"] == [1]


def test_a_flat_map_points_nowhere():
    truth = np.zeros((1, 8, 9), bool)
    truth[0, 2:6, 2] = True
    found = measure(truth, np.zeros((1, 8, 9)), (0,))
    assert found["pointing"] == [0]
    assert found["pxap"] == pytest.approx([4 / 72])


def test_a_class_that_is_all_of_the_image_leaves_no_pixels_to_rank():
    found = measure(np.ones((1, 8, 9), bool), np.zeros((0, 8, 9)), ())
    assert np.isnan(found["pxap"]).all()
    assert found["pointing"] == [0]


def test_where_maps_were_not_kept_it_is_undefined():
    prediction = Prediction(Scores.without_maps(np.zeros(2, np.float32)), np.zeros(2, bool))
    sample = Sample("a", np.zeros((1, 4, 4), np.float32), masks=np.ones((2, 4, 4), bool))
    assert all(np.isnan(value).all() for value in build("metric", "localisation").measure(prediction, sample).values())
