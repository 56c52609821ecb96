import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from micraframe.errors import DataError
from micraframe.metrics.classification import average_precision, precision_at_rank
from micraframe.registry import build
from micraframe.types import Prediction, Sample

IMAGE = np.zeros((1, 4, 6), np.float32)


def measure(present, **truth):
    present = np.array(present, bool)
    return build("metric", "classification").measure(
        Prediction(present.astype(np.float32), present), Sample("a", IMAGE, **truth)
    )


def test_right_is_one_and_wrong_is_zero():
    found = measure([1, 1, 0, 0], labels=np.array([True, False, True, False]))
    assert found["correct"].tolist() == [1, 0, 0, 1]
    assert found["correct"].dtype == np.float32


def test_masks_say_what_is_present_where_labels_do_not():
    masks = np.zeros((2, 4, 6), bool)
    masks[1, 0, 0] = True
    assert measure([0, 0], masks=masks)["correct"].tolist() == [1, 0]
    assert measure([0, 0], instances=masks.astype(np.int32))["correct"].tolist() == [1, 0]


def test_without_truth_it_is_undefined():
    assert np.isnan(measure([0, 1])["correct"]).all()
    with pytest.raises(DataError, match="same classes"):
        measure([0, 1], labels=np.array([True]))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1))
def test_average_precision_is_that_of_scikit_learn_and_defined_by_positives(pairs):
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    found = average_precision(labels, scores)
    if labels.any():
        assert found == average_precision_score(labels, scores)
    else:
        assert np.isnan(found)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.integers(0, 5)), min_size=1))
def test_the_mean_precision_at_the_ranks_of_positives_is_average_precision(pairs):
    labels, scores = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    found = precision_at_rank(labels, scores)
    assert (np.isnan(found) == (labels != 1)).all()
    known = ~np.isnan(labels)
    if (labels == 1).any():
        np.testing.assert_allclose(np.nanmean(found), average_precision(labels[known] == 1, scores[known]), rtol=1e-6)


def test_images_are_ranked_by_class():
    scores = np.array([[0.9, 0.1], [0.5, 0.2], [0.7, 0.3], [0.1, 0.4]], np.float32)
    labels = np.array([[1, 0], [1, 1], [0, np.nan], [1, 0]], np.float32)
    found = build("metric", "classification").rank(scores, labels)
    assert list(found) == ["average_precision"]
    assert found["average_precision"].dtype == np.float32
    # Class 1: the image without a label does not count, and one of the two above has the class.
    np.testing.assert_allclose(found["average_precision"], [[1, np.nan], [2 / 3, 1 / 2], [np.nan] * 2, [3 / 4, np.nan]])
