"""Criteria from labels alone are exact for a model whose maps are known, and agree with slow obvious versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from micraframe.config import Choice
from micraframe.errors import DataError
from micraframe.interfaces import ClassRule, Model
from micraframe.pipeline import Pipeline
from micraframe.registry import build
from micraframe.selection import CRITERIA, LabelCriteria, label_criteria, mean_area, pooled_map_ap
from micraframe.tiling import Tiling
from micraframe.types import DatasetInfo, FloatArray, Normalisation, Sample, Scores

SIDE, EDGE = 16, 4


class Squares(Model):
    """Finds a bright square by any of its pixels; its map is a square of another size around the brightest pixel.

    Args:
        edge: Side of the map's square, with the image's corner as the square's where nothing is bright.
        classes: Number of classes, each with a channel of its own.
    """

    def __init__(self, edge: int = EDGE, classes: int = 1) -> None:
        self.edge = edge
        self.classes = classes

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        for image in images:
            presence = np.clip(image.max(axis=(1, 2)), 0, 1)
            maps = np.zeros((self.classes, *image.shape[1:]), np.float32)
            for values, channel in zip(maps, image, strict=True):
                rows, columns = np.nonzero(channel > 0.5)
                margin = max(self.edge - EDGE, 0) // 2
                top, left = (max(each.min() - margin, 0) if each.size else 0 for each in (rows, columns))
                values[top : top + self.edge, left : left + self.edge] = 1 if rows.size else 0.5
            explained = list(rule(presence))
            yield Scores(presence, tuple(explained), maps[explained])

    def state(self) -> Mapping[str, Any]:
        raise NotImplementedError


def pipeline_of(model: Squares, head: str = "semantic", tiling: Tiling | None = None, **params: Any) -> Pipeline:
    if head == "semantic":
        params = {"mask_threshold": {"name": "fixed", "value": 0.25}, **params}
    names = tuple("abc"[: model.classes])
    info = DatasetInfo("test", names, model.classes, Normalisation(), "")
    return Pipeline(Choice(name="test"), model, head, build("head", head, **params), info, tiling)


def sample(name: str, *squares: tuple[int, int] | None, label: bool | None = None) -> Sample:
    """Return an image of 16 x 16 px with labels alone: per class, a square of 4 x 4 px at a place, or none."""
    image = np.full((len(squares), SIDE, SIDE), 0.2, np.float32)
    for channel, place in zip(image, squares, strict=True):
        if place:
            channel[place[0] : place[0] + EDGE, place[1] : place[1] + EDGE] = 1
    labels = [place is not None for place in squares] if label is None else [label] * len(squares)
    return Sample(name, image, labels=np.array(labels))


SAMPLES = [sample("a", (4, 4)), sample("b", (8, 3)), sample("c", None), sample("d", None), sample("e", None)]


def criteria(edge: int = EDGE, **changes: Any) -> LabelCriteria:
    return label_criteria(pipeline_of(Squares(edge)), SAMPLES, **changes)


def test_perfect_masks_pass():
    assert criteria() == LabelCriteria(1, 16 / 256, 1, 1, 16 / 256)


def test_scores_that_are_known_are_not_made_again():
    known = list(pipeline_of(Squares()).score([one.image for one in SAMPLES], lambda presence: (0,)))
    assert criteria(2, scores=known) == criteria()  # a model of larger masks would have others, if it were asked


def test_masks_too_small_fail_erasing_unless_they_are_dilated_far_enough():
    # A mask of 1 px at a corner of a square of 4 px.
    small = [criteria(1, dilation=dilation) for dilation in (0, 2, 3)]
    assert [each.erasing for each in small] == [0, 0, 1]
    assert {(each.keeping, each.share, each.area_in_negatives) for each in small} == {(1, 1 / 256, 1 / 256)}


def test_masks_too_large_pass_and_their_share_says_so():
    assert criteria(8) == LabelCriteria(1, 64 / 256, 1, 1, 64 / 256)
    assert criteria(2 * SIDE) == LabelCriteria(1, 1, 1, 1, 1)


def test_masks_elsewhere_fail():
    class Elsewhere(Squares):
        def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
            for scores in super().score(images, rule):
                yield dataclasses.replace(scores, maps=scores.maps[:, ::-1, ::-1].copy())

    found = label_criteria(pipeline_of(Elsewhere()), [sample("a", (0, 0)), sample("b", None)])
    assert (found.erasing, found.keeping) == (0, 0)


def test_empty_masks_fail():
    pipeline = pipeline_of(Squares(), mask_threshold={"name": "fixed", "value": 1})
    assert label_criteria(pipeline, SAMPLES) == LabelCriteria(1, 0, 0, 0, 0)


def test_the_map_is_judged_not_the_presence_decision():
    # The class is found nowhere: maps and areas are the same, and there is nothing to erase.
    samples = [sample("a", None, label=True), *SAMPLES[2:]]
    found = label_criteria(pipeline_of(Squares(), presence_threshold=1.0), samples)
    assert found.area_in_negatives == found.share == 16 / 256
    assert np.isnan([found.erasing, found.keeping]).all()


def test_images_that_are_classified_wrongly_are_not_erased():
    wrong = [sample("hidden", None, label=True), sample("stray", (2, 2), label=False)]
    found = label_criteria(pipeline_of(Squares()), [*SAMPLES, *wrong])
    assert (found.erasing, found.keeping) == (1, 1)
    # Maps of 0.5 and 1 are pooled: 2 of 3 positives are tied with 1 negative, the last with the rest.
    assert found.pooled_map_ap == pytest.approx(2 / 3 * 2 / 3 + 1 / 3 * 3 / 7)


def test_classes_are_averaged_where_they_are_defined():
    samples = [sample("a", (4, 4), (8, 8)), sample("b", None, (2, 2)), sample("c", None, (0, 9))]
    found = label_criteria(pipeline_of(Squares(classes=2)), samples)
    # The second class is in all images.
    assert found == LabelCriteria(1, 16 / 256, 1, 1, 16 / 256)


def test_heads_without_masks_leave_only_the_pooled_map():
    found = label_criteria(pipeline_of(Squares(), head="classification"), SAMPLES)
    assert found.pooled_map_ap == 1
    assert np.isnan([found.area_in_negatives, found.erasing, found.keeping, found.share]).all()


def test_images_without_labels_do_not_count():
    unknown = Sample("unknown", SAMPLES[0].image)
    assert label_criteria(pipeline_of(Squares()), [unknown, *SAMPLES]) == criteria()
    with pytest.raises(DataError, match="with labels, got 0"):
        label_criteria(pipeline_of(Squares()), [unknown])


def test_the_same_seed_gives_the_same_numbers_whatever_the_masks_are():
    masked = [dataclasses.replace(each, masks=np.ones((1, SIDE, SIDE), bool)) for each in SAMPLES]
    assert label_criteria(pipeline_of(Squares(1)), masked, seed=3) == criteria(1, seed=3) == criteria(1, seed=3)


def test_images_of_other_sizes_and_tiles_are_judged():
    large = np.full((1, 101, 70), 0.2, np.float32)
    large[0, 90:94, 33:37] = 1
    samples = [SAMPLES[0], Sample("large", large, labels=np.array([True])), *SAMPLES[2:]]
    samples.append(Sample("tiny", np.full((1, 3, 5), 0.2, np.float32), labels=np.array([False])))
    found = label_criteria(pipeline_of(Squares(), tiling=Tiling(size=64, halo=8)), samples)
    assert (found.erasing, found.keeping) == (1, 1)
    # A share of a large image is more than a small object fills: the large one is ranked last of all 6.
    assert found.pooled_map_ap == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 6)


def test_every_criterion_has_a_direction():
    assert [column.name for column in CRITERIA] == [field.name for field in dataclasses.fields(LabelCriteria)]


@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 9))
def test_numbers_of_classes_agree_with_obvious_versions(seed, images, classes):
    rng = np.random.default_rng(seed)
    labels = rng.random((images, classes)) < 0.5
    pooled = rng.integers(0, 4, labels.shape).astype(np.float32)
    areas, expected = mean_area(pooled.astype(np.float64), labels), pooled_map_ap(pooled, labels)
    for index in range(classes):
        positives = [pooled[row, index] for row in range(images) if labels[row, index]]
        assert areas[index] == pytest.approx(sum(positives) / len(positives) if positives else np.nan, nan_ok=True)
        if 0 < len(positives) < images:
            assert expected[index] == pytest.approx(average_precision_score(labels[:, index], pooled[:, index]))
        else:
            assert np.isnan(expected[index])
