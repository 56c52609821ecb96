import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.metrics.reduction import stack, summarise
from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores

COUNTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6)


def measured(true: int, predicted: int):
    scores = Scores.without_maps(np.zeros(1, np.float32))
    prediction = Prediction(scores, np.zeros(1, bool), points=(np.zeros((predicted, 3), np.float32),))
    sample = Sample("a", np.zeros((1, 9, 9), np.float32), boxes=(np.ones((true, 4), np.float32),))
    return build("metric", "counts").measure(prediction, sample)


@given(COUNTS)
def test_errors_are_means_over_images_and_do_not_cancel(counts):
    statistics = stack([measured(*pair) for pair in counts], 1)
    found = {each.column.name: each.overall for each in summarise(build("metric", "counts"), statistics)}
    errors = [predicted - true for true, predicted in counts]
    total = sum(true for true, _ in counts)
    expected = {
        "count_error": np.mean(np.abs(errors)),
        "count_excess": np.mean([max(error, 0) for error in errors]),
        "count_shortfall": np.mean([max(-error, 0) for error in errors]),
        "count_relative_error": np.abs(errors).sum() / total if total else np.nan,
    }
    assert found == pytest.approx(expected, nan_ok=True)


def test_nothing_to_count_is_undefined():
    prediction = Prediction(Scores.without_maps(np.zeros(2, np.float32)), np.zeros(2, bool))
    sample = Sample("a", np.zeros((1, 9, 9), np.float32), labels=np.ones(2, bool))
    values = build("metric", "counts").measure(prediction, sample)
    assert {value.shape for value in values.values()} == {(2,)}
    assert all(np.isnan(value).all() for value in values.values())
