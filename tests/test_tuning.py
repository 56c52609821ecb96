"""Tuned thresholds are the best there are on the given labels, and models see images and nothing else."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micraframe.config import Choice
from micraframe.errors import DataError
from micraframe.interfaces import ClassRule, Model, Thresholds
from micraframe.metrics.overlap import overlap
from micraframe.pipeline import Pipeline
from micraframe.registry import build
from micraframe.tiling import Tiling
from micraframe.tuning import (
    GRID,
    apply_head,
    best_presence_threshold,
    bounded,
    expected_share_threshold,
    read_thresholds,
    room,
    tune,
    tune_by_labels,
)
from micraframe.types import Annotation, DatasetInfo, FloatArray, Normalisation, Sample, Scores


class ImageAsMap(Model):
    """Takes the image itself for the map of its one class, and its maximum for the presence."""

    look: Callable[[object], object] = staticmethod(lambda images: None)

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        self.look(images)
        for image in images:
            yield Scores(image.max(axis=(1, 2)), (0,), image)

    def state(self) -> Mapping[str, Any]:
        raise NotImplementedError


class Frugal(Model):
    """Two classes, with maps of only those that the head needs; remembers the images it scored."""

    def __init__(self) -> None:
        self.scored: list[float] = []

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        for image in images:
            presence = np.array([np.clip(image.max(), 0, 1), 0.4], np.float32)
            classes = tuple(rule(presence))
            self.scored.append(float(image.max()))
            yield Scores(presence, classes, np.repeat(image, len(classes), axis=0))

    def state(self) -> Mapping[str, Any]:
        raise NotImplementedError


def pipeline_of(model: Model, classes: int = 1, tiling: Tiling | None = None, head: str = "semantic", **params: Any):
    info = DatasetInfo("test", tuple("abc"[:classes]), 1, Normalisation(), "")
    return Pipeline(Choice(name="test"), model, head, build("head", head, **params), info, tiling)


def ramp(name: str, level: float) -> Sample:
    """Return an image that rises from 0 to 1, with a mask where it is above the level."""
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    return Sample(name, image, labels=np.array([True]), masks=image > level)


def blank(name: str, level: float = 0.2) -> Sample:
    image = np.full((1, 8, 8), level, np.float32)
    return Sample(name, image, labels=np.array([False]), masks=np.zeros((1, 8, 8), bool))


def scores_of(pipeline: Pipeline, samples: Sequence[Sample]) -> list[Scores]:
    return list(pipeline.score(sample.image for sample in samples))


def tuned(samples: Sequence[Sample], head: str = "semantic", **params: Any) -> Thresholds:
    pipeline = pipeline_of(ImageAsMap(), head=head, **params)
    return tune(pipeline, samples, scores_of(pipeline, samples))


def only_labels(samples: Iterable[Sample]) -> list[Sample]:
    return [sample.keep({Annotation.LABELS}) for sample in samples]


def test_the_best_thresholds_are_found():
    found = tuned([ramp("a", 0.3), ramp("b", 0.3), blank("c", 0.6), ramp("d", 0.9)], presence_threshold=0.1)
    assert found.mask == 0.3
    assert 0.6 < found.presence[0] <= 1


def test_where_nothing_beats_it_the_heads_own_rule_stays():
    level = 31 / 63  # Otsu's threshold of a ramp, between the values of the grid
    assert tuned([ramp("a", level), ramp("b", level)]).mask is None


def test_without_masks_only_presence_is_tuned():
    assert tuned(only_labels([ramp("a", 0.3)])) == Thresholds((0.5,), None)
    assert tuned([ramp("a", 0.3)], head="classification") == Thresholds((0.5,), None)


def mean_iou(pipeline: Pipeline, samples: Sequence[Sample]) -> float:
    """Return the mean over images of the mean IoU over classes; 0 where it is defined for no image."""
    values = []
    for sample, prediction in zip(samples, pipeline.predict(sample.image for sample in samples), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # nothing has no mean
            values.append(np.nanmean(overlap(sample.masks, prediction.masks)["iou"]))
    defined = [float(value) for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else 0.0


def test_presence_keeps_its_threshold_where_the_most_accurate_one_lowers_the_iou():
    faint = Sample("faint", 0.4 * ramp("", 0.3).image, labels=np.array([True]), masks=ramp("", 0.3).masks)
    samples = [faint, blank("a", 0.45), blank("b", 0.45)]
    # Two of three are correct if nothing is ever found, and then no IoU is above 0.
    assert tuned(only_labels(samples), presence_threshold=0.1).presence > (0.45,)
    found = tuned(samples, presence_threshold=0.1)
    assert found.presence is None
    pipeline = pipeline_of(ImageAsMap(), presence_threshold=0.1)
    assert mean_iou(pipeline.with_thresholds(found, "validation"), samples) >= mean_iou(pipeline, samples) > 0


def scene(name: str, height: float, level: float | None) -> Sample:
    """Return a ramp up to a height, with a mask where it is above a fraction of that; None: without any."""
    ramped = ramp(name, 2.0 if level is None else level)
    return dataclasses.replace(ramped, image=np.float32(height) * ramped.image, labels=ramped.masks.any(axis=(1, 2)))


@given(
    st.lists(
        st.tuples(st.floats(0.0625, 1, width=16), st.none() | st.floats(0, 0.875, width=16)), min_size=1, max_size=6
    ),
    st.sampled_from([0.1, 0.5, 0.9]),
)
def test_no_candidate_has_a_higher_mean_iou_and_the_heads_own_least_of_all(pairs, presence):
    samples = [scene(str(number), height, level) for number, (height, level) in enumerate(pairs)]
    pipeline = pipeline_of(ImageAsMap(), presence_threshold=presence)
    accurate = tuned(only_labels(samples), presence_threshold=presence).presence
    every = [
        mean_iou(pipeline.with_thresholds(Thresholds(one, mask), "validation"), samples)
        for one in (None, accurate)
        for mask in (None, *GRID)
    ]
    found = tuned(samples, presence_threshold=presence)
    assert mean_iou(pipeline.with_thresholds(found, "validation"), samples) == pytest.approx(max(every))
    if every[0] == max(every):
        assert found == Thresholds(None, None)


def test_the_contact_class_does_not_count():
    plain = pipeline_of(Frugal(), classes=2, presence_threshold=0.1)
    pipeline = dataclasses.replace(plain, info=dataclasses.replace(plain.info, roles=("object", "contact")))
    samples = []
    for name in "ab":
        masks = np.concatenate([ramp("", 0.9).masks, ramp("", 0.3).masks])
        samples.append(dataclasses.replace(ramp(name, 0.3), labels=np.array([True, True]), masks=masks))
    assert tune(pipeline, samples, scores_of(pipeline, samples)).mask == 0.9
    assert tune(plain, samples, scores_of(plain, samples)).mask == 0.3


def test_instances_serve_as_masks():
    samples = [ramp("a", 0.3), ramp("b", 0.3)]
    instances = [dataclasses.replace(one, masks=None, instances=one.masks.astype(np.int32)) for one in samples]
    assert tuned(instances).mask == 0.3


def test_unknown_labels_do_not_mean_absence():
    present, absent, unknown = ramp("a", 0.3), blank("b"), Sample("c", 0.9 * ramp("", 0.3).image)
    known = only_labels([present, absent])
    assert tuned([*known, unknown, dataclasses.replace(unknown, id="d")]) == Thresholds((0.5,), None)
    assert tuned([unknown]) == Thresholds(None, None)
    assert tuned([dataclasses.replace(present, labels=None)]) == tuned([present])


def test_without_images_nothing_can_be_tuned():
    with pytest.raises(DataError, match="at least 1 image to tune thresholds on, got 0.*set tuning_images: 0"):
        tuned([])


@pytest.mark.parametrize(
    ("room", "presence", "scored"),
    [
        (1 << 20, (0.5, 0.5), []),  # every needed map is at hand
        (1 << 20, (0.9, 0.9), []),  # and more than that
        (1 << 20, (0.5, 0.3), [1.0, 0.125, 0.75]),  # no image has a map of the second class
        (1 << 20, (0.1, 0.5), [0.125]),  # one image has none of the first
        (256, (0.5, 0.5), [0.75]),  # there is room for the first image, and for the one that needs no map
        (0, (0.5, 0.5), [1.0, 0.75]),
    ],
)
def test_predictions_with_another_head_are_the_same_whatever_is_at_hand(room, presence, scored):
    images = [level * ramp("", 0.3).image for level in (1.0, 0.125, 0.75)]
    model = Frugal()
    pipeline = pipeline_of(model, classes=2)
    other = pipeline.with_thresholds(Thresholds(presence, 0.4), "validation")
    known = list(bounded(pipeline.score(images), room))
    expected = list(other.predict(images))
    model.scored.clear()
    for one, two in zip(apply_head(pipeline, other, images, known), expected, strict=True):
        assert one.masks.tolist() == two.masks.tolist()
        assert one.present.tolist() == two.present.tolist()
        assert (one.status, one.thresholds) == (two.status, two.thresholds)
    assert model.scored == scored


@pytest.mark.parametrize("presence", [(0.9, 0.9), (0.5, 0.3), (0.1, 0.5)])
def test_which_maps_there_are_does_not_depend_on_the_room_for_them(presence):
    images = [level * ramp("", 0.3).image for level in (1.0, 0.125, 0.75)]
    pipeline = pipeline_of(Frugal(), classes=2)
    other = pipeline.with_thresholds(Thresholds(presence, 0.4), "validation")
    known = [list(bounded(pipeline.score(images), room)) for room in (1 << 20, 256, 0)]
    found = [[each.scores for each in apply_head(pipeline, other, images, scores)] for scores in known]
    maps = [[(one.classes, one.maps.tolist()) for one in scores] for scores in found]
    assert maps[0] == maps[1] == maps[2]


TILING = Tiling(size=64, halo=0)


def halves(left: float, right: float) -> FloatArray:
    """An image of two tiles, each with a ramp up to its own height."""
    rising = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    return np.concatenate([left * rising, right * rising], axis=1)[None]


@pytest.mark.parametrize("presence", [(0.5, 0.5), (0.7, 0.5), (0.3, 0.5), (0.95, 0.5), (0.3, 0.3)])
@pytest.mark.parametrize("mask", [None, 0.25])
def test_images_in_tiles_are_scored_again_where_presence_is_decided_differently(presence, mask):
    images = [halves(0.9, 0.4), halves(0.6, 0.9)]
    model = Frugal()
    pipeline = pipeline_of(model, classes=2, tiling=TILING, presence_threshold=[0.5, 0.5])
    known = list(bounded(pipeline.score(images)))
    other = pipeline.with_thresholds(Thresholds(presence, mask), "oracle")
    expected = list(other.predict(images))
    model.scored.clear()
    found = list(apply_head(pipeline, other, images, known))
    assert [one.masks.tolist() for one in found] == [one.masks.tolist() for one in expected]
    assert [one.present.tolist() for one in found] == [one.present.tolist() for one in expected]
    assert (not model.scored) == (presence == (0.5, 0.5))


@given(
    st.lists(st.tuples(*[st.sampled_from([0.2, 0.45, 0.6, 0.9])] * 2, st.sampled_from([0.1, 0.3, 0.8])), min_size=1),
    st.sampled_from([0.3, 0.5]),
)
@settings(deadline=None, max_examples=25)
def test_tuning_on_images_in_tiles_makes_nothing_worse(heights, presence):
    samples = []
    for number, (left, right, level) in enumerate(heights[:3]):
        image = halves(left, right)
        masks = np.concatenate([image > level, np.zeros_like(image, bool)])
        samples.append(Sample(str(number), image, labels=masks.any((1, 2)), masks=masks))
    pipeline = pipeline_of(Frugal(), classes=2, tiling=TILING, presence_threshold=presence)
    best = tune(pipeline, samples, list(bounded(pipeline.score(sample.image for sample in samples))))
    assert mean_iou(pipeline.with_thresholds(best, "validation"), samples) >= mean_iou(pipeline, samples) - 1e-6


def by_labels(samples: Sequence[Sample], quantile: float = 0.99, **params: Any) -> Mapping[str, Thresholds]:
    return tune_by_labels(pipeline_of(Frugal(), classes=2, **params), samples, quantile)


@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.none() | st.tuples(st.booleans(), st.booleans())), min_size=1, max_size=5
    ),
    st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_labels_alone_give_thresholds(drawn, quantile):
    samples = [
        Sample(
            str(number),
            np.random.default_rng(seed).random((1, 4, 5), np.float32),
            labels=None if labels is None else np.array(labels),
        )
        for number, (seed, labels) in enumerate(drawn)
    ]
    pooled: dict[bool, list[float]] = {False: [], True: []}
    for sample in samples:
        for present in () if sample.labels is None else sample.labels.tolist():  # each class's map is the image
            pooled[present] += sample.image.ravel().tolist()
    found = by_labels(samples, quantile)
    assert list(found) == [
        name for name, present in (("negatives", False), ("expected-share", True)) if pooled[present]
    ]
    if "negatives" in found:
        assert found["negatives"].mask == pytest.approx(np.quantile(pooled[False], quantile))
        assert np.mean(np.array(pooled[False]) > found["negatives"].mask) <= 1 - quantile + 1 / 20
    if "expected-share" in found:
        above = sum(value > found["expected-share"].mask for value in pooled[True])
        assert abs(above - sum(pooled[True])) <= 1 + 2 * len(samples)  # samples may be equal, and classes are
    accurate = tune(
        pipeline_of(Frugal(), 2, head="classification"), samples, scores_of(pipeline_of(Frugal(), 2), samples)
    )
    assert all(each == Thresholds(accurate.presence, each.mask) for each in found.values())


def test_scores_that_are_known_are_not_made_again():
    labels = [np.array([True, False]), None, np.array([False, True])]
    images = [ramp("", 0.3).image, blank("", 0.9).image, blank("", 0.25).image]
    samples = [Sample(str(n), image, labels=each) for n, (image, each) in enumerate(zip(images, labels, strict=True))]
    pipeline = pipeline_of(model := Frugal(), classes=2)
    every = list(pipeline.score([sample.image for sample in samples], lambda presence: (0, 1)))
    expected = tune_by_labels(pipeline, samples)
    model.scored.clear()
    assert tune_by_labels(pipeline, samples, scores=every) == expected
    assert model.scored == []


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50, unique=True))
def test_the_hard_share_is_the_expected_share(values):
    array = np.array(values, np.float32)
    above = np.count_nonzero(array > np.float32(expected_share_threshold(array)))
    assert abs(above - array.sum(dtype=np.float64)) <= 1 + 1e-4


def test_thresholds_by_labels_look_at_no_mask():
    samples = [ramp("a", 0.3), blank("b", 0.25), blank("c", 0.5)]
    pipeline = pipeline_of(ImageAsMap())
    found = tune_by_labels(pipeline, samples)
    assert found == tune_by_labels(pipeline, only_labels(samples))
    assert found == tune_by_labels(pipeline, [dataclasses.replace(one, masks=~one.masks) for one in samples])
    assert found["negatives"].mask == 0.5
    assert tune_by_labels(pipeline, [dataclasses.replace(one, labels=None) for one in samples]) == {}
    assert tune_by_labels(pipeline_of(ImageAsMap(), head="classification"), samples) == {}


def test_a_model_gets_images_and_no_way_to_the_samples(monkeypatch):
    samples = [ramp("a", 0.3), ramp("b", 0.3)]
    seen: list[set[int]] = []

    def look(images: object) -> None:
        queue, known = [images], set()
        while queue:
            found = queue.pop()
            if id(found) in known or isinstance(found, type) or (isinstance(found, dict) and "__builtins__" in found):
                continue
            known.add(id(found))
            queue += gc.get_referents(found)
        seen.append(known)

    monkeypatch.setattr(ImageAsMap, "look", staticmethod(look))
    pipeline = pipeline_of(ImageAsMap())
    images = [sample.image for sample in samples]
    known = list(bounded(pipeline.score(iter(images)), 0))
    list(apply_head(pipeline, pipeline, images, known))
    tune_by_labels(pipeline, samples)
    for reached in seen:
        assert all(id(image) in reached for image in images)
        assert not any(id(sample) in reached or id(sample.masks) in reached for sample in samples)
    assert len(seen) == 3


def test_notes_take_room_too():
    image = ramp("a", 0.3).image
    scores = Scores(
        np.ones(1, np.float32), (0,), image, notes=({"found": (np.zeros(10), [np.zeros(5, np.float32)], "text")},)
    )
    needed = image.nbytes + 100
    found = [next(bounded([scores], room)) for room in (needed, needed - 1)]
    assert [each.classes for each in found] == [(0,), ()]
    assert found[1].size == scores.size


@given(st.lists(st.tuples(st.floats(0, 1, width=32, allow_subnormal=False), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_classifies_more_images_correctly(pairs):
    presence = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs])
    found = best_presence_threshold(presence, labels)
    assert 0 <= found <= 1

    def correct(threshold: float) -> float:
        return float(np.mean((presence >= np.float32(threshold)) == labels))

    assert correct(found) >= max(correct(one) for one in [*np.linspace(0, 1, 101), *presence.tolist()])
    # Of several, the nearest to 0.5, among the middles between neighbours.
    levels = np.unique(presence.astype(float))
    tried = [0.5, *(levels[1:] + levels[:-1]) / 2, levels[0] / 2, (levels[-1] + 1) / 2]
    best = max(map(correct, tried))
    assert abs(found - 0.5) == min(abs(one - 0.5) for one in tried if correct(one) == best)


def test_a_presence_threshold_for_many_images_needs_little_memory():
    rng = np.random.default_rng(0)
    presence = rng.random(100_000, dtype=np.float32)  # all pairs would take 10 GB
    assert best_presence_threshold(presence, presence >= 0.3) == pytest.approx(0.3, abs=1e-4)


def test_a_head_takes_the_thresholds_that_it_has_parameters_for():
    semantic = build("head", "semantic", smoothing=2).with_thresholds(Thresholds((0.25, 0.5), 0.7))
    assert semantic.params.presence_threshold == (0.25, 0.5)
    assert (semantic.params.mask_threshold.name, semantic.params.mask_threshold.value) == ("fixed", 0.7)
    assert semantic.params.smoothing == 2
    instance = build("head", "instance", mask_threshold="triangle")
    assert instance.with_thresholds(Thresholds()).params == instance.params
    classification = build("head", "classification").with_thresholds(Thresholds((0.25,), 0.7))
    assert classification.params.presence_threshold == (0.25,)


def test_the_grid_is_within_the_range_of_maps():
    assert len(GRID) == 19
    assert 0 < min(GRID) < max(GRID) < 1


def test_thresholds_are_read_from_a_run(tmp_path: Path):
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"tuned": {"validation": {"presence": [0.25, 0.5], "mask": None}}}))
    assert read_thresholds(tmp_path) == read_thresholds(file) == Thresholds((0.25, 0.5), None)
    with pytest.raises(DataError, match="expected thresholds of origin oracle, got validation; run"):
        read_thresholds(file, "oracle")
    file.write_text("{}")
    with pytest.raises(DataError, match="expected the thresholds of a study's run"):
        read_thresholds(file)
    with pytest.raises(DataError, match="expected the thresholds of a study's run"):
        read_thresholds(tmp_path / "absent.json")


@pytest.mark.parametrize(("pages", "expected"), [(1 << 30, 2 << 30), (1 << 20, 1 << 28), (-1, 1 << 30)])
def test_room_is_a_part_of_the_machines_memory(monkeypatch, pages, expected):
    sizes = {"SC_PHYS_PAGES": pages, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__, raising=False)
    assert room() == expected


def test_room_where_the_system_does_not_say(monkeypatch):
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert room() == 1 << 30
