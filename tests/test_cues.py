"""Cues of the image: their masks, how they are compared, and what they leave of a mask."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.filters import threshold_otsu
from skimage.measure import label

from micraframe.cues import CUES, Cue, agreements, candidates, claimed_objects, consensus, cue_map
from micraframe.types import FloatArray

BITS = hnp.arrays(np.bool_, (3, 5, 4))


def disc(level: float, background: float = 0.5) -> tuple[FloatArray, np.ndarray]:
    """Return an image (1, 40, 48) of a disc on a flat background, and its mask."""
    y, x = np.mgrid[:40, :48]
    mask = (y - 18) ** 2 + (x - 25) ** 2 < 60
    return np.where(mask, level, background).astype(np.float32)[None], mask


@pytest.mark.parametrize(("name", "level"), [("bright", 0.9), ("dark", 0.1), ("deviation", 0.9), ("deviation", 0.1)])
def test_what_stands_out_is_segmented(name, level):
    image, mask = disc(level)
    found = Cue(name).mask(image)
    assert np.count_nonzero(found & mask) / np.count_nonzero(found | mask) > 0.75


def test_a_rough_region_has_edges():
    rough = np.zeros((1, 60, 60), np.float32)
    rough[0, 20:40, 20:40] = np.indices((20, 20)).sum(0) % 4 < 2
    found = Cue("edges").mask(rough)
    assert found[25:35, 25:35].all()
    assert not found[:8].any()
    assert not found[:, -8:].any()


def test_edges_on_one_side_leave_out_the_halo():
    y, x = np.mgrid[:64, :64]
    distance = np.hypot(y - 31, x - 31)
    inside, halo = distance < 12, (distance >= 12) & (distance < 16)
    image = np.full((64, 64), 0.5, np.float32)
    image[inside] = np.where((y // 3 + x // 3) % 2, 0.05, 0.4)[inside]
    image[halo] = 0.9
    masks = {name: Cue(name).mask(image[None]) for name in ("edges", "dark-edges", "bright-edges")}
    iou = {name: (mask & inside).sum() / (mask | inside).sum() for name, mask in masks.items()}
    assert iou["dark-edges"] > 0.7 > iou["edges"] > iou["bright-edges"]
    inverted = cue_map(1 - image[None], "bright-edges")
    np.testing.assert_allclose(inverted, cue_map(image[None], "dark-edges"), atol=1e-6)


def test_bright_and_dark_are_opposite_and_invariant_to_the_level():
    image, _ = disc(0.9)
    np.testing.assert_array_equal(cue_map(image, "bright"), -cue_map(image, "dark"))
    for name in CUES:
        np.testing.assert_allclose(cue_map(image + 2, name), cue_map(image, name), atol=1e-5)


def test_channels_are_averaged():
    image, _ = disc(0.9)
    coloured = np.concatenate([image * 2, np.zeros_like(image)])
    for name in CUES:
        np.testing.assert_allclose(cue_map(coloured, name), cue_map(image, name), atol=1e-6)


@pytest.mark.parametrize("name", CUES)
def test_any_size(name):
    for shape in ((1, 1, 1), (3, 1, 7), (1, 9, 2)):
        image = np.random.default_rng(0).random(shape).astype(np.float32)
        assert Cue(name).mask(image).shape == shape[1:]
    flat = np.full((1, 8, 8), 0.3, np.float32)
    assert not Cue(name).mask(flat).any()


def test_the_common_threshold_is_otsus_of_all_pixels():
    images = [disc(0.9)[0], disc(0.7)[0], disc(0.5)[0]]
    (own, common) = candidates(images, ["bright"])
    assert own == Cue("bright")
    values = np.stack([cue_map(image, "bright") for image in images])
    expected = threshold_otsu(np.minimum(values, np.quantile(values, 0.999)), nbins=4096)
    assert common.threshold == pytest.approx(expected, abs=0.01)
    assert not common.mask(images[2]).any()


def test_the_common_threshold_is_of_a_sample_of_the_pixels_of_large_images():
    image = np.random.default_rng(1).random((1, 300, 200)).astype(np.float32)
    (_, common) = candidates([image], ["bright"])
    (_, exact) = candidates(
        [image[:, i : i + 60, j : j + 60] for i in range(0, 300, 60) for j in (0, 60, 120)], ["bright"]
    )
    assert common.threshold == pytest.approx(exact.threshold, abs=0.02)


def agreement(examples: list[tuple[np.ndarray, np.ndarray]], cue: Cue, *, whole: bool = False) -> list[float]:
    """Return a cue's agreement with each class, of images that contain every class."""
    given = [(image, masks, np.ones(len(masks), np.bool_)) for image, masks in examples]
    cue = dataclasses.replace(cue, whole=whole)
    return agreements(given, [Cue("edges"), cue])[cue].tolist()


def test_agreement_is_the_mean_iou_over_images_with_the_class():
    bright, dark = Cue("bright"), Cue("dark")
    exact = [(image, bright.mask(image)[None]) for image, _ in (disc(0.9), disc(0.8))]
    assert agreement(exact, bright) == [1]
    assert agreement(exact, dark)[0] < 0.1
    assert agreement([exact[0], (exact[1][0], np.zeros_like(exact[1][1]))], bright) == [0.5]
    assert agreement([(np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.bool_))], bright) == [0]
    image, mask = exact[0]
    examples = [
        (image, np.concatenate([mask, mask & False, mask & False]), np.array([True, False, False])),
        (image, np.concatenate([mask & False] * 3), np.array([False, True, False])),
    ]
    assert agreements(examples, [bright])[bright].tolist() == [1, 0, 0]


