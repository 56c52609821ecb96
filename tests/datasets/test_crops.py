from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.crops import (
    AMBIGUOUS,
    NEGATIVE,
    POSITIVE,
    LabelRule,
    Window,
    crop_boxes,
    crop_points,
    crop_sample,
    grid,
    judge_windows,
    with_objects,
)
from micraframe.errors import DataError
from micraframe.types import Sample


@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    crop=st.integers(1, 30),
    data=st.data(),
)
def test_crops_cover_every_pixel_and_none_beyond(size: tuple[int, int], crop: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, crop))
    windows = grid(size, crop, stride)
    covered = np.zeros(size, int)
    for window in windows:
        part = covered[window.place]
        assert part.shape == (min(crop, size[0]), min(crop, size[1])) == (window.height, window.width)
        part += 1
    assert covered.min() == 1 or stride < crop
    assert covered.all()
    assert len(set(windows)) == len(windows)


def test_a_grid_that_fits_is_plain() -> None:
    assert [(w.y, w.x) for w in grid((4, 6), 2, 2)] == [(0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4)]
    assert [(w.y, w.x) for w in grid((5, 2), 2, 2)] == [(0, 0), (2, 0), (3, 0)]


@given(
    masks=hnp.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))),
    share=st.floats(0, 1),
)
def test_labels_follow_from_the_annotated_share(masks: np.ndarray, share: float) -> None:
    size = masks.shape[1:]
    windows = [Window(0, 0, *size), Window(0, 0, size[0], 1)]
    answers = judge_windows(ImageAnnotation(masks=masks), size, windows, LabelRule("share", share))
    for window, row in zip(windows, answers, strict=True):
        for mask, answer in zip(masks[..., *window.place], row, strict=True):
            pixels = sum(int(value) for line in mask.tolist() for value in line)
            if pixels == 0:
                assert answer == NEGATIVE
            else:
                assert answer == (POSITIVE if pixels >= share * mask.size else AMBIGUOUS)


def test_an_object_is_visible_where_enough_of_it_is_inside() -> None:
    instances = np.zeros((1, 10, 20), np.int32)
    instances[0, 2:6, 6:16] = 1
    boxes = (np.array([[2, 6, 6, 16]], np.float32),)
    windows = [Window(0, 0, 10, length) for length in (6, 7, 10, 11, 20)]
    expected = [[NEGATIVE], [AMBIGUOUS], [AMBIGUOUS], [POSITIVE], [POSITIVE]]
    for annotation in (
        ImageAnnotation(instances=instances),
        ImageAnnotation(instances=instances * (2**31 - 1)),  # a list of as many numbers would fill the memory
        ImageAnnotation(masks=instances > 0),
        ImageAnnotation(boxes=boxes),
    ):
        assert judge_windows(annotation, (10, 20), windows, LabelRule("visible", 0.5)).tolist() == expected
    point = ImageAnnotation(points=(np.array([[4, 10]], np.float32),))
    assert judge_windows(point, (10, 20), windows, LabelRule("visible", 0.5)).ravel().tolist() == [0, 0, 0, 1, 1]
    assert judge_windows(point, (10, 20), windows, LabelRule()).ravel().tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(DataError, match="points have no area"):
        judge_windows(point, (10, 20), windows, LabelRule("share", 0.1))


def test_several_boxes_cover_a_pixel_once() -> None:
    boxes = (np.array([[0, 0, 2, 2], [1, 1, 3, 3], [-5, -5, 1, 1]], np.float32), np.zeros((0, 4), np.float32))
    covered = ImageAnnotation(boxes=boxes).coverage((4, 4))
    assert covered[0].sum() == 7
    assert not covered[1].any()
    assert ImageAnnotation(boxes=(np.array([[0.5, 0.5, 1.5, 1.5]], np.float32),)).coverage((4, 4)).sum() == 4


def test_boxes_are_clipped_and_objects_outside_dropped() -> None:
    window = Window(10, 20, 8, 8)
    boxes = np.array([[8, 18, 12, 24], [0, 0, 10, 20], [11, 21, 13, 23], [12, 28, 14, 30]], np.float32)
    assert crop_boxes(boxes, window).tolist() == [[0, 0, 2, 4], [1, 1, 3, 3]]
    points = np.array([[10, 20], [17.4, 27.4], [17.6, 27], [9.4, 20]], np.float32)
    np.testing.assert_allclose(crop_points(points, window), [[0, 0], [7.4, 7.4]], atol=1e-5)


def test_a_crop_is_cut_with_everything_that_is_annotated() -> None:
    rng = np.random.default_rng(0)
    instances = rng.integers(0, 3, (2, 9, 8)).astype(np.int32)
    sample = Sample(
        "a",
        rng.random((1, 9, 8), np.float32),
        labels=np.ones(2, bool),
        boxes=(np.array([[0, 0, 9, 8]], np.float32),) * 2,
        masks=instances > 0,
        instances=instances,
        ignore=instances[0] > 1,
        group="g",
    )
    crop = crop_sample(sample, Window(2, 3, 4, 5))
    assert (crop.id, crop.group, crop.labels) == ("a@y2x3", "g", None)
    for name in ("image", "masks", "instances", "ignore"):
        np.testing.assert_array_equal(getattr(crop, name), getattr(sample, name)[..., 2:6, 3:8])
        assert not np.shares_memory(getattr(crop, name), getattr(sample, name))
    assert crop.boxes[0].tolist() == [[0, 0, 4, 5]]
    assert len(with_objects(crop).points[0]) == len(np.unique(crop.instances[0])) - 1
    assert with_objects(crop).boxes[0].tolist() == [[0, 0, 4, 5]]
