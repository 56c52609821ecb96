from __future__ import annotations

import numpy as np
import pytest
from micraframe_maskrcnn.detections import score_objects

from micraframe import registry
from micraframe.errors import ConfigError
from micraframe.interfaces import Thresholds
from micraframe.testing import check
from micraframe.types import DatasetInfo, DetectedObjects, Normalisation, Prediction, Scores

SIZE = (20, 31)
IMAGE = np.zeros((1, *SIZE), np.float32)
INFO = DatasetInfo("shapes", ("a", "b", "c"), 1, Normalisation(), "0" * 64)

Row = tuple[float, tuple[float, float, float, float]]


def found(*rows: Row) -> DetectedObjects:
    """Return objects, (score, box), whose masks are 1 everywhere."""
    return DetectedObjects(
        np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[0] for row in rows], np.float32),
        np.ones((len(rows), 28, 28), np.float32),
    )


def head(**params: object):
    return registry.build("head", "detections", **params)


def decide(*classes: list[Row], **params: object) -> Prediction:
    return head(**params).decide(score_objects([found(*rows) for rows in classes], SIZE), IMAGE, INFO)


def fixed(value: float) -> dict[str, object]:
    return {"name": "fixed", "value": value}


@pytest.mark.parametrize(
    "params", [{}, {"presence_threshold": 0.3, "mask_threshold": fixed(0.2), "min_visible_fraction": 0.0}]
)
def test_conformance(params):
    check("head", "detections", **params)


def test_objects_of_each_class():
    result = decide([(0.9, (4, 4, 12, 12)), (0.7, (4, 8, 12, 16))], [(0.8, (6, 6, 14, 14))], [])
    assert result.present.tolist() == [True, True, False]
    assert result.status == ("ok", "ok", "absent")
    assert [int((result.instances[0] == label).sum()) for label in (1, 2)] == [64, 32]
    assert int((result.instances[1] == 1).sum()) == 64
    assert np.array_equal(result.masks, result.instances > 0)
    assert np.allclose(result.points[0], [[7.5, 7.5, 0.9], [7.5, 13.5, 0.7]])
    assert result.points[2].shape == (0, 3)


def test_objects_below_the_presence_threshold_of_their_class_do_not_count():
    rows = [(0.6, (2.0, 2.0, 10.0, 10.0)), (0.4, (2.0, 12.0, 10.0, 20.0))]
    result = decide(rows, rows, presence_threshold=(0.6, 0.7))
    assert result.present.tolist() == [True, False]
    assert result.instances.max((1, 2)).tolist() == [1, 0]
    assert [(one.name, one.value) for one in result.thresholds] == [
        ("presence of class 0", 0.6),
        ("presence of class 1", 0.7),
        ("mask", 0.5),
    ]
    assert decide(rows, rows, presence_threshold=0.4).instances.max((1, 2)).tolist() == [2, 2]


def test_a_pixel_belongs_to_an_object_above_the_mask_threshold():
    slope = np.repeat(np.linspace(0, 1, 28, dtype=np.float32)[None], 28, 0)[None]
    several = DetectedObjects(np.array([[0, 0, 20, 28]], np.float32), np.ones(1, np.float32), slope)
    scores = score_objects([several], SIZE)
    for value in (0.25, 0.5, 1.0):
        masks = head(mask_threshold=fixed(value)).decide(scores, IMAGE, INFO).masks
        assert np.array_equal(masks, scores.maps > value)


def test_small_objects_are_dropped_and_the_others_renumbered():
    rows = [(0.9, (4.0, 4.0, 12.0, 12.0)), (0.8, (4.0, 14.0, 7.0, 17.0)), (0.7, (4.0, 20.0, 12.0, 28.0))]
    result = decide(rows, minimum_size=10)
    assert np.unique(result.instances).tolist() == [0, 1, 2]
    assert np.allclose(result.points[0][:, 2], [0.9, 0.7])
    gone = decide(rows, minimum_size=1000)
    assert gone.status == ("empty",)
    assert gone.present.all()


def test_tuned_thresholds_replace_only_its_own():
    before = head(min_visible_fraction=0.2, minimum_size=3)
    tuned = before.with_thresholds(Thresholds((0.3, 0.8), 0.15))
    changed = {"presence_threshold": (0.3, 0.8), "mask_threshold": fixed(0.15)}
    assert tuned.params == head(min_visible_fraction=0.2, minimum_size=3, **changed).params
    kept = head(mask_threshold=fixed(0.15)).with_thresholds(Thresholds((0.3, 0.8)))
    assert kept.params.mask_threshold.value == 0.15


def test_a_model_without_objects_gives_none():
    scores = Scores(np.array([0.9, 0.2], np.float32), (0, 1), np.ones((2, *SIZE), np.float32))
    result = head().decide(scores, IMAGE, INFO)
    assert result.status == ("empty", "absent")
    assert not result.masks.any()


@pytest.mark.parametrize("rule", ["otsu", {"name": "percentile", "value": 50}, fixed(1.5)])
def test_a_mask_threshold_that_is_no_probability_is_rejected(rule):
    with pytest.raises(ConfigError, match="expected a fixed probability, such as {name: fixed, value: 0.5}, got"):
        head(mask_threshold=rule)
