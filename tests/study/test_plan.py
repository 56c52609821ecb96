"""A study's plan: the keys of its runs, and what it refuses before anything runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_studies import DIGITS, compared, net, net_from, study

from micraframe import registry
from micraframe.config import Choice, ComparedMethod
from micraframe.errors import ConfigError
from micraframe.images import write_png
from micraframe.plugin import Component
from micraframe.pricing import Prices
from micraframe.study import plan
from micraframe.study.plan import check_columns, label
from micraframe.tiling import Tiling


def keys(method: ComparedMethod, **changes) -> tuple[str, str]:
    (run,) = plan(study(method).model_copy(update=changes))
    return run.training_key, run.key


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (net("a", dropout=0.1), {}),
        (net("a").model_copy(update={"train_images": 4}), {}),
        (net_from("full"), {}),
        (net("a"), {"seeds": [1]}),
        (net("a"), {"precision": "bfloat16"}),
        (net("a"), {"datasets": [Choice(name="modified-digits", params={**DIGITS, "seed": 1})]}),
    ],
)
def test_what_is_learned_from_changes_both_keys(method, changes):
    one, other = keys(net("a")), keys(method, **changes)
    assert one[0] != other[0]
    assert one[1] != other[1]


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (net("a", combiner="last-layer"), {}),
        (net("a", extractor="layer-cam"), {}),
        (net("a", head=Choice(name="semantic", params={"presence_threshold": 0.3})), {}),
        (net("a", head=Choice(name="instance")), {}),
        (net("a"), {"metrics": [Choice(name="overlap")]}),
        (net("a"), {"metrics": [Choice(name="classification"), Choice(name="overlap", params={"radius": 5})]}),
        (net("a"), {"tuning_images": 2}),
        (net("a"), {"tuning_annotator": Choice(name="boxes")}),
        (net("a"), {"tiling": Tiling(size=64, halo=0)}),
    ],
)
def test_what_comes_after_learning_changes_the_key_of_results_only(method, changes):
    one, other = keys(net("a")), keys(method, **changes)
    assert one[0] == other[0]
    assert one[1] != other[1]


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (net("b"), {}),
        (net("a"), {"prices": Prices(preset="bearman2016")}),
        (net("a"), {"pictures": 5, "compared": ["f1"], "primary_metric": "precision"}),
    ],
)
def test_labels_prices_and_what_is_reported_change_no_key(method, changes):
    assert keys(method, **changes) == keys(net("a"))


def test_names_and_licences_of_data_change_no_key(tmp_path):
    for number in range(8):
        write_png(tmp_path / "images" / f"{number}.png", np.full((16, 16), 30 * number, np.uint8))
    (tmp_path / "labels.csv").write_text("image,a\n" + "".join(f"{number}.png,{number % 2}\n" for number in range(8)))

    def of(**named) -> tuple[str, str]:
        params = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels.csv"), **named}
        return keys(net("a"), datasets=[Choice(name="folder", params=params)])

    assert of(name="cells", licence="CC0 1.0", citation="Nobody") == of()
    assert of(seed=1)[0] != of()[0]


OWN = [
    Component("dataset", "own-digits", "micraframe.datasets.modified_digits:ModifiedDigits", "digits"),
    Component("annotator", "own-labels", "micraframe.annotators.image_level:ImageLevel", "labels"),
    Component("method", "own-blob", "micraframe.controls.centre_blob:CentreBlob", "blob"),
    Component("metric", "own-overlap", "micraframe.metrics.overlap:OverlapMetric", "overlap"),
]


def test_versions_change_both_keys_cores_whoever_brings_the_components(install, monkeypatch):
    install("own", OWN)
    labels = Choice(name="own-labels")
    method = compared("own-blob", "own-labels")
    changes = {
        "datasets": [Choice(name="own-digits", params=DIGITS)],
        "metrics": [Choice(name="own-overlap")],
        "tuning_annotator": labels,
    }
    before, cores = keys(method, **changes), keys(net("a"))
    known = registry.catalog()
    plugins = (dataclasses.replace(each, version="9") if each.name == "own" else each for each in known.plugins)
    newer = dataclasses.replace(known, plugins=tuple(plugins))
    with monkeypatch.context() as patch:
        patch.setattr(registry, "catalog", lambda: newer)
        plugins = keys(method, **changes)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9")
    for changed, unchanged in ((plugins, before), (keys(method, **changes), before), (keys(net("a")), cores)):
        assert changed[0] != unchanged[0]
        assert changed[1] != unchanged[1]


def test_labels_name_parameters_that_are_not_defaults_and_those_that_must_be_known():
    assert label(Choice(name="full"), "annotator") == "full"
    assert label(Choice(name="altered", params={"sigma": 3}), "annotator") == "altered sigma=3"


def test_a_run_has_the_methods_own_head_where_the_study_names_none():
    (run,) = plan(study(compared("centre-blob")))
    assert run.compared.head is not None
    named = compared("centre-blob", head=run.compared.head)
    assert plan(study(named))[0].key == run.key


def test_inference_parameters_are_those_that_can_change_after_training():
    (run,) = plan(study(net("a", combiner="last-layer")))
    assert run.inference.keys() == {"extractor", "combiner"}
    assert run.inference["combiner"]["name"] == "micraframe/last-layer"


def test_more_images_than_there_are_are_refused():
    def limited(count: int) -> ComparedMethod:
        return net("few").model_copy(update={"train_images": count})

    assert len(plan(study(limited(12)))) == 1
    with pytest.raises(ConfigError, match="method 'few': train_images is 13, but modified-digits has 12 training"):
        plan(study(limited(13)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"primary_metric": "iuo"},
            "primary_metric: no metric of this study reports 'iuo'; there are: correct, average_",
        ),
        ({"compared": ["iou", "iuo"]}, "compared: no metric of this study reports 'iuo'; there are: correct"),
        ({"metrics": [Choice(name="detection")]}, "primary_metric: no metric of this study reports 'iou'"),
    ],
)
def test_names_that_nothing_measures_are_refused_before_anything_runs(changes, said):
    with pytest.raises(ConfigError, match=said):
        plan(study(net("a"), **changes))


def test_what_is_compared_by_default_need_not_be_measured():
    assert plan(study(net("a"), metrics=[Choice(name="detection")], primary_metric="detection_f1"))


def test_every_metric_declares_its_columns():
    choices = [Choice(name=entry.qualified) for entry in registry.catalog().entries("metric")]
    names = ["correct", "average_precision", "iou", "object_auc", "detection_f1", "pxap"]
    assert set(check_columns(study(net("a"), metrics=choices, compared=names))) == set(names)


def test_metrics_that_report_the_same_column_are_refused():
    twice = [Choice(name="overlap"), Choice(name="overlap", params={"radius": 5})]
    with pytest.raises(ConfigError, match="two of them report 'precision'; remove one"):
        plan(study(net("a"), metrics=twice))


def test_methods_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ConfigError, match="give methods different labels"):
        plan(study(net("a"), net("a", combiner="last-layer")))


def test_an_unlabelled_method_is_named_by_what_differs_from_the_defaults():
    method = ComparedMethod(method=Choice(name="random-map", params={"smoothing": 3}))
    assert plan(study(method))[0].method == "random-map smoothing=3"
