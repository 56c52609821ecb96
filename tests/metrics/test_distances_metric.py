import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from micraframe.errors import DataError
from micraframe.metrics.distances import COLUMNS, centroid_distance, contour_distance
from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores


def measure(truth, ignore=None, **found):
    prediction = Prediction(Scores.without_maps(np.zeros(len(truth), np.float32)), np.zeros(len(truth), bool), **found)
    sample = Sample("a", np.zeros((1, *truth.shape[1:]), np.float32), masks=truth, ignore=ignore)
    return build("metric", "distances").measure(prediction, sample)


def square(y, x, edge=5):
    mask = np.zeros((24, 30), bool)
    mask[y : y + edge, x : x + edge] = True
    return mask


def test_a_shifted_mask_is_as_far_as_it_was_shifted():
    assert centroid_distance(square(3, 4), square(6, 8)) == 5
    assert contour_distance(square(3, 4), square(3, 4)) == 0
    # A square within a square, two pixels away all around, farther only at the corners.
    assert 2 <= contour_distance(square(5, 5, 11), square(7, 7, 7)) < 2.3


def test_a_blank_mask_has_no_distance():
    blank = np.zeros((24, 30), bool)
    assert np.isnan(centroid_distance(square(1, 1), blank))
    assert np.isnan(contour_distance(blank, square(1, 1)))


def test_the_edge_of_the_image_is_no_contour():
    one, other = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    one[:, :15], other[:, :20] = True, True
    assert contour_distance(one, other) == 5
    # A mask that fills the image has no contour.
    assert np.isnan(contour_distance(np.ones((40, 40), bool), one))


@given(hnp.arrays(np.bool_, (5, 6)), hnp.arrays(np.bool_, (5, 6)))
def test_contour_distance_is_its_definition(one, other):
    def contour(mask):
        padded = np.pad(mask, 1, mode="edge")  # the image's edge is no contour
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return np.argwhere(mask & ~inner)

    a, b = contour(one), contour(other)
    if not (len(a) and len(b)):
        assert np.isnan(contour_distance(one, other))
        return
    steps = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    expected = np.concatenate([steps.min(1), steps.min(0)]).mean()
    assert contour_distance(one, other) == pytest.approx(expected)


def test_distances_are_defined_where_truth_and_prediction_contain_the_class():
    blank = np.zeros((24, 30), bool)
    truth, masks = np.stack([square(3, 4), square(1, 1), blank]), np.stack([square(6, 8), blank, blank])
    found = measure(truth, masks=masks)
    assert list(found) == [column.name for column in COLUMNS]
    assert not any(column.higher_is_better for column in COLUMNS)
    assert found["centroid_distance"] == pytest.approx([5, np.nan, np.nan], nan_ok=True)
    expected = contour_distance(truth[0], masks[0])
    assert found["contour_distance"] == pytest.approx([expected, np.nan, np.nan], nan_ok=True)
    assert all(values.dtype == np.float32 for values in found.values())
    again = measure(truth, instances=masks.astype(np.int32))
    for name in found:
        np.testing.assert_array_equal(again[name], found[name])


def test_ignored_pixels_are_neither_mask_nor_contour():
    truth, masks = square(3, 4, 10), square(3, 4, 10) | square(20, 20, 3)
    ignore = np.zeros((24, 30), bool)
    ignore[18:] = True
    assert measure(truth[None], masks=masks[None])["contour_distance"][0] > 1
    assert measure(truth[None], ignore, masks=masks[None])["contour_distance"] == [0]
    assert measure(truth[None], ignore, masks=masks[None])["centroid_distance"] == [0]
    # Where what counts ends, the structure does not.
    ignore[8:] = True
    edges = contour_distance(square(3, 4, 10), square(3, 4, 12), ignore)
    longer = contour_distance(square(3, 4, 12), square(3, 4, 12), ignore)
    assert edges > longer == 0
    assert centroid_distance(truth & ~ignore, truth & ~ignore) == 0
    assert np.isnan(measure(truth[None], np.ones((24, 30), bool), masks=masks[None])["contour_distance"]).all()


def test_without_masks_it_is_undefined_and_other_sizes_are_an_error():
    assert all(np.isnan(values).all() for values in measure(square(1, 1)[None]).values())
    with pytest.raises(DataError, match="same classes and size"):
        measure(square(1, 1)[None], masks=np.ones((1, 4, 4), bool))
