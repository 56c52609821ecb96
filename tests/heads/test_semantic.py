import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from micraframe.errors import DataError
from micraframe.heads.semantic import SemanticHead, without_overlap
from micraframe.types import Threshold


def spot(height, width, y, x, radius=2):
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / radius**2)


def test_every_class_has_a_mask_whichever_have_a_map(decide):
    found = decide("semantic", [spot(9, 14, 4, 3)], [0.1, 0.2, 0.9, 0.4], classes=(2,))
    assert found.masks.shape == (4, 9, 14)
    assert found.masks.any((1, 2)).tolist() == [False, False, True, False]
    assert found.masks[2, 4, 3]
    assert found.status == ("absent", "absent", "ok", "absent")


def test_maps_are_found_by_class_in_whatever_order_they_come(decide):
    first, second = spot(9, 14, 4, 3), spot(9, 14, 4, 10)
    found = decide("semantic", [second, first], [0.9, 0.9], classes=(1, 0), status=("ok", "negative"))
    assert found.masks[0, 4, 3]
    assert found.masks[1, 4, 10]


def test_classes_that_are_present_are_explained():
    head = SemanticHead(SemanticHead.Params(presence_threshold=(0.2, 0.9, 0.5)))
    assert head.classes_to_explain(np.array([0.3, 0.8, 0.5], np.float32)) == (0, 2)


def test_an_image_in_which_nothing_is_present_has_empty_masks(decide):
    found = decide("semantic", np.zeros((0, 7, 5)), [0.1, 0.2])
    assert found.masks.shape == (2, 7, 5)
    assert not found.masks.any()
    assert found.status == ("absent", "absent")


def test_a_missing_map_is_an_error(decide):
    with pytest.raises(DataError, match=r"expected a map of class 1, got maps of \[0\]"):
        decide("semantic", [spot(5, 5, 2, 2)], [0.9, 0.9])


@pytest.mark.parametrize("rule", ["otsu", "triangle", "block-otsu", {"name": "percentile", "value": 80}])
@pytest.mark.parametrize("region", ["none", "coarse", "foreground", "coarse-and-foreground"])
@pytest.mark.parametrize("level", [0, 0.5])
def test_a_constant_map_gives_an_empty_mask_and_the_reason(decide, rule, region, level):
    values = np.full((1, 11, 6), level)
    for status in ("constant", "negative"):
        found = decide(
            "semantic",
            values,
            [0.9],
            coarse=np.ones_like(values),
            status=(status,),
            mask_threshold=rule,
            region=region,
            rescale=region,
            smoothing=1,
        )
        assert not found.masks.any()
        # Rescaling finds out by itself that there is no contrast.
        assert found.status == (status if region == "none" else "constant",)


@pytest.mark.parametrize("rule", ["otsu", "block-otsu"])
@pytest.mark.parametrize("region", ["coarse", "coarse-and-foreground"])
def test_a_coarse_map_of_zeros_gives_an_empty_mask(decide, rule, region):
    values = spot(9, 9, 4, 4)[None]
    found = decide("semantic", values, [0.9], coarse=np.zeros_like(values), mask_threshold=rule, region=region)
    assert not found.masks.any()
    assert found.status == ("empty",)


@pytest.mark.parametrize("rule", ["otsu", "block-otsu"])
@pytest.mark.parametrize("option", ["region", "rescale"])
def test_without_a_coarse_map_the_map_itself_takes_its_place(decide, rule, option):
    values = np.where(spot(30, 21, 9, 12, 6) > 0.2, spot(30, 21, 9, 12, 6), 0)[None]
    params = {"mask_threshold": rule, option: "coarse"}
    without = decide("semantic", values, [0.9], **params)
    assert without.masks.any()
    assert np.array_equal(without.masks, decide("semantic", values, [0.9], coarse=values, **params).masks)


def test_rescaling_uses_the_range_within_the_region(decide):
    values = np.array([[[0.0, 0.2, 0.4, 0.6, 1.0]]])
    coarse = np.array([[[0, 1, 1, 1, 0]]])
    # 0.2 .. 0.6 becomes 0 .. 1, so 0.5 of it is 0.4; values outside are clipped.
    fixed = {"name": "fixed", "value": 0.5}
    found = decide("semantic", values, [0.9], coarse=coarse, rescale="coarse", mask_threshold=fixed)
    assert found.masks[0, 0].tolist() == [False, False, False, True, True]
    inside = decide("semantic", values, [0.9], coarse=coarse, rescale="coarse", region="coarse", mask_threshold=fixed)
    assert inside.masks[0, 0].tolist() == [False, False, False, True, False]


