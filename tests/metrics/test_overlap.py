import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, jaccard_score, precision_recall_fscore_support

from micraframe.errors import DataError
from micraframe.metrics.overlap import COLUMNS, boundary_dice, overlap
from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
pairs = sizes.flatmap(lambda size: st.tuples(*[hnp.arrays(np.bool_, size)] * 3))


def measure(truth, masks=None, instances=None, ignore=None, **params):
    count = len(truth)
    scores = Scores.without_maps(np.zeros(count, np.float32))
    prediction = Prediction(scores, np.zeros(count, bool), masks=masks, instances=instances)
    sample = Sample("a", np.zeros((1, *truth.shape[1:]), np.float32), masks=truth, ignore=ignore)
    return build("metric", "overlap", **params).measure(prediction, sample)


@given(pairs)
def test_the_numbers_are_those_of_scikit_learn(three):
    truth, predicted, ignore = three
    found = overlap(truth[None], predicted[None], ignore[None][0])
    t, p = truth[~ignore], predicted[~ignore]
    if not (t.any() or p.any()):
        assert all(np.isnan(value) for value in found.values())
        return
    precision, recall, _, _ = precision_recall_fscore_support(t, p, average="binary", zero_division=np.nan)
    f1 = f1_score(t, p, zero_division=0)
    assert found["precision"][0] == pytest.approx(precision, nan_ok=True)
    assert found["recall"][0] == pytest.approx(recall, nan_ok=True)
    assert found["f1"][0] == pytest.approx(f1)
    assert found["iou"][0] == pytest.approx(jaccard_score(t, p, zero_division=0))


def slow_boundary_dice(truth, predicted, ignore, radius):
    height, width = truth.shape
    pixels = {
        name: {(y, x) for y, x in np.argwhere(mask)} for name, mask in (("t", truth), ("p", predicted), ("i", ignore))
    }
    found = []
    for name in "tp":
        for y, x in pixels[name] - pixels["i"]:
            beside = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)}
            if {(v, u) for v, u in beside if 0 <= v < height and 0 <= u < width} <= pixels[name]:
                continue
            near = {
                (v, u)
                for v in range(max(0, y - radius), min(height, y + radius + 1))
                for u in range(max(0, x - radius), min(width, x + radius + 1))
            } - pixels["i"]
            t, p = pixels["t"] & near, pixels["p"] & near
            found.append(2 * len(t & p) / (len(t) + len(p)))
    t, p = pixels["t"] - pixels["i"], pixels["p"] - pixels["i"]
    whole = 2 * len(t & p) / (len(t) + len(p)) if t or p else np.nan
    return np.mean(found) if found else whole


@given(pairs, st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_boundary_dice_is_its_definition(three, radius):
    truth, predicted, ignore = three
    expected = slow_boundary_dice(truth, predicted, ignore, radius)
    assert boundary_dice(truth, predicted, ignore, radius) == pytest.approx(expected, nan_ok=True)
    assert boundary_dice(predicted, truth, ignore, radius) == pytest.approx(expected, nan_ok=True)


def test_a_perfect_mask_is_one_and_a_disjoint_one_is_zero():
    mask = np.zeros((20, 15), bool)
    mask[3:9, 2:8] = True
    assert boundary_dice(mask, mask) == 1
    assert boundary_dice(mask, np.roll(mask, 9, 0)) == 0
    # A mask that is off by one loses at its boundary what the IOU hardly sees.
    grown = np.zeros_like(mask)
    grown[2:10, 1:9] = True
    assert boundary_dice(mask, grown) < overlap(mask[None], grown[None])["f1"][0]


def test_the_edge_of_the_image_is_no_boundary():
    half, off = np.zeros((2, 64, 64), bool)
    half[:, :32] = off[:, :37] = True
    # Five pixels beyond the true boundary nothing is true, and at the true one 2 * 2 of 2 + 3 columns are shared.
    assert boundary_dice(half, off) == pytest.approx((0.8 + 0) / 2)
    assert boundary_dice(half, half) == 1
    whole, blank = np.ones_like(half), np.zeros_like(half)
    assert boundary_dice(whole, whole) == 1
    assert boundary_dice(whole, blank) == boundary_dice(blank, whole) == boundary_dice(half, blank) == 0
    assert np.isnan(boundary_dice(blank, blank))


def test_two_blank_masks_are_undefined_and_one_blank_mask_is_zero():
    truth, masks = np.zeros((2, 4, 6, 5), bool)
    truth[1, 2, 2] = truth[3, 2, 2] = True
    masks[2, 2, 2] = masks[3, 2, 2] = True
    found = measure(truth, masks)
    assert list(found) == [column.name for column in COLUMNS]
    assert found["precision"] == pytest.approx([np.nan, np.nan, 0, 1], nan_ok=True)
    assert found["recall"] == pytest.approx([np.nan, 0, np.nan, 1], nan_ok=True)
    assert all(values.dtype == np.float32 for values in found.values())
    for name in ("f1", "iou", "boundary_dice"):
        assert found[name] == pytest.approx([np.nan, 0, 0, 1], nan_ok=True)
    assert found["iou_if_present"] == pytest.approx([np.nan, 0, np.nan, 1], nan_ok=True)


def test_ignored_pixels_do_not_count():
    truth, masks = np.zeros((2, 1, 6, 6), bool)
    truth[0, :, :3] = True
    masks[0, :3, :3] = True
    ignore = np.zeros((6, 6), bool)
    ignore[3:] = True
    assert all(value[0] == 1 for value in measure(truth, masks, ignore=ignore).values())
    ignored = measure(truth, masks, ignore=np.ones((6, 6), bool))
    assert all(np.isnan(value[0]) for value in ignored.values())


def test_instances_stand_for_the_mask_of_all():
    truth = np.zeros((1, 6, 6), bool)
    truth[0, 1:3, 1:3] = truth[0, 4, 4] = True
    instances = np.zeros((1, 6, 6), np.int32)
    instances[0, 1:3, 1:3], instances[0, 4, 4] = 1, 2
    assert measure(truth, instances=instances)["iou"] == [1]


def test_without_masks_all_is_undefined():
    found = measure(np.ones((3, 4, 4), bool))
    assert list(found) == [column.name for column in COLUMNS]
    assert all(np.isnan(value).all() and value.shape == (3,) for value in found.values())


def test_a_mask_that_does_not_fit_is_an_error():
    with pytest.raises(DataError, match=r"a: expected .* shape \(1, 4, 4\), .* got \(1, 4, 5\)"):
        measure(np.ones((1, 4, 4), bool), np.ones((1, 4, 5), bool))
