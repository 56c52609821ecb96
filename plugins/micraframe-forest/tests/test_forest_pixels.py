from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from micraframe_forest.pixels import annotated_pixels, choose, distance, shares

from micraframe.errors import DataError
from micraframe.types import Sample

IMAGE = np.zeros((1, 20, 30), np.float32)


def sample(name="one", **annotation):
    return Sample(name, IMAGE, **annotation)


def points(*positions):
    return np.array(positions, np.float32).reshape(-1, 2)


def test_masks_annotate_every_pixel_except_ignored_ones():
    masks = np.zeros((2, 20, 30), bool)
    masks[0, :5] = True
    ignore = np.zeros((20, 30), bool)
    ignore[:, 10:] = True
    found = annotated_pixels(sample(masks=masks, ignore=ignore, points=(points((1, 1)), points())), 3, None)
    assert np.array_equal(found.masks, masks)
    assert np.array_equal(found.where, ~ignore)


def test_instances_and_boxes_are_filled():
    instances = np.zeros((1, 20, 30), np.int32)
    instances[0, 2:4, 5:9] = 7
    boxes = (np.array([[2, 5, 4, 9]], np.float32),)
    for one in (sample(instances=instances), sample(boxes=boxes)):
        found = annotated_pixels(one, 3, None)
        assert np.array_equal(found.masks, instances > 0)
        assert found.where.all()


def test_points_are_discs_and_the_rest_is_unknown():
    given = sample(points=(points((10, 10)), points((3, 20))))
    found = annotated_pixels(given, 2, None)
    y, x = np.mgrid[:20, :30]
    first, second = np.hypot(y - 10, x - 10), np.hypot(y - 3, x - 20)
    assert np.array_equal(found.masks, np.stack([first <= 2, second <= 2]))
    assert np.array_equal(found.where, found.masks.any(0))
    wider = annotated_pixels(given, 2, 6)
    assert np.array_equal(wider.masks, found.masks)
    assert np.array_equal(wider.where, found.masks.any(0) | (np.minimum(first, second) > 6))


@pytest.mark.parametrize("background", [None, 6])
def test_an_image_without_points_is_background(background):
    found = annotated_pixels(sample(points=(points(), points())), 3, background)
    assert not found.masks.any()
    assert found.where.all()


def test_points_outside_the_image_have_no_pixel():
    assert np.isinf(distance(points((-3, 4), (5, 30)), (20, 30))).all()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 200))
def test_shares(counts, total):
    found = shares(counts, total)
    assert all(0 <= share <= count for share, count in zip(found, counts, strict=True))
    assert sum(found) == min(total, sum(counts))
    short = [share for share, count in zip(found, counts, strict=True) if share < count]
    assert not short or max(short) - min(short) <= 1
    assert not short or min(short) >= max(found) - 1


def overlapping():
    masks = np.zeros((2, 20, 30), bool)
    masks[0, :2, :5] = True  # 10 pixels
    masks[1, 1:12] = True  # 330 pixels, 5 of them of both classes
    return [sample("a", masks=masks), sample("b", masks=np.zeros_like(masks)), sample("c", masks=~masks)]


def choose_from(samples, pixels, seed=0, classes=("x", "y")):
    return choose(samples, lambda one: annotated_pixels(one, 3, None), pixels, classes, seed)


def test_the_choice_is_balanced_and_its_weights_compensate():
    samples = overlapping()
    found = choose_from(samples, 120)
    weights = sum(one.weights.sum() for one in found)
    assert weights == pytest.approx(3 * 600, rel=0.25)
    masks = [samples[one.sample].masks.reshape(2, -1)[:, one.pixels] for one in found]
    groups = [
        sum(np.count_nonzero(part) for part in parts) for parts in zip(*[(*m, ~m.any(0)) for m in masks], strict=True)
    ]
    assert all(40 <= group <= 80 for group in groups)
    assert sum(len(one.pixels) for one in found) <= 120
    for one in found:
        assert (np.diff(one.pixels) > 0).all()
        assert (one.weights >= 1).all()


def test_all_are_chosen_if_they_fit():
    found = choose_from(overlapping(), 10_000)
    assert [one.sample for one in found] == [0, 1, 2]
    assert all(np.array_equal(one.pixels, np.arange(600)) and (one.weights == 1).all() for one in found)


def test_the_seed_determines_the_choice():
    def flat(seed):
        return [(one.sample, one.pixels.tolist()) for one in choose_from(overlapping(), 50, seed)]

    assert flat(3) == flat(3)
    assert flat(3) != flat(4)


def test_the_choice_is_uniform_within_a_class():
    masks = np.zeros((1, 20, 30), bool)
    masks[0, :10] = True
    hits = np.zeros(600)
    for seed in range(300):
        for one in choose_from([sample(masks=masks)], 60, seed, ("x",)):
            hits[one.pixels] += 1
    assert hits.sum() == 300 * 60
    assert hits.max() < 60  # binomial(300, 0.1): 30 +- 5.2
    assert hits.min() > 8


def test_unusable_annotation_is_reported():
    full = np.ones((1, 20, 30), bool)
    with pytest.raises(DataError, match="class 'x': .* all 600 are inside.*background_distance"):
        choose_from([sample(masks=full)], 100, classes=("x",))
    with pytest.raises(DataError, match="expected annotated pixels of x, got none"):
        choose_from([sample(masks=~full)], 100, classes=("x",))
    with pytest.raises(DataError, match="expected annotated background, got only points, .*`annotator: full`"):
        choose_from([sample(points=(points((4, 4)), points((9, 20))))], 100)
