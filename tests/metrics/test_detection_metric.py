import numpy as np
import pytest

from micraframe.errors import DataError
from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores


def points(*places):
    return np.array(places, np.float32).reshape(len(places), -1 if places else 2)


def measure(truth, found, distance=3.0):
    prediction = Prediction(Scores.without_maps(np.zeros(1, np.float32)), np.zeros(1, bool), **found)
    sample = Sample("a", np.zeros((1, 30, 20), np.float32), **truth)
    values = build("metric", "detection", distance=distance).measure(prediction, sample)
    return [float(values[f"detection_{name}"][0]) for name in ("precision", "recall", "f1")]


def test_points_count_once_and_within_the_distance():
    truth = {"points": (points((5, 5), (20, 10)),)}
    found = {"points": (points((5, 6, 0.9), (6, 5, 0.8), (24, 10, 0.7)),)}
    assert measure(truth, found) == pytest.approx([1 / 3, 1 / 2, 2 / 5])
    assert measure(truth, found, distance=4) == pytest.approx([2 / 3, 1, 4 / 5])


def test_shares_of_no_points_are_undefined():
    none, one = np.zeros((0, 3), np.float32), points((5, 6, 0.9))
    assert measure({"points": (points((5, 5)),)}, {"points": (none,)}) == pytest.approx([np.nan, 0, 0], nan_ok=True)
    assert measure({"points": (none[:, :2],)}, {"points": (one,)}) == pytest.approx([0, np.nan, 0], nan_ok=True)
    assert np.isnan(measure({"points": (none[:, :2],)}, {"points": (none,)})).all()


def test_objects_and_boxes_stand_for_their_centres():
    instances = np.zeros((1, 30, 20), np.int32)
    instances[0, 4:7, 4:7] = 3
    found = {"points": (points((5, 5, 0.9)),)}
    for truth in (
        {"instances": instances},
        {"masks": instances > 0},
        {"boxes": (points((4, 4, 7, 7)),)},
    ):
        assert measure(truth, found, distance=0) == [1, 1, 1]
    assert measure({"points": (points((5, 5)),)}, {"masks": instances > 0}, distance=0) == [1, 1, 1]
    assert np.isnan(measure({}, found)).all()
    assert np.isnan(measure({"points": (points((5, 5)),)}, {})).all()


def test_ignored_points_do_not_count():
    ignore = np.zeros((30, 20), bool)
    ignore[15:] = True
    truth = {"points": (points((5, 5), (20, 10)),)}
    found = {"points": (points((5, 5, 0.9), (25, 1, 0.9)),)}
    assert measure(truth, found) == pytest.approx([0.5, 0.5, 0.5])
    assert measure(truth | {"ignore": ignore}, found) == [1, 1, 1]


def test_other_classes_are_an_error():
    with pytest.raises(DataError, match="expected predicted points of 2 classes, .* got 1"):
        measure({"points": (points((5, 5)), points((5, 5)))}, {"points": (points((5, 5, 0.9)),)})
