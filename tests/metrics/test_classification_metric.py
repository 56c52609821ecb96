import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from micraframe.errors import DataError
from micraframe.metrics.precision_recall import average_precision
from micraframe.metrics.reduction import stack, summarise
from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores

IMAGE = np.zeros((1, 4, 6), np.float32)


def measure(present, **truth):
    present = np.array(present, bool)
    return build("metric", "classification").measure(
        Prediction(Scores.without_maps(present.astype(np.float32)), present), Sample("a", IMAGE, **truth)
    )


def test_correct_is_one_and_wrong_is_zero():
    found = measure([1, 1, 0, 0], labels=np.array([True, False, True, False]))
    assert found["correct"].tolist() == [1, 0, 0, 1]
    assert found["correct"].dtype == np.float32


def test_masks_define_presence_without_labels():
    masks = np.zeros((2, 4, 6), bool)
    masks[1, 0, 0] = True
    assert measure([0, 0], masks=masks)["correct"].tolist() == [1, 0]
    assert measure([0, 0], instances=masks.astype(np.int32))["correct"].tolist() == [1, 0]


def test_it_is_undefined_without_labels():
    assert np.isnan(measure([0, 1])["correct"]).all()
    with pytest.raises(DataError, match="same classes"):
        measure([0, 1], labels=np.array([True]))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1))
def test_average_precision_is_that_of_scikit_learn_where_there_is_something_to_rank(pairs):
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    found = average_precision(labels, scores)
    if labels.any() and not labels.all():
        assert found == average_precision_score(labels, scores)
    else:
        assert np.isnan(found)


def reduce(presence, labels):
    """Return the metric's columns from images with these probabilities and labels, both (N, K)."""
    metric = build("metric", "classification")
    statistics = [
        metric.measure(
            Prediction(Scores.without_maps(row), row >= 0.5),
            Sample("a", IMAGE, labels=None if np.isnan(truth).any() else truth == 1),
        )
        for row, truth in zip(np.float32(presence), labels, strict=True)
    ]
    return {each.column.name: each for each in summarise(metric, stack(statistics, len(presence[0])))}


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.integers(0, 4)), min_size=1))
def test_average_precision_is_the_mean_precision_at_the_positives(pairs):
    labels, scores = np.array([label for label, _ in pairs]), np.array([score / 4 for _, score in pairs])
    found = reduce(scores[:, None], labels[:, None])["average_precision"]
    known = ~np.isnan(labels)
    # Of each positive: the share of positives among the images whose score is no lower.
    expected = [np.mean(labels[known & (scores >= score)]) for score in scores[labels == 1]]
    one_sided = len({*labels[known]}) < 2
    assert found.per_class[0] == pytest.approx(np.nan if one_sided else np.mean(expected), nan_ok=True)
    assert found.overall == pytest.approx(found.per_class[0], nan_ok=True)
    assert found.images == known.sum()


def test_classes_are_ranked_separately():
    presence = np.array([[0.9, 0.1], [0.5, 0.2], [0.7, 0.3], [0.1, 0.4]], np.float32)
    labels = np.array([[1, 0], [1, 1], [0, 0], [1, 0]], np.float32)
    found = reduce(presence, labels)
    assert list(found) == ["correct", "average_precision"]
    expected = [np.mean([1, 2 / 3, 3 / 4]), 1 / 3]
    np.testing.assert_allclose(found["average_precision"].per_class, expected)
    assert found["average_precision"].overall == pytest.approx(np.mean(expected))
    assert found["correct"].per_class == pytest.approx([0.5, 0.75])


def test_a_class_in_all_images_has_no_average_precision_and_is_left_out_of_the_mean():
    presence = np.array([[0.9, 0.1], [0.5, 0.2], [0.7, 0.3]], np.float32)
    found = reduce(presence, np.array([[1, 0], [1, 1], [1, 0]], np.float32))
    np.testing.assert_array_equal(found["average_precision"].per_class, [np.nan, 1 / 2])
    assert found["average_precision"].overall == 1 / 2
    assert found["correct"].per_class == pytest.approx([1, 2 / 3])