def two_discs() -> tuple[np.ndarray, np.ndarray]:
    """Return an image of two bright discs and, as bool (2, H, W), where the bright pixels of each are."""
    one, _ = disc(0.9)
    image = np.concatenate([one, one], axis=2)
    left = np.arange(image.shape[2]) < one.shape[2]
    return image, Cue("bright").mask(image) & np.stack([left, ~left])[:, None]


def test_a_cue_is_not_expected_to_mark_a_class_where_other_classes_are():
    assert agreement([two_discs()], Cue("bright")) == [1, 1]


def test_a_cue_agrees_with_each_of_two_classes_that_overlap():
    image, _ = disc(0.9)
    mask = Cue("bright").mask(image)
    assert agreement([(image, np.stack([mask, mask]))], Cue("bright")) == [1, 1]


def test_by_whole_objects_a_cue_agrees_with_parts_that_tell_objects_apart():
    image, outlines = two_discs()
    parts = outlines & (np.arange(image.shape[1]) % 4 == 0)[:, None]
    assert parts.any(axis=(1, 2)).all()
    bright = Cue("bright")
    assert max(agreement([(image, parts)], bright)) < 0.4
    assert agreement([(image, parts)], bright, whole=True) == [1, 1]
    # An object that nobody claims, or that both do, does not agree.
    alone = parts & np.array([True, False])[:, None, None]
    assert agreement([(image, alone)], bright, whole=True) == [pytest.approx(0.5, abs=0.05), 0]
    assert agreement([(image, parts | parts[::-1])], bright, whole=True) == [0, 0]


def test_by_whole_objects_a_mask_may_be_coarser_than_its_object():
    image, outlines = two_discs()
    rows, columns = (outlines.any(axis=axis) for axis in (2, 1))
    boxes = rows[:, :, None] & columns[:, None, :]
    coarse = np.zeros_like(boxes)
    for shift in (-3, 0, 3):
        coarse |= np.roll(boxes, shift, axis=1)
    bright = Cue("bright")
    assert max(agreement([(image, coarse)], bright)) < 0.6
    assert agreement([(image, coarse)], bright, whole=True) == [1, 1]


def test_by_whole_objects_specks_do_not_agree_with_large_masks():
    image = np.full((1, 40, 80), 0.2, np.float32)
    image[0, 20, [20, 60]] = 1
    x = np.arange(80)
    masks = np.zeros((2, 40, 80), np.bool_)
    masks[:, 5:35] = np.stack([(x > 5) & (x < 35), (x > 45) & (x < 75)])[:, None]
    assert max(agreement([(image, masks)], Cue("bright"), whole=True)) < 0.01


@given(BITS)
def test_agreement_by_whole_objects(masks):
    image = np.random.default_rng(3).random((1, 5, 4)).astype(np.float32)
    marked = Cue("bright").mask(image)
    objects = label(marked, connectivity=2)
    expected = []
    for index, mask in enumerate(masks):
        own, counted = np.zeros_like(mask), np.zeros_like(mask)
        for number in range(1, objects.max() + 1):
            inside = objects == number
            touching = [place for place, other in enumerate(masks) if (other & inside).any()]
            if touching == [index]:
                own |= inside
            if index in touching or not touching:
                counted |= inside
        parts = label(mask, connectivity=2)
        for number in range(1, parts.max() + 1):
            if (own & (parts == number)).sum() < 0.05 * (parts == number).sum():
                counted |= parts == number
        expected.append(np.count_nonzero(own) / max(np.count_nonzero(counted), 1))
    assert agreement([(image, masks)], Cue("bright"), whole=True) == expected


@given(BITS, BITS)
def test_an_object_is_claimed_by_the_only_class_that_covers_a_part_of_it(masks, cues):
    expected = np.zeros_like(masks)
    for index in range(3):
        objects = label(cues[index], connectivity=2)
        for number in range(1, objects.max() + 1):
            inside = objects == number
            if [place for place, mask in enumerate(masks) if (mask & inside).any()] == [index]:
                expected[index] |= inside
    np.testing.assert_array_equal(claimed_objects(masks, cues), expected)


@given(BITS, BITS, hnp.arrays(np.bool_, 3), hnp.arrays(np.bool_, 3))
def test_consensus_by_pixel(masks, cues, has_cue, whole):
    cues, whole = cues & has_cue[:, None, None], whole & has_cue
    certain, uncertain = consensus(masks, cues, has_cue, whole)
    objects = claimed_objects(masks, cues)
    for y, x in np.ndindex(5, 4):
        expected = []
        for index in range(3):
            mask, cue = masks[index, y, x], cues[index, y, x]
            expected.append(objects[index, y, x] if whole[index] else mask and (cue or not has_cue[index]))
        if sum(sure and not mask for mask, sure in zip(masks[:, y, x], expected, strict=True)) > 1:
            expected = [False] * 3
        doubt = any(mask and not sure for mask, sure in zip(masks[:, y, x], expected, strict=True))
        doubt |= cues[:, y, x].any() and not masks[:, y, x].any() and not any(expected)
        assert certain[:, y, x].tolist() == expected
        assert uncertain[y, x] == doubt


@given(BITS)
def test_without_cues_masks_stay(masks):
    none = np.zeros(3, np.bool_)
    certain, uncertain = consensus(masks, np.zeros_like(masks), none, none)
    np.testing.assert_array_equal(certain, masks)
    assert not uncertain.any()


@given(st.sampled_from(CUES), st.integers(0, 2**32 - 1))
def test_masks_do_not_depend_on_the_scale_of_values(name, seed):
    image = np.random.default_rng(seed).random((1, 12, 10)).astype(np.float32)
    np.testing.assert_array_equal(Cue(name).mask(image), Cue(name).mask(image * 4))
