"""A plugin as `micraframe new-plugin` writes it, really installed: its components are short, and work together.

`tests/cli/test_new_plugin_command.py` checks that each of them passes the conformance kit.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from plugin_folders import install_folder

from micraframe import catalog, pipeline
from micraframe.config import Choice, Study
from micraframe.metrics.reduction import stack, summarise
from micraframe.plugin import KINDS
from micraframe.registry import build
from micraframe.scaffold import COMPONENTS, plugin_files, write_plugin
from micraframe.study.run import run_study
from micraframe.testing import check, full_samples
from micraframe.types import FitContext, Prediction, Scores

NAMES = {kind: f"minimal/{component.name}" for kind, component in COMPONENTS.items()}
LINES = {
    "dataset": 40,
    "annotator": 25,
    "backbone": 25,
    "extractor": 25,
    "combiner": 20,
    "head": 15,
    "method": 35,
    "metric": 20,
}
"""The most lines of code, imports and type hints included, that a minimal component of a kind may need."""


@pytest.fixture(autouse=True)
def _installed(tmp_path, add_site):
    write_plugin("minimal", KINDS, tmp_path / "plugin")
    install_folder(tmp_path / "plugin", add_site)


def test_the_plugin_is_installed():
    (plugin,) = [plugin for plugin in catalog().plugins if plugin.name == "minimal"]
    assert (plugin.distribution, plugin.version) == ("minimal", "0.1.0")
    assert {component.kind for component in plugin.components} == set(LINES)


def test_the_dataset_gets_crops_rules_and_splits():
    check("dataset", NAMES["dataset"], crop=16, positive_rule="visible", normalisation={"kind": "min-max"})
    dataset = build("dataset", NAMES["dataset"], crop=16)
    assert dataset.info().image_size == (16, 16)
    sample = dataset.samples("train")[0]
    assert sample.labels.tolist() == sample.masks.any(axis=(1, 2)).tolist()


def test_they_work_together(tmp_path):
    dataset = build("dataset", NAMES["dataset"], images=10)
    params = {kind: NAMES[kind] for kind in ("backbone", "extractor", "combiner")} | {"training": {"epochs": 1}}
    train, valid = (list(dataset.samples(split)) for split in ("train", "valid"))
    method = Choice(name="micra-net", params=params)
    trained = pipeline.fit(method, train, valid, dataset.info(), FitContext(device="cpu"), head=NAMES["head"])
    trained.save(tmp_path / "model")
    images = [sample.image for sample in dataset.samples("test")]
    loaded = pipeline.load(tmp_path / "model", "cpu")
    for one, other in zip(trained.predict(images), loaded.predict(images), strict=True):
        assert np.array_equal(one.masks, other.masks)
    assert loaded.method.params["combiner"]["name"] == NAMES["combiner"]


def test_a_metric_of_which_less_is_better_is_reduced_and_known_as_such():
    metric, sample = build("metric", NAMES["metric"]), full_samples(1)[0]
    scores = Scores.without_maps(np.ones(2, np.float32), sample.masks.shape[1:])
    exact, empty = (Prediction(scores, sample.labels, masks) for masks in (sample.masks, np.zeros_like(sample.masks)))
    (column,) = summarise(metric, stack([metric.measure(found, sample) for found in (exact, empty)], 2))
    assert column.per_class == pytest.approx(sample.masks.mean(axis=(1, 2)) / 2)
    assert not column.column.higher_is_better


def test_components_are_short():
    files = plugin_files("minimal", KINDS)
    for kind, most in LINES.items():
        lines = map(str.strip, files[f"minimal/{kind}.py"].splitlines())
        assert len([line for line in lines if line and not line.startswith(("#", '"""'))]) <= most, kind


def test_a_study_ranks_by_the_direction_of_a_metric(tmp_path):
    study = Study(
        datasets=[Choice(name=NAMES["dataset"], params={"normalisation": {"kind": "none"}})],
        methods=[{"method": name, "head": NAMES["head"]} for name in ("centre-blob", NAMES["method"])],
        metrics=[NAMES["metric"]],
        primary_metric="area_difference",
        compared=[],
        tuning_images=0,
        pictures=0,
        device="cpu",
    )
    outcome = run_study(study, tmp_path / "study")
    assert not outcome.failures
    large, small = (summary.mean for summary in outcome.summary)
    assert small < large
    # The report's table sets the best mean in bold.
    assert re.findall("<strong>(.*?)</strong>", outcome.report.read_text(encoding="utf-8")) == [f"{small:.3f}"]
