"""Thresholds tuned on labels are the best there are on these, and no more than that is told to anybody."""

from __future__ import annotations

import dataclasses
import gc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micraframe.errors import DataError
from micraframe.interfaces import Fitted
from micraframe.metrics.overlap import overlap
from micraframe.registry import build
from micraframe.study.cell import subset
from micraframe.study.tuning import GRID, best_decision, kept, redecided, tune
from micraframe.tiling import Tiling, predict
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


def blank(name: str, level: float = 0.2) -> Sample:
    image = np.full((1, 8, 8), level, np.float32)
    return Sample(name, image, labels=np.array([False]), masks=np.zeros((1, 8, 8), bool))


def tuned(head, samples):
    return tune(Mapping(head), samples, list(Mapping(head).predict(sample.image for sample in samples)))


def test_the_best_thresholds_are_found():
    head = build("head", "semantic", decision=0.1)
    found = tuned(head, [ramp("a", 0.3), ramp("b", 0.3), blank("c", 0.6), ramp("d", 0.9)])
    assert found.mask == 0.3
    assert 0.6 < found.decision[0] <= 1


def test_where_nothing_beats_it_the_heads_own_rule_stays():
    level = 31 / 63  # Otsu's of a ramp, between the values of the grid
    found = tuned(build("head", "semantic"), [ramp("a", level), ramp("b", level)])
    assert found.mask is None


def test_without_masks_only_presence_is_tuned():
    sample = ramp("a", 0.3)
    found = tuned(build("head", "semantic"), [Sample("a", sample.image, labels=sample.labels)])
    assert found == ((0.5,), None)
    assert tuned(build("head", "classification"), [ramp("a", 0.3)]) == ((0.5,), None)


