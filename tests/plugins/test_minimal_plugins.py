"""A really installed plugin with one minimal component of every kind but annotator: each is short, and works."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from micraframe import catalog, pipeline
from micraframe.config import Choice, Study
from micraframe.metrics.reduction import stack, summarise
from micraframe.registry import build
from micraframe.study.run import run_study
from micraframe.testing import check, full_samples
from micraframe.types import FitContext, Prediction, Scores

INSTALLED = Path(__file__).parent / "installed"
LINES = {"backbone": 25, "extractor": 25, "combiner": 15, "head": 15, "dataset": 40, "metric": 20, "method": 30}
"""The most lines of code that a minimal component of a kind may need, imports included."""


@pytest.fixture(autouse=True)
def _installed(add_site):
    add_site(INSTALLED)


@pytest.fixture
def cells(tmp_path):
    """Write files of ten images with a disc each, and return their folder."""
    for sample in full_samples(10, (40, 40)):
        np.savez(tmp_path / f"{sample.id}.npz", image=sample.image, instances=sample.instances[:1])
    return tmp_path


def test_the_plugin_is_installed():
    (plugin,) = [plugin for plugin in catalog().plugins if plugin.name == "minimal"]
    assert (plugin.distribution, plugin.version) == ("minimal", "0.1")
    assert {component.kind for component in plugin.components} == set(LINES)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("backbone", "two-layers"),
        ("extractor", "cam"),
        ("combiner", "minimal/mean"),
        ("head", "half"),
        ("method", "brightness"),
        ("metric", "area-error"),
    ],
)
def test_every_component_passes_the_conformance_kit(kind, name):
    check(kind, name)


def test_the_dataset_passes_the_conformance_kit_and_gets_crops_rules_and_splits(cells):
    check("dataset", "arrays", folder=str(cells))
    check("dataset", "arrays", folder=str(cells), crop=16, positive_rule="visible", normalisation={"kind": "min-max"})
    dataset = build("dataset", "arrays", folder=str(cells), crop=16)
    assert dataset.info().image_size == (16, 16)
    sample = dataset.samples("train")[0]
    assert sample.labels.tolist() == sample.masks.any(axis=(1, 2)).tolist()


def test_they_work_together(cells, tmp_path):
    dataset = build("dataset", "arrays", folder=str(cells))
    params = {"backbone": "two-layers", "extractor": "cam", "combiner": "mean", "training": {"epochs": 1}}
    train, valid = (list(dataset.samples(split)) for split in ("train", "valid"))
    trained = pipeline.fit(
        Choice(name="micra-net", params=params), train, valid, dataset.info(), FitContext(device="cpu"), head="half"
    )
    trained.save(tmp_path / "model")
    images = [sample.image for sample in dataset.samples("test")]
    loaded = pipeline.load(tmp_path / "model", "cpu")
    for one, other in zip(trained.predict(images), loaded.predict(images), strict=True):
        assert np.array_equal(one.masks, other.masks)
    assert loaded.method.params["combiner"]["name"] == "minimal/mean"


def test_a_metric_of_which_less_is_better_is_reduced_and_known_as_such():
    metric, sample = build("metric", "area-error"), full_samples(1)[0]
    scores = Scores.without_maps(np.ones(2, np.float32), sample.masks.shape[1:])
    exact, empty = (Prediction(scores, sample.labels, masks) for masks in (sample.masks, np.zeros_like(sample.masks)))
    (column,) = summarise(metric, stack([metric.measure(found, sample) for found in (exact, empty)], 2))
    assert column.per_class == pytest.approx(sample.masks.mean(axis=(1, 2)) / 2)
    assert not column.column.higher_is_better


@pytest.mark.parametrize("kind", LINES)
def test_components_are_short(kind):
    lines = (INSTALLED / "minimal" / f"{kind}.py").read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(code) <= LINES[kind]


def test_a_study_ranks_by_the_direction_of_a_metric(cells, tmp_path):
    study = Study(
        datasets=[Choice(name="arrays", params={"folder": str(cells)})],
        methods=[{"method": name, "head": "half"} for name in ("centre-blob", "brightness")],
        metrics=["area-error"],
        primary_metric="area_error",
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