def test_the_mask_is_confined_to_the_foreground_of_the_image(decide):
    image = np.zeros((1, 12, 10), np.float32)
    image[0, 3:6, 3:6] = 1
    values = np.ones((1, 12, 10)) * np.linspace(0, 1, 10)
    zero = {"name": "fixed", "value": 0.0}
    found = decide("semantic", values, [0.9], image=image, region="foreground", mask_threshold=zero)
    assert np.array_equal(found.masks[0], image[0] > 0)
    found = decide("semantic", values, [0.9], image=1 - image, region="foreground", polarity="dark", minimum_size=1)
    assert not (found.masks[0] & (image[0] == 0)).any()


def test_smoothing_is_gaussian(decide):
    values = np.random.default_rng(0).random((1, 13, 8)).astype(np.float32)
    found = decide("semantic", values, [0.9], smoothing=1.5, mask_threshold={"name": "fixed", "value": 0.5})
    assert np.array_equal(found.masks[0], ndimage.gaussian_filter(values[0], 1.5) > 0.5)


def test_smoothing_after_rescaling_is_of_the_clipped_values(decide):
    values = np.random.default_rng(0).random((1, 13, 8)).astype(np.float32)
    coarse = (values > 0.3) & (values < 0.6)
    inside = values[coarse]
    clipped = np.clip((values[0] - inside.min()) / (inside.max() - inside.min()), 0, 1)
    fixed = {"name": "fixed", "value": 0.5}
    found = decide("semantic", values, [0.9], coarse=coarse, rescale="coarse", smoothing_after=2, mask_threshold=fixed)
    assert np.array_equal(found.masks[0], ndimage.gaussian_filter(clipped, 2) > 0.5)


def test_only_the_component_with_the_maximum(decide):
    values = np.maximum(spot(20, 20, 4, 4), 0.9 * spot(20, 20, 15, 15))[None]
    both = decide("semantic", values, [0.9])
    one = decide("semantic", values, [0.9], components="maximum")
    assert both.masks[0, 15, 15]
    assert one.masks[0, 4, 4]
    assert not one.masks[0, 15, 15]


def test_small_components_are_removed_and_small_holes_filled(decide):
    values = np.zeros((1, 12, 12))
    values[0, 2:7, 2:7] = 1
    values[0, 4, 4] = 0
    values[0, 10, 10] = 1
    found = decide("semantic", values, [0.9], fill_holes=1, minimum_size=2)
    assert found.masks[0, 4, 4]
    assert found.masks.sum() == 25
    assert decide("semantic", values, [0.9], minimum_size=26).status == ("empty",)


@given(st.integers(0, 99))
@settings(max_examples=20)
def test_argmax_leaves_every_claimed_pixel_to_one_class(seed):
    values = np.random.default_rng(seed).random((3, 7, 9), np.float32)
    masks = values > 0.4
    left = without_overlap(masks, values)
    assert np.array_equal(left.sum(0), masks.any(0))
    for y, x in np.argwhere(masks.any(0)):
        claims = [(values[k, y, x], -k) for k in range(3) if masks[k, y, x]]
        assert left[-max(claims)[1], y, x]


def test_argmax_removes_what_became_small_and_reports_what_became_empty(decide):
    values = np.stack([spot(10, 10, 5, 5, 3), np.clip(1.5 * spot(10, 10, 5, 5, 3), 0, 1)])
    fixed = {"name": "fixed", "value": 0.3}
    allowed = decide("semantic", values, [0.9, 0.9], mask_threshold=fixed)
    assert (allowed.masks[0] & allowed.masks[1]).any()
    # Only their common peak is left to the first.
    settled = decide("semantic", values, [0.9, 0.9], mask_threshold=fixed, overlap="argmax", minimum_size=2)
    assert not (settled.masks[0] & settled.masks[1]).any()
    assert settled.status == ("empty", "ok")


def test_every_threshold_is_recorded(decide):
    found = decide("semantic", [spot(9, 9, 4, 4)], [0.9], mask_threshold={"name": "percentile", "value": 80})
    assert found.thresholds[0] == Threshold("presence", 0.5)
    assert (found.thresholds[1].name, found.thresholds[1].rule) == ("mask", "percentile 80")
    assert np.isnan(found.thresholds[1].value)
    fixed = decide("semantic", [spot(9, 9, 4, 4)], [0.9], mask_threshold={"name": "fixed", "value": 0.25})
    assert fixed.thresholds[1] == Threshold("mask", 0.25, rule="fixed 0.25")
    assert {threshold.origin for threshold in found.thresholds} == {"fixed"}
