"""What annotations reach as their own predictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from micraframe.annotators.ceiling import as_prediction
from micraframe.registry import build
from micraframe.types import DatasetInfo, Normalisation, Sample

INFO = DatasetInfo("toy", ("round", "square"), 1, Normalisation(), "0")
SIZE = (48, 60)


def sample() -> Sample:
    """Two touching discs and a square of the other class."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    instances = np.zeros((2, *SIZE), np.int32)
    instances[0][np.hypot(y - 20, x - 14) < 8] = 1
    instances[0][np.hypot(y - 20, x - 30) < 8] = 2
    instances[1][30:42, 40:52] = 1
    labels = np.array([True, True])
    return Sample("a", np.zeros((1, *SIZE), np.float32), labels, masks=instances > 0, instances=instances)


def numbers(annotator: str, metric: str, truth: Sample, **params) -> dict[str, list[float]]:
    annotated, _ = build("annotator", annotator, **params).annotate(truth, seed=0)
    prediction = as_prediction(annotated, INFO)
    assert prediction is not None
    found = build("metric", metric).measure(prediction, truth)
    return {name: [round(float(value), 3) for value in values] for name, values in found.items()}


def test_full_annotation_is_perfect() -> None:
    assert numbers("full", "overlap", sample())["iou"] == [1, 1]
    found = numbers("full", "objects", sample())
    assert (found["object_f1@0.95"], found["object_merged"]) == ([1, 1], [0, 0])
    assert numbers("full", "classification", sample())["correct"] == [1, 1]
    assert numbers("full", "localisation", sample())["pxap"] == [1, 1]


def test_boxes_are_filled_and_are_objects() -> None:
    # Of a disc of 193 pixels, a box of 15 x 15; a square is its own box.
    assert numbers("boxes", "overlap", sample())["iou"] == [round(2 * 193 / (2 * 225), 3), 1]
    for filled in (False, True):
        found = numbers("boxes", "objects", sample(), filled=filled)
        assert found["object_predicted"] == [2, 1]
        assert found["object_f1@0.85"] == [1, 1]
        assert found["object_f1@0.9"] == [0, 1]


def test_of_overlapping_boxes_the_smaller_is_on_top() -> None:
    boxes = (np.array([[2, 2, 6, 6], [0, 0, 20, 20], [-3, 4, 4, 90]], np.float32), np.zeros((0, 4), np.float32))
    prediction = as_prediction(
        Sample("a", np.zeros((1, *SIZE), np.float32), np.array([True, False]), boxes=boxes), INFO
    )
    assert prediction is not None
    assert prediction.instances is not None
    assert prediction.masks is not None
    assert np.array_equal(prediction.instances > 0, prediction.masks)
    first = prediction.instances[0]
    assert len(np.unique(first)) == 4
    assert len(np.unique(first[2:6, 2:6])) == 1
    assert not prediction.instances[1].any()
    assert prediction.present.tolist() == [True, False]


@pytest.mark.parametrize(
    ("annotator", "params"),
    [("altered", {"sigma": 3}), ("dilated", {"size": 5}), ("polygons", {"tolerance": 2}), ("full", {})],
)
def test_masks_are_as_they_were_drawn(annotator: str, params: dict[str, float]) -> None:
    annotated, _ = build("annotator", annotator, **params).annotate(sample(), seed=0)
    prediction = as_prediction(annotated, INFO)
    assert prediction is not None
    assert prediction.masks is not None
    assert prediction.instances is not None
    assert np.array_equal(prediction.masks, annotated.masks)
    assert np.array_equal(prediction.instances, annotated.instances)
    assert np.array_equal(prediction.scores.maps, annotated.masks)
    iou = numbers(annotator, "overlap", sample(), **params)["iou"]
    assert (iou[0] == 1) == (annotator == "full")


def test_wider_outlines_reach_less() -> None:
    found = [numbers("dilated", "overlap", sample(), size=size)["iou"][1] for size in (3, 5, 11)]
    assert found == [round(12**2 / (12 + grown) ** 2, 3) for grown in (2, 4, 10)]


def test_what_leaves_pixels_open_is_no_prediction() -> None:
    ignore = np.zeros(SIZE, bool)
    ignore[:10] = True
    truth = replace(sample(), ignore=ignore)
    for annotator, whole in (("full", True), ("altered", True), ("scribbles", False)):
        annotated, _ = build("annotator", annotator).annotate(truth, seed=0)
        assert (as_prediction(annotated, INFO, truth.ignore) is not None) == whole
        assert (as_prediction(annotated, INFO) is not None) == (annotated.ignore is None)


def test_points_are_points_and_have_no_mask() -> None:
    annotated, _ = build("annotator", "points").annotate(sample(), seed=0)
    prediction = as_prediction(annotated, INFO)
    assert prediction is not None
    assert prediction.masks is prediction.instances is None
    assert numbers("points", "detection", sample())["detection_f1"] == [1, 1]
    assert numbers("points", "localisation", sample())["pointing"] == [1, 1]
    assert all(np.isnan(values).all() for values in numbers("points", "overlap", sample()).values())


def test_labels_alone_say_nowhere() -> None:
    annotated, _ = build("annotator", "image-level").annotate(sample(), seed=0)
    assert as_prediction(annotated, INFO) is None


def test_an_empty_image_is_right_in_every_annotation() -> None:
    empty = np.zeros((2, *SIZE), np.int32)
    truth = Sample("a", np.zeros((1, *SIZE), np.float32), np.zeros(2, bool), masks=empty > 0, instances=empty)
    for annotator in ("full", "boxes", "altered", "polygons"):
        assert numbers(annotator, "classification", truth)["correct"] == [1, 1]
        assert all(np.isnan(numbers(annotator, "overlap", truth)["iou"]))
