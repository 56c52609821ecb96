"""Cues of the image: their masks, how they are compared, and what they leave of a mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.filters import threshold_otsu

from micraframe.cues import CUES, Cue, agreements, candidates, consensus, cue_map
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


def test_agreement_is_the_mean_iou():
    pairs = [disc(0.9), disc(0.8)]
    bright, dark = cues = [Cue("bright"), Cue("dark")]
    exact = [(image, bright.mask(image)) for image, _ in pairs]
    assert agreements(exact, cues)[bright] == 1
    assert agreements(exact, cues)[dark] < 0.1
    assert agreements([exact[0], (exact[1][0], np.zeros_like(exact[1][1]))], cues)[bright] == 0.5
    assert agreements([], cues) == {bright: 0, dark: 0}
    assert agreements([(np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), np.bool_))], cues)[bright] == 0


@given(BITS, BITS, hnp.arrays(np.bool_, 3))
def test_consensus_by_pixel(masks, cues, has_cue):
    cues = cues & has_cue[:, None, None]
    certain, uncertain = consensus(masks, cues, has_cue)
    for y, x in np.ndindex(5, 4):
        expected, doubt = [], False
        for index in range(3):
            mask, cue = masks[index, y, x], cues[index, y, x]
            expected.append(mask and (cue or not has_cue[index]))
            doubt |= bool(mask and has_cue[index] and not cue)
            doubt |= bool(cue and not masks[:, y, x].any())
        assert certain[:, y, x].tolist() == expected
        assert uncertain[y, x] == doubt


@given(BITS)
def test_without_cues_masks_stay(masks):
    certain, uncertain = consensus(masks, np.zeros_like(masks), np.zeros(3, np.bool_))
    np.testing.assert_array_equal(certain, masks)
    assert not uncertain.any()


@given(st.sampled_from(CUES), st.integers(0, 2**32 - 1))
def test_masks_do_not_depend_on_the_scale_of_values(name, seed):
    image = np.random.default_rng(seed).random((1, 12, 10)).astype(np.float32)
    np.testing.assert_array_equal(Cue(name).mask(image), Cue(name).mask(image * 4))
