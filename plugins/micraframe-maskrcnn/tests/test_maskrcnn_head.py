from __future__ import annotations

import numpy as np
import pytest
from micraframe_maskrcnn.detections import Found, as_score_map, best_scores

from micraframe import registry
from micraframe.errors import ConfigError, DataError
from micraframe.testing import check
from micraframe.types import Prediction, ScoreMap

SIZE = (20, 31)
IMAGE = np.zeros((1, *SIZE), np.float32)

Row = tuple[float, tuple[float, float, float, float]]


def found(*rows: Row) -> Found:
    """Detections whose masks are 1 all over their box."""
    return Found(
        np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[0] for row in rows], np.float32),
        np.ones((len(rows), 28, 28), np.float32),
    )


def head(**params: object):
    return registry.build("head", "detections", **params)


def decide(*classes: list[Row], **params: object) -> Prediction:
    score_map = as_score_map([found(*rows) for rows in classes], SIZE)
    return head(**params).decide(score_map, best_scores(score_map), IMAGE)


@pytest.mark.parametrize("params", [{}, {"decision": 0.3, "threshold": {"name": "fixed", "value": 0.2}, "own": 0.0}])
def test_it_keeps_the_promises_of_a_head(params):
    check("head", "detections", **params)


def test_it_says_what_the_objects_of_each_class_are():
    result = decide([(0.9, (4, 4, 12, 12)), (0.7, (8, 4, 16, 12))], [(0.8, (6, 6, 14, 14))], [])
    assert result.present.tolist() == [True, True, False]
    assert result.status == ("ok", "ok", "absent")
    assert [int((result.instances[0] == label).sum()) for label in (1, 2)] == [64, 32]
    assert int((result.instances[1] == 1).sum()) == 64
    assert np.array_equal(result.masks, result.instances > 0)
    assert np.allclose(result.points[0], [[7.5, 7.5, 0.9], [7.5, 13.5, 0.7]])
    assert result.points[2].shape == (0, 3)


def test_what_scores_less_than_its_class_must_does_not_count():
    rows = [(0.6, (2.0, 2.0, 10.0, 10.0)), (0.4, (12.0, 2.0, 20.0, 10.0))]
    result = decide(rows, rows, decision=(0.6, 0.7))
    assert result.present.tolist() == [True, False]
    assert result.instances.max((1, 2)).tolist() == [1, 0]
    assert [(one.name, one.value) for one in result.thresholds] == [
        ("presence of class 0", 0.6),
        ("presence of class 1", 0.7),
        ("mask", 0.5),
    ]
    assert decide(rows, rows, decision=0.4).instances.max((1, 2)).tolist() == [2, 2]


def test_a_pixel_is_of_an_object_above_the_threshold():
    slope = np.repeat(np.linspace(0, 1, 28, dtype=np.float32)[None], 28, 0)[None]
    several = Found(np.array([[0, 0, 28, 20]], np.float32), np.ones(1, np.float32), slope)
    score_map = as_score_map([several], SIZE)
    for value in (0.25, 0.5, 1.0):
        masks = head(threshold={"name": "fixed", "value": value}).decide(score_map, np.ones(1, np.float32), IMAGE).masks
        assert np.array_equal(masks, score_map.values > value)


def test_small_objects_are_dropped_and_the_others_numbered_anew():
    rows = [(0.9, (4.0, 4.0, 12.0, 12.0)), (0.8, (14.0, 4.0, 17.0, 7.0)), (0.7, (20.0, 4.0, 28.0, 12.0))]
    result = decide(rows, minimum_size=10)
    assert np.unique(result.instances).tolist() == [0, 1, 2]
    assert np.allclose(result.points[0][:, 2], [0.9, 0.7])
    gone = decide(rows, minimum_size=1000)
    assert gone.status == ("empty",)
    assert gone.present.all()


def test_tuned_thresholds_take_the_place_of_its_own_and_nothing_else_changes():
    tuned = head(own=0.2, minimum_size=3).with_thresholds((0.3, 0.8), 0.15)
    rule = {"name": "fixed", "value": 0.15}
    assert tuned.params == head(decision=(0.3, 0.8), threshold=rule, own=0.2, minimum_size=3).params
    assert head(threshold=rule).with_thresholds((0.3, 0.8)).params.threshold.value == 0.15


@pytest.mark.parametrize("notes", [(), ({}, {"inverted": True})])
def test_of_a_score_map_without_detections_nothing_is_made(notes):
    values = np.ones((2, *SIZE), np.float32)
    score_map = ScoreMap((0, 1), values, values, ("ok", "ok"), notes)
    result = head().decide(score_map, np.array([0.9, 0.2], np.float32), IMAGE)
    assert result.status == ("empty", "absent")
    assert not result.masks.any()


def test_a_score_map_without_a_class_that_is_there_is_refused():
    with pytest.raises(DataError, match=r"classes \[1\] are in the image"):
        head().decide(as_score_map([found()], SIZE), np.ones(2, np.float32), IMAGE)


@pytest.mark.parametrize("rule", ["otsu", {"name": "percentile", "value": 50}, {"name": "fixed", "value": 1.5}])
def test_a_threshold_that_is_no_probability_is_refused(rule):
    with pytest.raises(
        ConfigError, match="are cut at a probability, not by the rule .*; write {name: fixed, value: 0.5}"
    ):
        head(threshold=rule)
