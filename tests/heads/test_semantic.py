import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from micraframe.errors import DataError
from micraframe.heads.semantic import Semantic, highest
from micraframe.registry import build
from micraframe.types import ScoreMap, Threshold


def score_map(values, coarse=None, classes=None, status=None):
    values = np.array(values, np.float32)
    classes = tuple(range(len(values))) if classes is None else classes
    coarse = np.ones_like(values) if coarse is None else np.array(coarse, np.float32)
    return ScoreMap(classes, values, coarse, status or ("ok",) * len(classes))


def decide(found, scores, image=None, **params):
    image = np.zeros((1, *found.values.shape[1:]), np.float32) if image is None else image
    return build("head", "semantic", **params).decide(found, np.array(scores, np.float32), image)


def spot(height, width, y, x, radius=2):
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / radius**2)


def test_masks_are_of_all_classes_whichever_were_asked_for():
    found = decide(score_map([spot(9, 14, 4, 3)], classes=(2,)), [0.1, 0.2, 0.9, 0.4])
    assert found.masks.shape == (4, 9, 14)
    assert found.masks.any((1, 2)).tolist() == [False, False, True, False]
    assert found.masks[2, 4, 3]
    assert found.status == ("absent", "absent", "ok", "absent")


def test_what_is_wanted_is_what_is_present():
    head = Semantic(Semantic.Params(decision=(0.2, 0.9, 0.5)))
    assert head.wanted(np.array([0.3, 0.8, 0.5], np.float32)) == (0, 2)


def test_an_image_without_a_finding_has_a_blank_prediction():
    found = decide(score_map(np.zeros((0, 7, 5))), [0.1, 0.2])
    assert found.masks.shape == (2, 7, 5)
    assert not found.masks.any()
    assert found.status == ("absent", "absent")


def test_a_missing_class_is_an_error():
    with pytest.raises(DataError, match=r"classes \[1\] are in the image"):
        decide(score_map([spot(5, 5, 2, 2)]), [0.9, 0.9])


@pytest.mark.parametrize("rule", ["otsu", "triangle", "block-otsu", {"name": "percentile", "value": 80}])
@pytest.mark.parametrize("region", ["none", "coarse", "foreground", "coarse-and-foreground"])
@pytest.mark.parametrize("level", [0, 0.5])
def test_a_constant_map_is_blank_and_says_so(rule, region, level):
    values = np.full((1, 11, 6), level)
    for told, wanted in (("constant", "constant"), ("negative", "negative")):
        found = decide(
            score_map(values, status=(told,)), [0.9], threshold=rule, region=region, rescale=region, smoothing=1
        )
        assert not found.masks.any()
        # Rescaling sees for itself that there is no contrast.
        assert found.status == (wanted if region == "none" else "constant",)


@pytest.mark.parametrize("rule", ["otsu", "block-otsu"])
@pytest.mark.parametrize("region", ["coarse", "coarse-and-foreground"])
def test_an_all_zero_coarse_map_is_blank(rule, region):
    values = spot(9, 9, 4, 4)[None]
    found = decide(score_map(values, np.zeros_like(values)), [0.9], threshold=rule, region=region)
    assert not found.masks.any()
    assert found.status == ("empty",)


def test_rescaling_is_by_the_range_within_the_region():
    values = np.array([[[0.0, 0.2, 0.4, 0.6, 1.0]]])
    coarse = np.array([[[0, 1, 1, 1, 0]]])
    # 0.2 .. 0.6 becomes 0 .. 1, so that 0.5 of it is 0.4; what is outside is clipped.
    fixed = {"name": "fixed", "value": 0.5}
    found = decide(score_map(values, coarse), [0.9], rescale="coarse", threshold=fixed)
    assert found.masks[0, 0].tolist() == [False, False, False, True, True]
    inside = decide(score_map(values, coarse), [0.9], rescale="coarse", region="coarse", threshold=fixed)
    assert inside.masks[0, 0].tolist() == [False, False, False, True, False]


