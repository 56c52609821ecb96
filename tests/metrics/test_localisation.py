import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores


def measure(truth, values, classes, ignore=None, **params):
    values = np.array(values, np.float32)
    scores = Scores(np.zeros(len(truth), np.float32), classes, values)
    prediction = Prediction(scores, np.zeros(len(truth), bool))
    sample = Sample("a", np.zeros((1, *truth.shape[1:]), np.float32), masks=truth, ignore=ignore)
    return build("metric", "localisation", **params).measure(prediction, sample)


def test_only_classes_with_a_map_and_a_truth_are_measured():
    truth = np.zeros((3, 8, 9), bool)
    truth[:2, 2:5, 3:6] = True
    values = np.random.default_rng(0).random((2, 8, 9))
    values[0, 3, 4] = 1
    found = measure(truth, values, (1, 2))
    expected = average_precision_score(truth[1].ravel(), values[0].ravel())
    assert found["pxap"] == pytest.approx([np.nan, expected, np.nan], nan_ok=True)
    assert found["pointing"] == pytest.approx([np.nan, 1, np.nan], nan_ok=True)


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


def test_without_maps_it_is_undefined():
    prediction = Prediction(Scores.without_maps(np.zeros(2, np.float32)), np.zeros(2, bool))
    sample = Sample("a", np.zeros((1, 4, 4), np.float32), masks=np.ones((2, 4, 4), bool))
    assert all(np.isnan(value).all() for value in build("metric", "localisation").measure(prediction, sample).values())
