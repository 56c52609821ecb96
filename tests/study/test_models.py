"""The ready models that a study leaves, by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_studies import DIGITS, compared, net, study

from micraframe import pipeline
from micraframe.cli import app
from micraframe.config import Choice
from micraframe.images import write_png
from micraframe.interfaces import Dataset
from micraframe.modelfile import DESCRIPTION, WEIGHTS
from micraframe.registry import build
from micraframe.study import StudyFolder, plan, run_study
from micraframe.study.models import named


def digits() -> Dataset:
    return build("dataset", "modified-digits", **DIGITS)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    assert not run_study(made(), folder).failures
    return folder


def made():
    return study(net("Net, PCA"), net("coarse", combiner="last-layer"), compared("centre-blob"), tuning_images=3)


def test_every_method_is_a_ready_model_with_its_tuned_thresholds(done):
    metric, test = build("metric", "overlap"), list(digits().samples("test"))
    folder = StudyFolder(done)
    assert [name for name, _ in named(plan(made()))] == [
        "modified-digits-net-pca-image-level-seed-0",
        "modified-digits-coarse-image-level-seed-0",
        "modified-digits-centre-blob-image-level-seed-0",
    ]
    for name, run in named(plan(made())):
        model = done / "models" / name
        assert (model / WEIGHTS).samefile(folder.model(run) / WEIGHTS)
        ready = pipeline.load(model, "cpu")
        rows = folder.rows(run).filter(pl.col("thresholds") == "validation", pl.col("metric") == "iou")
        predictions = ready.predict(sample.image for sample in test)
        found = [metric.measure(one, sample)["iou"] for one, sample in zip(predictions, test, strict=True)]
        np.testing.assert_allclose(rows["value"], np.concatenate(found), rtol=1e-5)
        assert {threshold.origin for each in ready.predict([test[0].image]) for threshold in each.thresholds} <= {
            "validation",
            "fixed",
        }
        assert ready.without_tuning().head.params.model_dump(mode="json") == run.compared.head.params


def test_predict_takes_a_ready_model_even_of_a_copied_study(done, tmp_path):
    shutil.copytree(done, tmp_path / "copy")
    write_png(tmp_path / "digit.png", (digits().samples("test")[0].image[0] * 255).astype(np.uint8))
    name = named(plan(made()))[0][0]
    words = ["predict", tmp_path / "copy" / "models" / name, tmp_path / "digit.png", "--output", tmp_path / "out"]
    app([str(word) for word in words], standalone_mode=False)
    assert (tmp_path / "out" / "digit.tif").exists()


def test_the_same_study_again_writes_nothing_and_a_changed_one_what_changed(done, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(done, folder)

    def files() -> dict[Path, tuple[int, int]]:
        found = folder.glob("models/*/*")
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}

    before = files()
    run_study(made(), folder)
    assert files() == before
    other = study(net("Net, PCA", combiner="last-layer"), tuning_images=0)
    run_study(other, folder)
    ((name, run),) = named(plan(other))
    ready = pipeline.load(folder / "models" / name, "cpu")
    assert ready.method == run.compared.method
    assert (ready.origins, ready.untuned) == ({}, None)
    assert {path.parent.name for path in before if files()[path] != before[path]} == {name}


@pytest.mark.parametrize("damage", [WEIGHTS, DESCRIPTION])
def test_a_damaged_model_costs_no_report(done, tmp_path, damage):
    folder = tmp_path / "damaged"
    shutil.copytree(done, folder)
    ((name, run), *_) = named(plan(made()))
    shutil.rmtree(folder / "models" / name)
    (StudyFolder(folder).model(run) / damage).unlink()
    (folder / "report.html").unlink()
    run_study(made(), folder)
    assert (folder / "report.html").exists()
    assert not (folder / "models" / name).exists()


def test_sizes_from_the_data_are_those_of_the_row_whoever_trained(tmp_path):
    auto = {"mask_threshold": {"name": "fixed", "value": 0.1}, "minimum_size": "auto", "smoothing": "auto"}
    plain = net("plain")
    rows = [
        net("whole", head=Choice(name="instance", params=auto)),
        net("cut", head=Choice(name="instance", params=auto | {"split": "watershed"})),
    ]
    found = {}
    for order in ([plain, *rows], [*rows[::-1], plain]):
        made = study(*order, tuning_images=0)
        folder = tmp_path / order[0].label
        assert not run_study(made, folder).failures
        heads = {run.compared.label: StudyFolder(folder).head(run) for run in plan(made)}
        assert "auto" not in [heads["whole"].params["minimum_size"], heads["cut"].params["smoothing"]]
        assert found.setdefault("heads", heads) == heads
        ready = pipeline.load(folder / "models" / "modified-digits-cut-image-level-seed-0", "cpu")
        assert ready.head.params.minimum_size == heads["cut"].params["minimum_size"]
