"""What a study reports while it runs, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
from types import MappingProxyType

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from small_studies import DIGITS, FAILING, compared, net, study

from micraframe import pipeline, registry
from micraframe.config import Choice
from micraframe.plugin import Component
from micraframe.runtime.locks import exclusive
from micraframe.study import StudyFolder, plan, run_study, status
from micraframe.study.plan import StudyRun
from micraframe.tiling import Tiling
from micraframe.types import Progress

ENTRY = [Component("method", "failing", "fake_methods:Failing", "Failing")]


def test_seeds_are_not_negative():
    with pytest.raises(ValidationError, match="seeds.0"):
        study(net("a"), seeds=[-1])


def test_a_completed_training_leaves_its_log_and_nothing_half_written(tmp_path):
    made = study(net("a"), seeds=[3])
    (run,), folder = plan(made), StudyFolder(tmp_path)
    training, scratch = folder.training(run), folder.scratch(run)
    (scratch / ".folder").mkdir(parents=True)
    (scratch / ".log.half.csv").touch()
    run_study(made, tmp_path)
    assert {path.name for path in training.iterdir()} == {"log.csv", "curves.svg"}
    assert not scratch.exists()
    # A process was killed when the model was saved, but the checkpoints were still there.
    (scratch / "checkpoints" / "epoch-000001").mkdir(parents=True)
    (scratch / "teacher" / "checkpoints" / "epoch-000001").mkdir(parents=True)
    (scratch / "teacher" / "log.csv").touch()
    run_study(study(net("a", combiner="last-layer"), seeds=[3]), tmp_path)
    assert {path.name for path in training.iterdir()} == {"log.csv", "curves.svg", "teacher"}
    assert {path.name for path in (training / "teacher").iterdir()} == {"log.csv"}
    assert not scratch.exists()


def test_provenance_names_the_studys_seeds(tmp_path):
    run_study(study(compared("centre-blob"), seeds=[7, 4]), tmp_path)
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert provenance["seeds"] == [4, 7]
    assert "seed" not in provenance["datasets"]["modified-digits"]


def test_test_images_are_cut_into_tiles_alike_for_all_methods(tmp_path):
    made = study(
        net("net"),
        compared("forest", "full"),
        compared("intensity-otsu"),
        tuning_images=2,
        tiling=Tiling(size=64, halo=16),
        pictures=1,
    ).model_copy(update={"datasets": [Choice(name="modified-digits", params={**DIGITS, "size": 120})]})
    outcome = run_study(made, tmp_path)
    assert not outcome.failures
    assert not outcome.pictures, "no steps of images in tiles"
    dataset = registry.build("dataset", "modified-digits", **made.datasets[0].params)
    test = list(dataset.samples("test"))
    metric = registry.build("metric", "overlap")
    for run in plan(made):
        loaded = pipeline.load(StudyFolder(tmp_path).model(run), "cpu", head=run.compared.head)
        assert loaded.tiling == made.tiling
        cut = list(loaded.predict(sample.image for sample in test))
        rows = StudyFolder(tmp_path).rows(run).filter(pl.col("thresholds") == "fixed", pl.col("metric") == "iou")
        expected = [metric.measure(one, sample)["iou"] for one, sample in zip(cut, test, strict=True)]
        np.testing.assert_allclose(rows["value"], np.concatenate(expected), rtol=1e-5)


class StudyProgress(Progress):
    def __init__(self) -> None:
        self.study: list[tuple[int, dict[str, float]]] = []

    def advance(self, label, done, total, numbers=MappingProxyType({})):
        if label == "study":
            self.study.append((done, dict(numbers)))


def test_the_remaining_time_is_reported_from_the_first_job_on(tmp_path, install):
    install("fake", ENTRY, fake_methods=FAILING)
    names = ("failing", "centre-blob", "random-map", "intensity-otsu")
    heard = StudyProgress()
    run_study(study(*map(compared, names)), tmp_path, heard)
    # The one that failed is not tried again, and says nothing about how long others take.
    assert [(done, list(numbers)) for done, numbers in heard.study] == [
        (0, []),
        (1, []),
        (2, ["minutes remaining on one machine"]),
        (3, ["minutes remaining on one machine"]),
        (4, []),
    ]
    (two,), (one,) = (numbers.values() for _, numbers in heard.study[2:4])
    assert two > 0
    assert one > 0


def test_status_tells_a_running_study_from_a_killed_one(tmp_path):
    made, folder = study(net("a"), compared("centre-blob")), StudyFolder(tmp_path)
    runs = plan(made)
    assert [each.state for each in status(runs, folder).runs] == ["waiting", "waiting"]
    folder.scratch(runs[0]).mkdir(parents=True)
    with exclusive(folder.lock(runs[0]), lambda: None):
        assert [each.state for each in status(runs, folder).runs] == ["running", "waiting"]
    assert [each.state for each in status(runs, folder).runs] == ["started", "waiting"]


def test_the_time_of_a_run_is_that_of_the_runs_most_like_it(tmp_path, monkeypatch):
    def run(method: str, dataset: str, number: int) -> StudyRun:
        (made,) = plan(study(compared(method)))
        info = dataclasses.replace(made.info, name=dataset)
        return dataclasses.replace(made, info=info, seed=number, key=f"{number:016x}", training_key=f"{number:016x}")

    known = [run("centre-blob", "a", 1), run("centre-blob", "b", 2), run("random-map", "a", 4)]
    new = [run("centre-blob", "b", 8), run("centre-blob", "c", 9), run("intensity-otsu", "a", 10)]
    checked = []
    monkeypatch.setattr(StudyFolder, "is_done", lambda self, run: checked.append(run.key) or int(run.key, 16) < 8)
    monkeypatch.setattr(StudyFolder, "seconds", lambda self, run: float(int(run.key, 16)))
    monkeypatch.setattr(StudyFolder, "is_trained", lambda self, run: True)
    monkeypatch.setattr(StudyFolder, "training_seconds", lambda self, run: 0.0)
    found = status([*known, *new], StudyFolder(tmp_path))
    assert len(checked) == len(set(checked)) == 6
    assert [each.seconds for each in found.runs] == pytest.approx([0, 0, 0, 2, 1.5, 7 / 3])
