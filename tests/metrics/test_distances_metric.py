import numpy as np
import pytest

from micraframe.errors import DataError
from micraframe.metrics.agreement import centroid_distance, contour_distance
from micraframe.metrics.distances import COLUMNS
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
