from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from micraframe import registry
from micraframe.annotators.altered import alter
from micraframe.annotators.annotate import annotate_samples
from micraframe.annotators.ceiling import filled_objects
from micraframe.annotators.dilated import dilate
from micraframe.annotators.points import random_points
from micraframe.annotators.polygons import polygons
from micraframe.annotators.scribbles import stroke
from micraframe.datasets.annotation import ImageAnnotation
from micraframe.errors import DataError
from micraframe.interfaces import Annotator
from micraframe.objects import bounding_boxes, components, fill
from micraframe.parameters import Parameters
from micraframe.testing import check
from micraframe.types import Annotation, Sample, Work

GIVES = {
    "image-level": {"labels"},
    "points": {"labels", "points"},
    "scribbles": {"labels", "masks", "ignore"},
    "boxes": {"labels", "boxes"},
    "polygons": {"labels", "masks", "instances"},
    "altered": {"labels", "masks", "instances"},
    "dilated": {"labels", "masks", "instances"},
    "full": {"labels", "masks", "instances"},
}
FIELDS = {"ignore", *(annotation.value for annotation in Annotation)}

INSTANCES = hnp.arrays(np.int32, st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 12))).map(
    lambda noise: np.stack([ndimage.label(plane % 3 == 0)[0].astype(np.int32) for plane in noise])
)
BLOBS = st.integers(0, 10_000).map(
    lambda seed: components(
        ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(2, 31, 24)), (0, 2, 2)) > 0.1
    )
)


def full_sample(instances: np.ndarray, name: str = "sample", **changes: Any) -> Sample:
    masks = instances > 0
    sample = Sample(
        name,
        np.zeros((1, *instances.shape[1:]), np.float32),
        labels=masks.any((1, 2)),
        points=tuple(np.zeros((0, 2), np.float32) for _ in instances),
        boxes=bounding_boxes(instances),
        masks=masks,
        instances=instances,
        group="slide",
        source="/where/the/masks/are/too.png",
    )
    return dataclasses.replace(sample, **changes)


@pytest.mark.parametrize("name", GIVES)
def test_it_passes_the_conformance_suite(name: str) -> None:
    check("annotator", name)


@pytest.mark.parametrize("name", GIVES)
@settings(max_examples=25, deadline=None)
@given(instances=INSTANCES)
def test_only_its_own_annotation_is_left(name: str, instances: np.ndarray) -> None:
    sample = full_sample(instances)
    weaker, work = registry.build("annotator", name).annotate(sample, seed=1)
    assert {field for field in FIELDS if getattr(weaker, field) is not None} == GIVES[name]
    np.testing.assert_array_equal(weaker.image, sample.image)
    assert not np.shares_memory(weaker.image, sample.image)
    assert (weaker.id, weaker.group) == (sample.id, sample.group)
    np.testing.assert_array_equal(weaker.labels, sample.labels)
    assert weaker.source == ""
    assert work.images == 1
    if weaker.masks is not None and weaker.instances is not None:
        np.testing.assert_array_equal(weaker.masks, weaker.instances > 0)


@pytest.mark.parametrize("name", GIVES)
def test_the_annotation_depends_on_seed_and_id_only(name: str) -> None:
    instances = components(np.random.default_rng(0).random((2, 40, 50)) < 0.4)
    annotator = registry.build("annotator", name)

    def content(sample: Sample, seed: int) -> list[Any]:
        weaker, work = annotator.annotate(sample, seed)
        values = [getattr(weaker, field) for field in sorted(FIELDS)]
        return [work, *(None if value is None else [np.asarray(part).tobytes() for part in value] for value in values)]

    first = content(full_sample(instances), 1)
    assert content(full_sample(instances, "another"), 1) is not None
    assert content(full_sample(instances), 1) == first
    if name in ("altered", "scribbles"):
        assert content(full_sample(instances), 2) != first
        assert content(full_sample(instances, "another"), 1) != first


