"""Thresholds tuned on labels are the best there are on these, and no more than that is told to anybody."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.interfaces import Fitted
from micraframe.registry import build
from micraframe.study.cell import subset
from micraframe.study.tuning import GRID, best_decision, kept, redecided, tune
from micraframe.types import Prediction, Sample, ScoreMap


class Mapping(Fitted):
    """Takes the image itself for the score map of its one class, and its maximum for the score."""

    def __init__(self, head) -> None:
        self.head = head

    def with_head(self, head):
        return Mapping(head)

    def predict(self, images):
        for image in images:
            scores = image.max(axis=(1, 2))
            score_map = ScoreMap((0,), image, image, ("ok",))
            decided = self.head.decide(score_map, scores, image)
            yield Prediction(scores, decided.present, masks=decided.masks, score_map=score_map)

    def save(self, folder):
        raise NotImplementedError


def ramp(name: str, level: float) -> Sample:
    """Return an image that rises from 0 to 1, with a mask where it is above the level."""
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    return Sample(name, image, labels=np.array([True]), masks=image > level)


def blank(name: str) -> Sample:
    image = np.full((1, 8, 8), 0.2, np.float32)
    return Sample(name, image, labels=np.array([False]), masks=np.zeros((1, 8, 8), bool))


def tuned(head, samples):
    return tune(Mapping(head), samples, list(Mapping(head).predict(sample.image for sample in samples)))


def test_the_best_thresholds_are_found():
    head = build("head", "semantic", decision=0.1)
    found = tuned(head, [ramp("a", 0.3), ramp("b", 0.3), blank("c"), ramp("d", 0.9)])
    assert found.mask == 0.3
    assert 0.2 < found.decision[0] <= 1


def test_where_nothing_beats_it_the_heads_own_rule_stays():
    level = 31 / 63  # Otsu's of a ramp, between the values of the grid
    found = tuned(build("head", "semantic"), [ramp("a", level), ramp("b", level)])
    assert found.mask is None


def test_without_masks_only_presence_is_tuned():
    sample = ramp("a", 0.3)
    found = tuned(build("head", "semantic"), [Sample("a", sample.image, labels=sample.labels)])
    assert found == ((0.5,), None)


def test_a_method_without_a_head_cannot_be_tuned():
    fitted = Mapping(None)
    with pytest.raises(TypeError, match="has no head"):
        tune(fitted, [ramp("a", 0.3)], [])
    with pytest.raises(TypeError, match="no head that could be replaced"):
        Fitted.with_head(fitted, build("head", "semantic"))


class Frugal(Fitted):
    """Two classes, of which it makes only the score maps that its head wants; remembers of what it made them."""

    def __init__(self, head, made: list[float]) -> None:
        self.head, self.made = head, made

    def with_head(self, head):
        return Frugal(head, self.made)

    def predict(self, images):
        for image in images:
            scores = np.array([image.max(), 0.4], np.float32)
            classes = self.head.wanted(scores)
            self.made.append(float(image.max()))
            values = np.repeat(image, len(classes), axis=0)
            score_map = ScoreMap(classes, values, values, ("ok",) * len(classes))
            yield dataclasses.replace(self.head.decide(score_map, scores, image), score_map=score_map, method="frugal")

    def save(self, folder):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("room", "decision", "made"),
    [
        (1 << 20, (0.5, 0.5), []),  # all that is wanted is at hand
        (1 << 20, (0.9, 0.9), []),  # and more than is wanted
        (1 << 20, (0.5, 0.3), [1.0, 0.125, 0.75]),  # of no image is there a map of the second class
        (1 << 20, (0.1, 0.5), [0.125]),  # of one image there was none of the first
        (512, (0.5, 0.5), [0.75]),  # of the first image alone, and of the one that needs none
        (0, (0.5, 0.5), [1.0, 0.75]),
    ],
)
def test_predictions_are_the_same_with_another_head_whatever_is_at_hand(room, decision, made):
    samples = [Sample(str(level), level * ramp("", 0.3).image, labels=None) for level in (1.0, 0.125, 0.75)]
    images = [sample.image for sample in samples]
    fitted = Frugal(build("head", "semantic"), [])
    head = fitted.head.with_thresholds(decision, 0.4)
    known = list(kept(fitted.predict(images), room))
    assert all(prediction.masks is None for prediction in known)
    expected = list(fitted.with_head(head).predict(images))
    fitted.made.clear()
    for one, other in zip(redecided(fitted, head, samples, known), expected, strict=True):
        assert one.masks.tolist() == other.masks.tolist()
        assert one.present.tolist() == other.present.tolist()
        assert (one.status, one.thresholds, one.method) == (other.status, other.thresholds, other.method)
    assert fitted.made == made


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_decides_better(pairs):
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs])
    found = best_decision(scores, labels)
    assert 0 <= found <= 1

    def right(threshold: float) -> float:
        return float(np.mean((scores >= np.float32(threshold)) == labels))

    assert right(found) >= max(right(one) for one in [*np.linspace(0, 1, 101), *scores.tolist()])


def test_a_head_takes_what_it_has_parameters_for():
    semantic = build("head", "semantic", smoothing=2).with_thresholds((0.25, 0.5), 0.7)
    assert semantic.params.decision == (0.25, 0.5)
    assert (semantic.params.threshold.name, semantic.params.threshold.value) == ("fixed", 0.7)
    assert semantic.params.smoothing == 2
    otsu = build("head", "instance").with_thresholds((0.25,))
    assert otsu.params.threshold.name == "otsu"
    classification = build("head", "classification").with_thresholds((0.25,), 0.7)
    assert classification.params.decision == (0.25,)


def test_the_grid_is_within_the_range_of_score_maps():
    assert len(GRID) == 19
    assert 0 < min(GRID) < max(GRID) < 1


def test_smaller_subsets_are_part_of_larger_ones():
    samples = [blank(str(number)) for number in range(20)]
    few, some = ([sample.id for sample in subset(samples, number, seed=3)] for number in (4, 11))
    assert len(few) == 4
    assert set(few) < set(some)
    assert some == sorted(some, key=int)
    assert subset(samples, 20, seed=3) is samples
    assert subset(samples, None, seed=3) is samples
    assert few != [sample.id for sample in subset(samples, 4, seed=4)]
