import pytest

from micraframe import catalog
from micraframe.registry import build
from micraframe.study.report.definitions import definition, definitions, lower_is_better
from micraframe.testing import full_samples
from micraframe.types import Prediction

METRICS = [
    entry.component.name
    for entry in catalog().entries()
    if entry.plugin.name == "micraframe" and entry.component.kind == "metric"
]


def names_of(metric):
    """Return the names of all that a metric measures."""
    sample = full_samples(1)[0]
    assert sample.labels is not None
    prediction = Prediction(sample.labels.astype("float32"), sample.labels, sample.masks)
    built = build("metric", metric)
    ranked = built.rank(prediction.scores[None], sample.labels.astype("float32")[None])
    return [*built.measure(prediction, sample), *ranked]


@pytest.mark.parametrize("metric", METRICS)
def test_all_that_core_measures_is_defined(metric):
    names = names_of(metric)
    assert names
    assert [name for name in names if not definition(name)] == []


def test_what_a_plugin_measures_is_the_plugins_to_define():
    assert definition("their_measure") == ""
    assert definitions(["their_measure", "correct"]).startswith("correct (")


def test_what_is_shared_is_said_once():
    told = definitions(["precision", "recall", "f1", "iou"])
    assert told.count("the pixels of a class") == 1
    for blank in ("the predicted mask is blank", "the true mask is blank", "0 where one mask is blank"):
        assert blank in told


def test_distances_and_failures_are_better_low():
    lower = {name for metric in METRICS for name in names_of(metric) if lower_is_better(name)}
    assert lower == {
        *(f"object_{name}" for name in ("missed", "extra", "split", "merged")),
        "centroid_distance",
        "contour_distance",
    }