@pytest.mark.parametrize("name", sorted(GIVES.keys() - {"image-level"}))
def test_without_objects_there_is_nothing_to_annotate(name: str) -> None:
    bare = Sample("bare", np.zeros((1, 4, 4), np.float32), labels=np.array([True]))
    with pytest.raises(DataError, match="'bare': expected instances or masks"):
        registry.build("annotator", name).annotate(bare, 0)


def test_without_labels_there_is_nothing_to_annotate() -> None:
    with pytest.raises(DataError, match="'bare': expected labels"):
        registry.build("annotator", "image-level").annotate(Sample("bare", np.zeros((1, 4, 4), np.float32)), 0)


@pytest.mark.parametrize("name", sorted(GIVES.keys() - {"image-level"}))
def test_masks_alone_are_enough(name: str) -> None:
    instances = np.zeros((1, 20, 20), np.int32)
    instances[0, 3:9, 3:9] = 1
    weaker, work = registry.build("annotator", name).annotate(
        dataclasses.replace(full_sample(instances), instances=None), 0
    )
    assert weaker.labels.tolist() == [True]
    assert work.decisions >= 1
    assert (weaker.instances is None) == (name not in ("polygons", "altered", "dilated"))


def test_boxes_alone_are_enough_for_boxes() -> None:
    boxes = (np.array([[1.5, 2, 6, 9], [4, 4, 10, 12]], np.float32), np.zeros((0, 4), np.float32))
    sample = Sample("smear", np.zeros((1, 12, 12), np.float32), labels=np.array([True, False]), boxes=boxes)
    for filled in (False, True):
        weaker, work = registry.build("annotator", "boxes", filled=filled).annotate(sample, 0)
        assert all(map(np.array_equal, weaker.boxes, boxes))
        assert work == Work("box", 1, 2, 2, 2)
        assert (weaker.masks is not None) == filled
    with pytest.raises(DataError, match="'smear': expected instances or masks"):
        registry.build("annotator", "full").annotate(sample, 0)


def test_work_counts_what_is_drawn() -> None:
    instances = np.zeros((2, 40, 40), np.int32)
    instances[0, 5:10, 5:10], instances[0, 20:25, 5:10], instances[1, 20:24, 20:24] = 1, 2, 1
    sample = full_sample(instances)
    expected = {
        "image-level": Work("image-level", 1, 0, 1, 2),
        "points": Work("point", 1, 3, 3, 2),
        "boxes": Work("box", 1, 3, 3, 2),
        "full": Work("outline", 1, 3, 16 + 16 + 12, 2),
        "dilated": Work("outline", 1, 3, 3 * 32 - 4, 2),
    }
    for name, work in expected.items():
        assert registry.build("annotator", name).annotate(sample, 0)[1] == work
    assert registry.build("annotator", "polygons", tolerance=1).annotate(sample, 0)[1] == Work("outline", 1, 3, 12, 2)
    scribbles = registry.build("annotator", "scribbles", share=1, background=2).annotate(sample, 0)[1]
    assert scribbles == Work("scribble", 1, 5, 5, 2)


def test_annotated_samples_hold_only_what_is_allowed_and_work_is_summed() -> None:
    class Alternating(Annotator[Parameters]):
        def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
            task = "point" if sample.id == "b" else "outline"
            return sample, Work(task, objects=2, decisions=seed)

    instances = np.zeros((1, 20, 20), np.int32)
    instances[0, 3:9, 3:9] = 1
    samples = [full_sample(instances, name) for name in "abc"]
    kept, works = annotate_samples(samples, Alternating(Parameters()), frozenset({Annotation.LABELS}), seed=4)
    assert [sample.id for sample in kept] == ["a", "b", "c"]
    for sample, whole in zip(kept, samples, strict=True):
        assert {field for field in FIELDS if getattr(sample, field) is not None} == {"labels"}
        assert not np.shares_memory(sample.image, whole.image)
    assert works == (Work("outline", 2, 4, 8), Work("point", 1, 2, 4))
    assert annotate_samples([], Alternating(Parameters()), frozenset(), 0) == ((), ())