def mean_iou(head, samples: list[Sample]) -> float:
    """Return the mean over images of the mean IOU over classes; 0 where it is defined for no image."""
    values = []
    for sample, prediction in zip(samples, Mapping(head).predict(sample.image for sample in samples), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of nothing there is no mean
            values.append(np.nanmean(overlap(sample.masks, prediction.masks)["iou"]))
    defined = [float(value) for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else 0.0


def test_presence_stays_as_it_was_where_what_is_most_accurate_lowers_the_iou():
    faint = Sample("faint", 0.4 * ramp("", 0.3).image, labels=np.array([True]), masks=ramp("", 0.3).masks)
    louder = [blank(name, 0.45) for name in "ab"]
    head = build("head", "semantic", decision=0.1)
    # Two of three are right where nothing is ever found, and no IOU is above 0 then.
    assert tuned(head, [sample.keep({"labels"}) for sample in (faint, *louder)]).decision > (0.45,)
    found = tuned(head, [faint, *louder])
    assert found.decision is None
    assert mean_iou(head.with_thresholds(*found), [faint, *louder]) >= mean_iou(head, [faint, *louder]) > 0


def scene(name: str, height: float, level: float | None) -> Sample:
    """Return a ramp up to a height, with a mask where it is above a share of that; None: without any."""
    ramped = ramp(name, 2.0 if level is None else level)
    return dataclasses.replace(ramped, image=np.float32(height) * ramped.image, labels=ramped.masks.any(axis=(1, 2)))


@given(
    st.lists(
        st.tuples(st.floats(0.0625, 1, width=16), st.none() | st.floats(0, 0.875, width=16)), min_size=1, max_size=6
    ),
    st.sampled_from([0.1, 0.5, 0.9]),
)
def test_no_candidate_has_a_higher_mean_iou_and_the_heads_own_least_of_all(pairs, decision):
    samples = [scene(str(number), height, level) for number, (height, level) in enumerate(pairs)]
    head = build("head", "semantic", decision=decision)
    accurate = tuned(head, [sample.keep({"labels"}) for sample in samples]).decision
    every = [mean_iou(head.with_thresholds(one, mask), samples) for one in (None, accurate) for mask in (None, *GRID)]
    found = tuned(head, samples)
    best = mean_iou(head.with_thresholds(*found), samples)
    assert best == pytest.approx(max(every))
    assert best >= mean_iou(head, samples)
    if every[0] == max(every):
        assert found == (None, None)


def test_instances_are_masks_enough():
    samples = [ramp("a", 0.3), ramp("b", 0.3)]
    instances = [dataclasses.replace(one, masks=None, instances=one.masks.astype(np.int32)) for one in samples]
    assert tuned(build("head", "semantic"), instances).mask == 0.3


def test_unknown_labels_are_not_taken_for_absence():
    present, absent, unknown = ramp("a", 0.3), blank("b"), Sample("c", 0.9 * ramp("", 0.3).image)
    told = [sample.keep({"labels"}) for sample in (present, absent)]
    head = build("head", "semantic")
    assert tuned(head, [*told, unknown, dataclasses.replace(unknown, id="d")]) == ((0.5,), None)
    assert tuned(head, [unknown]) == (None, None)
    assert tuned(head, [dataclasses.replace(present, labels=None)]) == tuned(head, [present])


def test_there_must_be_something_to_tune_on():
    with pytest.raises(DataError, match="0 images to tune thresholds on.*add images, or set tune: 0"):
        tuned(build("head", "semantic"), [])


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


TILING = Tiling(size=64, halo=0)


def halves(left: float, right: float) -> np.ndarray:
    """An image of two tiles, each with a ramp up to its own height."""
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    return np.concatenate([left * ramp, right * ramp], axis=1)[None]


@pytest.mark.parametrize("decision", [(0.5, 0.5), (0.7, 0.5), (0.3, 0.5), (0.95, 0.5), (0.3, 0.3)])
@pytest.mark.parametrize("mask", [None, 0.25])
def test_of_cut_images_predictions_are_those_of_a_method_that_decides_so(decision, mask):
    samples = [Sample("cut", halves(0.9, 0.4), labels=None), Sample("cut too", halves(0.6, 0.9), labels=None)]
    images = [sample.image for sample in samples]
    fitted = Frugal(build("head", "semantic", decision=[0.5, 0.5]), [])
    known = list(kept(predict(fitted, images, TILING)))
    head = fitted.head.with_thresholds(decision, mask)
    expected = list(predict(fitted.with_head(head), images, TILING))
    fitted.made.clear()
    found = list(redecided(fitted, head, samples, known, TILING))
    assert [one.masks.tolist() for one in found] == [one.masks.tolist() for one in expected]
    assert [one.present.tolist() for one in found] == [one.present.tolist() for one in expected]
    assert (not fitted.made) == (decision == (0.5, 0.5)), "as long as presence is decided alike, nothing is made anew"


@given(
    st.lists(st.tuples(*[st.sampled_from([0.2, 0.45, 0.6, 0.9])] * 2, st.sampled_from([0.1, 0.3, 0.8])), min_size=1),
    st.sampled_from([0.3, 0.5]),
)
@settings(deadline=None, max_examples=25)
def test_tuned_on_cut_images_it_is_not_worse_than_with_its_own_thresholds(heights, decision):
    samples = []
    for number, (left, right, level) in enumerate(heights[:3]):
        image = halves(left, right)
        masks = np.concatenate([image > level, np.zeros_like(image, bool)])
        samples.append(Sample(str(number), image, labels=masks.any((1, 2)), masks=masks))
    fitted = Frugal(build("head", "semantic", decision=decision), [])
    images = [sample.image for sample in samples]

    def quality(head) -> float:
        predictions = predict(fitted.with_head(head), images, TILING)
        values = [overlap(sample.masks, one.masks)["iou"] for sample, one in zip(samples, predictions, strict=True)]
        defined = [np.nanmean(one) for one in values if not np.isnan(one).all()]
        return float(np.mean(defined)) if defined else 0.0

    best = tune(fitted, samples, list(kept(predict(fitted, images, TILING))), TILING)
    assert quality(fitted.head.with_thresholds(*best)) >= quality(fitted.head) - 1e-6


def test_a_method_is_given_images_and_no_way_to_the_samples():
    samples = [ramp("a", 0.3), ramp("b", 0.3)]
    given_: list[list[object]] = []

    class Peeking(Mapping):
        def with_head(self, head):
            return Peeking(head)

        def predict(self, images):
            given_.append(gc.get_referents(*gc.get_referents(images)))
            return super().predict(images)

    fitted = Peeking(build("head", "semantic"))
    known = list(kept(fitted.predict(iter([sample.image for sample in samples])), 0))
    list(redecided(fitted, fitted.head, samples, known))
    assert [{id(found) for found in each} for each in given_] == [{id(sample.image) for sample in samples}] * 2
    assert not any(np.shares_memory(image, sample.masks) for image in given_[1] for sample in samples)


def test_what_a_score_map_notes_takes_room_too():
    image = ramp("a", 0.3).image
    score_map = ScoreMap((0,), image, image, ("ok",), ({"found": (np.zeros(10), [np.zeros(5, np.float32)], "text")},))
    prediction = Prediction(np.ones(1, np.float32), np.ones(1, bool), score_map=score_map)
    needed = 2 * image.nbytes + 100
    assert [next(kept([prediction], room)).score_map is None for room in (needed, needed - 1)] == [False, True]


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_decides_better(pairs):
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs])
    found = best_decision(scores, labels)
    assert 0 <= found <= 1

    def right(threshold: float) -> float:
        return float(np.mean((scores >= np.float32(threshold)) == labels))

    assert right(found) >= max(right(one) for one in [*np.linspace(0, 1, 101), *scores.tolist()])


def test_none_keeps_the_heads_own_thresholds():
    head = build("head", "instance", decision=(0.25, 0.5), threshold={"name": "triangle"})
    assert head.with_thresholds(None).params == head.params
    other = head.with_thresholds(None, 0.7).params
    assert (other.decision, other.threshold.name, other.threshold.value) == ((0.25, 0.5), "fixed", 0.7)


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