def test_the_image_holds_the_mask_to_its_foreground():
    image = np.zeros((1, 12, 10), np.float32)
    image[0, 3:6, 3:6] = 1
    values = np.ones((1, 12, 10)) * np.linspace(0, 1, 10)
    found = decide(score_map(values), [0.9], image, region="foreground", threshold={"name": "fixed", "value": 0.0})
    assert np.array_equal(found.masks[0], image[0] > 0)
    found = decide(
        score_map(values), [0.9], 1 - image, region="foreground", polarity="dark", threshold="otsu", minimum_size=1
    )
    assert not (found.masks[0] & (image[0] == 0)).any()


def test_smoothing_is_gaussian():
    values = np.random.default_rng(0).random((1, 13, 8)).astype(np.float32)
    found = decide(score_map(values), [0.9], smoothing=1.5, threshold={"name": "fixed", "value": 0.5})
    assert np.array_equal(found.masks[0], ndimage.gaussian_filter(values[0], 1.5) > 0.5)


def test_the_component_with_the_maximum_alone():
    values = np.maximum(spot(20, 20, 4, 4), 0.9 * spot(20, 20, 15, 15))[None]
    both = decide(score_map(values), [0.9])
    one = decide(score_map(values), [0.9], components="maximum")
    assert both.masks[0, 15, 15]
    assert one.masks[0, 4, 4]
    assert not one.masks[0, 15, 15]


def test_small_components_go_and_small_holes_are_filled():
    values = np.zeros((1, 12, 12))
    values[0, 2:7, 2:7] = 1
    values[0, 4, 4] = 0
    values[0, 10, 10] = 1
    found = decide(score_map(values), [0.9], fill_holes=1, minimum_size=2)
    assert found.masks[0, 4, 4]
    assert found.masks.sum() == 25
    assert decide(score_map(values), [0.9], minimum_size=26).status == ("empty",)


@given(st.integers(0, 99))
@settings(max_examples=20)
def test_argmax_leaves_every_claimed_pixel_to_one_class(seed):
    values = np.random.default_rng(seed).random((3, 7, 9), np.float32)
    masks = values > 0.4
    left = highest(masks, values)
    assert np.array_equal(left.sum(0), masks.any(0))
    for y, x in np.argwhere(masks.any(0)):
        claims = [(values[k, y, x], -k) for k in range(3) if masks[k, y, x]]
        assert left[-max(claims)[1], y, x]


def test_argmax_drops_what_became_small_and_says_what_became_blank():
    values = np.stack([spot(10, 10, 5, 5, 3), np.clip(1.5 * spot(10, 10, 5, 5, 3), 0, 1)])
    fixed = {"name": "fixed", "value": 0.3}
    allowed = decide(score_map(values), [0.9, 0.9], threshold=fixed)
    assert (allowed.masks[0] & allowed.masks[1]).any()
    # Only their common peak is left to the first.
    settled = decide(score_map(values), [0.9, 0.9], threshold=fixed, overlap="argmax", minimum_size=2)
    assert not (settled.masks[0] & settled.masks[1]).any()
    assert settled.status == ("empty", "ok")


def test_every_threshold_is_recorded():
    found = decide(score_map([spot(9, 9, 4, 4)]), [0.9], threshold={"name": "percentile", "value": 80})
    assert found.thresholds[0] == Threshold("presence", 0.5)
    assert (found.thresholds[1].name, found.thresholds[1].rule) == ("mask", "percentile 80")
    assert np.isnan(found.thresholds[1].value)
    fixed = decide(score_map([spot(9, 9, 4, 4)]), [0.9], threshold={"name": "fixed", "value": 0.25})
    assert fixed.thresholds[1] == Threshold("mask", 0.25, rule="fixed 0.25")
    assert {threshold.origin for threshold in found.thresholds} == {"fixed"}


def test_the_score_map_is_left_as_it_was():
    given = score_map(np.stack([spot(9, 9, 4, 4), spot(9, 9, 2, 2)]))
    before = given.values.copy(), given.coarse.copy()
    decide(given, [0.9, 0.9], smoothing=1, rescale="coarse", region="coarse", overlap="argmax", fill_holes=9)
    assert np.array_equal(given.values, before[0])
    assert np.array_equal(given.coarse, before[1])