@given(INSTANCES, st.integers(0, 100))
def test_random_points_are_inside_their_object(instances: np.ndarray, seed: int) -> None:
    for labels, points in zip(instances, random_points(instances, np.random.default_rng(seed)), strict=True):
        assert labels[tuple(points.astype(int).T)].tolist() == np.unique(labels[labels > 0]).tolist()


@pytest.mark.parametrize("place", ["inside", "centroid", "random"])
def test_every_object_gets_a_point(place: str) -> None:
    ring = np.zeros((1, 9, 9), np.int32)
    ring[0, 1:8, 1:8], ring[0, 2:7, 2:7] = 4, 0
    weaker, _ = registry.build("annotator", "points", place=place).annotate(full_sample(ring), 0)
    (point,) = weaker.points[0]
    assert (ring[0][tuple(point.astype(int))] == 4) == (place != "centroid")


@given(INSTANCES)
def test_filled_boxes_hold_their_objects(instances: np.ndarray) -> None:
    filled = fill(bounding_boxes(instances), instances.shape[1:])
    assert filled[instances > 0].all()
    expected = np.zeros_like(filled)
    for mask, labels in zip(expected, instances, strict=True):
        for window in ndimage.find_objects(labels):
            mask[window] = True
    np.testing.assert_array_equal(filled, expected)
    weaker, _ = registry.build("annotator", "boxes", filled=True).annotate(full_sample(instances), 0)
    np.testing.assert_array_equal(weaker.masks, filled)
    assert weaker.instances is None


def test_a_box_covers_every_pixel_that_it_touches_wherever_it_is_filled() -> None:
    boxes = (np.array([[2.2, 2.2, 2.9, 2.9], [4.5, 4.5, 8.5, 8.5], [-3, 9.5, 0.5, 40]], np.float32),)
    expected = np.zeros((1, 12, 12), bool)
    expected[0, 2, 2] = expected[0, 4:9, 4:9] = expected[0, 0, 9:] = True
    np.testing.assert_array_equal(fill(boxes, (12, 12)), expected)
    np.testing.assert_array_equal(filled_objects(boxes, (12, 12)) > 0, expected)
    np.testing.assert_array_equal(ImageAnnotation(boxes=boxes).coverage((12, 12)), expected)


@settings(deadline=None)
@given(st.one_of(INSTANCES, BLOBS))
def test_polygons_without_tolerance_are_the_objects(instances: np.ndarray) -> None:
    np.testing.assert_array_equal(polygons(instances, 0)[0], instances)


@settings(deadline=None)
@given(instances=st.one_of(INSTANCES, BLOBS), tolerance=st.floats(0, 6))
def test_polygons_stay_near_and_lose_no_object(instances: np.ndarray, tolerance: float) -> None:
    drawn, corners = polygons(instances, tolerance)
    for before, after in zip(instances, drawn, strict=True):
        assert np.unique(before[before > 0]).tolist() == np.unique(after[after > 0]).tolist()
        for number in np.unique(before[before > 0]):
            # Pixels gained are within the tolerance, and the rounding of lines, of the object.
            distance = ndimage.distance_transform_edt(before != number)
            assert distance[after == number].max(initial=0) <= tolerance + 1
    assert corners >= sum(len(np.unique(labels)) - 1 for labels in instances)


def test_simpler_polygons_have_fewer_corners() -> None:
    y, x = np.mgrid[:61, :61]
    disc = (np.hypot(y - 30, x - 30) < 25).astype(np.int32)[None]
    fine, coarse = polygons(disc, 0.5), polygons(disc, 5)
    assert 3 <= coarse[1] < fine[1]
    assert np.mean(fine[0] == disc) > np.mean(coarse[0] == disc) > 0.9


def slowly_altered(own: np.ndarray, error: int) -> np.ndarray:
    """Return the altered object, each pixel decided by itself from all distances."""
    inside, outside = np.argwhere(own), np.argwhere(~own)
    result = np.zeros_like(own)
    for pixel in np.ndindex(own.shape):
        if error >= 0:
            result[pixel] = own[pixel] or ((inside - pixel) ** 2).sum(1).min() <= error**2
        else:
            result[pixel] = own[pixel] and (len(outside) == 0 or ((outside - pixel) ** 2).sum(1).min() > error**2)
    return result


