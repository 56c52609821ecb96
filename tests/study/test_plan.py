"""What a study's plan says before anything runs: by what its cells are known again, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_studies import DIGITS, net, study, told

from micraframe import config, registry
from micraframe.config import Choice, Contender
from micraframe.errors import ConfigError
from micraframe.images import write_png
from micraframe.study import plan
from micraframe.study.metric_names import names_of
from micraframe.study.plan import label
from micraframe.tiling import Tiling

BEARMAN = {"cost": {"preset": "bearman2016"}}


def keys(contender: Contender, **changes) -> tuple[str, str]:
    (cell,) = plan(study(contender).model_copy(update=changes))
    return cell.training_key, cell.key


@pytest.mark.parametrize(
    ("contender", "changes"),
    [
        (net("a", dropout=0.1), {}),
        (net("a").model_copy(update={"images": 4}), {}),
        (told("full"), {}),
        (net("a"), {"seeds": [1]}),
        (net("a"), {"precision": "auto"}),
        (net("a"), {"datasets": [Choice(name="modified-digits", params={**DIGITS, "seed": 1})]}),
    ],
)
def test_what_is_learned_from_changes_both_keys(contender, changes):
    one, other = keys(net("a")), keys(contender, **changes)
    assert one[0] != other[0]
    assert one[1] != other[1]


@pytest.mark.parametrize(
    ("contender", "changes"),
    [
        (net("a", combiner="last-layer"), {}),
        (net("a", extractor="layer-cam"), {}),
        (net("a", head={"name": "semantic", "params": {"decision": 0.3}}), {}),
        (net("a", head="instance"), {}),
        (net("a"), {"metrics": [Choice(name="overlap")]}),
        (net("a"), {"metrics": [Choice(name="classification"), Choice(name="overlap", params={"radius": 5})]}),
        (net("a"), {"tune": 2}),
        (net("a"), {"tuning_annotator": Choice(name="boxes")}),
        (net("a"), {"tiling": Tiling(size=64, halo=0)}),
    ],
)
def test_what_comes_after_learning_changes_the_key_of_results_only(contender, changes):
    one, other = keys(net("a")), keys(contender, **changes)
    assert one[0] == other[0]
    assert one[1] != other[1]


@pytest.mark.parametrize(
    ("contender", "changes"),
    [
        (net("b"), {}),
        (told("image-level", **BEARMAN), {}),
        (net("a"), {"tuning_annotator": Choice(name="full", params=BEARMAN)}),
        (net("a"), {"pictures": 5, "compared": ["f1"], "primary": "precision"}),
    ],
)
def test_labels_prices_and_what_is_reported_change_no_key(contender, changes):
    assert keys(contender, **changes) == keys(net("a"))


def test_names_and_licences_of_data_change_no_key(tmp_path):
    for number in range(8):
        write_png(tmp_path / "images" / f"{number}.png", np.full((16, 16), 30 * number, np.uint8))
    (tmp_path / "labels.csv").write_text("image,a\n" + "".join(f"{number}.png,{number % 2}\n" for number in range(8)))

    def of(**told) -> tuple[str, str]:
        params = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels.csv"), **told}
        return keys(net("a"), datasets=[Choice(name="folder", params=params)])

    assert of(name="cells", licence="CC0 1.0", citation="Nobody") == of()
    assert of(seed=1)[0] != of()[0]


OWN = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 1
@hookimpl
def micraframe_components():
    return [
        Component("dataset", "own-digits", "micraframe.datasets.modified_digits:ModifiedDigits", "digits"),
        Component("annotator", "own-labels", "micraframe.annotators.image_level:ImageLevel", "labels"),
        Component("method", "own-blob", "micraframe.controls.centre_blob:CentreBlob", "blob"),
        Component("metric", "own-overlap", "micraframe.metrics.overlap:Overlap", "overlap"),
    ]
"""


def test_versions_change_both_keys_cores_whoever_brings_the_components(install, monkeypatch):
    install("own", OWN)
    labels = Choice(name="own-labels")
    contender = Contender(method=Choice(name="own-blob"), annotator=labels)
    changes = {
        "datasets": [Choice(name="own-digits", params=DIGITS)],
        "metrics": [Choice(name="own-overlap")],
        "tuning_annotator": labels,
    }
    before, cores = keys(contender, **changes), keys(net("a"))
    known = registry.catalog()
    newer = dataclasses.replace(
        known, plugins=tuple(dataclasses.replace(each, version="9") for each in known.plugins if each.name == "own")
    )
    with monkeypatch.context() as patch:
        patch.setattr(registry, "catalog", lambda: newer)
        plugins = keys(contender, **changes)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9")
    for changed, unchanged in ((plugins, before), (keys(contender, **changes), before), (keys(net("a")), cores)):
        assert changed[0] != unchanged[0]
        assert changed[1] != unchanged[1]


def test_prices_are_not_named():
    assert label(Choice(name="full", params=BEARMAN), "annotator") == "full"
    assert label(Choice(name="altered", params={**BEARMAN, "sigma": 3}), "annotator") == "altered sigma=3"


def test_more_images_than_there_are_are_refused():
    def wants(images: int) -> Contender:
        return net("few").model_copy(update={"images": images})

    assert len(plan(study(wants(12)))) == 1
    with pytest.raises(ConfigError, match="contender 'few': images is 13, but modified-digits has 12 training images"):
        plan(study(wants(13)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"primary": "iuo"}, "primary: no metric of this study measures 'iuo'; there are: correct, average_precision,"),
        ({"compared": ["iou", "iuo"]}, "compared: no metric of this study measures 'iuo'; there are: correct"),
        ({"metrics": [Choice(name="detection")]}, "primary: no metric of this study measures 'iou'"),
    ],
)
def test_names_that_nothing_measures_are_refused_before_anything_runs(changes, said):
    with pytest.raises(ConfigError, match=said):
        plan(study(net("a"), **changes))


def test_what_is_compared_by_default_need_not_be_measured():
    assert plan(study(net("a"), metrics=[Choice(name="detection")], primary="detection_f1"))


def test_every_metric_here_says_beforehand_what_it_measures():
    choices = [Choice(name=entry.qualified) for entry in registry.catalog().entries("metric")]
    names = names_of([config.resolve_choice("metric", choice) for choice in choices], 3)
    assert names is not None
    assert {"correct", "average_precision", "iou", "object_auc", "detection_f1", "pxap"} <= set(names)


ENTRY = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 1
@hookimpl
def micraframe_components():
    return [Component("metric", "picky", "fake_metrics:Picky", "Picky")]
"""
PICKY = """
from typing import final
from micraframe.interfaces import Metric
@final
class Picky(Metric):
    def measure(self, prediction, truth):
        raise RuntimeError("wants real images")
"""


def test_a_metric_that_cannot_say_what_it_measures_stops_no_plan(install):
    install("fake", ENTRY, fake_metrics=PICKY)
    assert names_of([Choice(name="picky")], 2) is None
    assert plan(study(net("a"), metrics=[Choice(name="picky")]))
