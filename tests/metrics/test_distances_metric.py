import numpy as np
import pytest

from micraframe.errors import DataError
from micraframe.metrics.agreement import centroid_distance, contour_distance
from micraframe.metrics.distances import NAMES
from micraframe.registry import build
from micraframe.types import Prediction, Sample


def measure(truth, ignore=None, **found):
    prediction = Prediction(np.zeros(len(truth), np.float32), np.zeros(len(truth), bool), **found)
    sample = Sample("a", np.zeros((1, *truth.shape[1:]), np.float32), masks=truth, ignore=ignore)
    return build("metric", "distances").measure(prediction, sample)


def square(y, x, edge=5):
    mask = np.zeros((24, 30), bool)
    mask[y : y + edge, x : x + edge] = True
    return mask


def test_each_class_has_its_distances_where_it_is_on_both_sides():
    blank = np.zeros((24, 30), bool)
    truth, masks = np.stack([square(3, 4), square(1, 1), blank]), np.stack([square(6, 8), blank, blank])
    found = measure(truth, masks=masks)
    assert tuple(found) == NAMES
    assert found["centroid_distance"] == pytest.approx([5, np.nan, np.nan], nan_ok=True)
    wanted = contour_distance(truth[0], masks[0])
    assert found["contour_distance"] == pytest.approx([wanted, np.nan, np.nan], nan_ok=True)
    assert all(values.dtype == np.float32 for values in found.values())
    again = measure(truth, instances=masks.astype(np.int32))
    for name in NAMES:
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