@settings(deadline=None, max_examples=50)
@given(own=hnp.arrays(bool, st.tuples(st.integers(2, 9), st.integers(2, 9))), error=st.integers(-3, 3))
def test_an_object_is_dilated_or_eroded_by_its_error(own: np.ndarray, error: int) -> None:
    class Fixed(np.random.Generator):
        def normal(self, *_: Any) -> float:
            return error + 0.2

    altered = alter(own[None].astype(np.int32) * 3, 1, Fixed(np.random.PCG64()))[0]
    expected = slowly_altered(own, error) if own.any() else own
    if expected.any() or not own.any():
        np.testing.assert_array_equal(altered, expected * 3)
    else:
        # It would have vanished: what is deepest stays.
        depth = ndimage.distance_transform_edt(own)
        np.testing.assert_array_equal(altered == 3, depth > depth.max() - 1)


@settings(deadline=None)
@given(instances=INSTANCES, sigma=st.floats(0, 8), seed=st.integers(0, 100))
def test_no_object_vanishes_however_wrong_the_outlines(instances: np.ndarray, sigma: float, seed: int) -> None:
    altered = alter(instances, sigma, np.random.default_rng(seed))
    assert altered.dtype == np.int32
    for before, after in zip(instances, altered, strict=True):
        assert np.unique(before[before > 0]).tolist() == np.unique(after[after > 0]).tolist()
    np.testing.assert_array_equal(alter(instances, 0, np.random.default_rng(seed)), instances)


@settings(deadline=None)
@given(instances=INSTANCES, size=st.integers(1, 6))
def test_objects_are_dilated_by_a_square(instances: np.ndarray, size: int) -> None:
    wider = dilate(instances, size)
    before, after = size // 2, (size - 1) // 2
    for labels, got in zip(instances, wider, strict=True):
        for y, x in np.ndindex(labels.shape):
            # The square reaches `before` pixels down and right of an object, `after` up and left.
            seen = labels[max(0, y - before) : y + after + 1, max(0, x - before) : x + after + 1]
            assert got[y, x] == (labels[y, x] or seen.max())


@settings(deadline=None)
@given(
    region=hnp.arrays(bool, st.tuples(st.integers(1, 15), st.integers(1, 15))).filter(lambda region: region.any()),
    length=st.integers(1, 20),
    width=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_a_stroke_never_leaves_its_region(region: np.ndarray, length: int, width: int, seed: int) -> None:
    drawn = stroke(region, length, width, np.random.default_rng(seed))
    assert drawn.any()
    assert not (drawn & ~region).any()
    assert drawn.sum() <= (length + 1 + width) * (width + 2) * 2


@settings(deadline=None, max_examples=50)
@given(BLOBS, st.floats(0.01, 1))
def test_scribbles_agree_with_the_truth_and_cover_every_class(instances: np.ndarray, share: float) -> None:
    sample = full_sample(instances)
    weaker, work = registry.build("annotator", "scribbles", share=share).annotate(sample, 0)
    drawn = ~weaker.ignore
    np.testing.assert_array_equal(weaker.masks, sample.masks & drawn)
    np.testing.assert_array_equal(weaker.masks.any((1, 2)), sample.labels)
    objects = sum(int(np.ceil(share * labels.max())) for labels in instances)
    assert work.decisions == objects + 3 * bool((~sample.masks.any(0)).any())
    assert drawn.mean() < 0.7


def test_scribbles_avoid_ignored_pixels() -> None:
    instances = np.zeros((1, 20, 20), np.int32)
    instances[0, :, :10] = 1
    ignore = np.zeros((20, 20), bool)
    ignore[:10] = True
    weaker, _ = registry.build("annotator", "scribbles").annotate(full_sample(instances, ignore=ignore), 0)
    assert weaker.ignore[:10].all()
    assert weaker.masks.any()
