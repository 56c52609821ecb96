from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from micraframe_unet.targets import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    Counts,
    check_counts,
    count,
    discs,
    log_odds,
    pixel_targets,
)
from torch.nn import functional

from micraframe.errors import DataError
from micraframe.testing import full_samples
from micraframe.types import Annotation, FloatArray, Sample

IMAGE = np.zeros((1, 7, 9), np.float32)


def points(*positions: tuple[float, float]) -> FloatArray:
    return np.array(positions, np.float32).reshape(-1, 2)


def test_masks_annotate_every_pixel_except_ignored_ones() -> None:
    masks = np.zeros((2, 7, 9), bool)
    masks[0, 1:4, 2:5] = True
    masks[1, 2:6, 3:8] = True  # overlaps the first
    ignore = np.zeros((7, 9), bool)
    ignore[2] = True
    targets = pixel_targets(Sample("a", IMAGE, masks=masks, ignore=ignore), 3, None)
    assert targets.dtype == np.uint8
    assert (targets[:, ignore] == UNKNOWN).all()
    assert np.array_equal(targets[:, ~ignore] == PRESENT, masks[:, ~ignore])
    assert np.array_equal(targets[:, ~ignore] == ABSENT, ~masks[:, ~ignore])


def test_boxes_are_filled_within_the_image() -> None:
    boxes = (np.array([[-2, 1, 3, 4], [5, 7, 99, 99]], np.float32), np.zeros((0, 4), np.float32))
    targets = pixel_targets(Sample("a", IMAGE, boxes=boxes), 3, None)
    expected = np.zeros((2, 7, 9), np.uint8)
    expected[0, 0:3, 1:4] = expected[0, 5:, 7:] = PRESENT
    assert np.array_equal(targets, expected)


@given(
    st.lists(st.tuples(st.floats(-2, 10, width=32), st.floats(-2, 12, width=32)), max_size=4),
    st.floats(1, 5),
    st.none() | st.floats(0.5, 8),
)
def test_a_pixel_near_a_point_is_present_and_one_far_from_all_is_absent(
    positions: list[tuple[float, float]], radius: float, background: float | None
) -> None:
    targets = discs(points(*positions), (7, 9), radius, background)
    for y, x in np.ndindex(7, 9):
        squared = min(((y - py) ** 2 + (x - px) ** 2 for py, px in positions), default=np.inf)
        if squared <= radius**2:
            assert targets[y, x] == PRESENT
        elif not positions or (background is not None and squared > background**2):
            assert targets[y, x] == ABSENT
        else:
            assert targets[y, x] == UNKNOWN


def test_a_class_without_a_point_is_not_in_the_image() -> None:
    targets = pixel_targets(Sample("a", IMAGE, points=(points((3, 4)), points())), 1, None)
    assert np.count_nonzero(targets[0] == PRESENT) == 5
    assert np.count_nonzero(targets[0] == UNKNOWN) == IMAGE.size - 5
    assert (targets[1] == ABSENT).all()


def test_the_strongest_annotation_is_used() -> None:
    sample = full_samples(2)[1]
    assert sample.masks is not None
    assert np.array_equal(pixel_targets(sample, 3, None), sample.masks)
    boxed = pixel_targets(sample.keep({Annotation.BOXES, Annotation.POINTS}), 3, None)
    assert (boxed >= sample.masks).all()
    assert UNKNOWN not in boxed


def counts(absent: list[int], present: list[int]) -> Counts:
    return Counts(np.array(absent), np.array(present))


def test_pixels_are_counted_without_the_unknown() -> None:
    absent, present = count(np.array([[[0, 1, 2], [1, 1, 0]], [[2, 2, 2], [0, 2, 2]]], np.uint8))
    assert absent.tolist() == [2, 1]
    assert present.tolist() == [3, 0]


def test_a_class_needs_pixels_without_it() -> None:
    check_counts(counts([5, 5], [5, 0]), ("a", "b"))
    with pytest.raises(DataError, match=r"class 'b': .* all 5 are inside.*background_distance .*`annotator: full`"):
        check_counts(counts([5, 0], [5, 5]), ("a", "b"))
    with pytest.raises(DataError, match="class 'a': .* got none in the training samples"):
        check_counts(counts([0, 5], [0, 5]), ("a", "b"))


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [2.0, 0.5, 9.0]])
def test_log_odds_are_the_best_constant(weights: list[float]) -> None:
    given = counts([900, 10, 8], [100, 20, 0])
    found = torch.from_numpy(log_odds(given, np.array(weights, np.float32))).double()
    assert found.isfinite().all()
    absent, present = (torch.from_numpy(np.asarray(part)).double() + 0.5 for part in given)

    def loss(constant: torch.Tensor) -> torch.Tensor:
        """Return the binary cross-entropy of these numbers of pixels with one logit for all."""
        one = functional.binary_cross_entropy_with_logits
        weight = torch.tensor(weights, dtype=torch.float64)
        ones = torch.ones(3, dtype=torch.float64)
        return present * one(constant, ones, pos_weight=weight, reduction="none") + absent * one(
            constant, 0 * ones, reduction="none"
        )

    for step in (-0.05, 0.05):
        assert (loss(found) < loss(found + step)).all()
