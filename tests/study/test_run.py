"""What a run tells, and what it leaves behind."""

from __future__ import annotations

import json
from types import MappingProxyType

import numpy as np
import pytest
from pydantic import ValidationError
from small_studies import DIGITS, net, study

from micraframe import registry
from micraframe.config import Choice, Contender
from micraframe.study import StudyFolder, plan, run_study
from micraframe.tiling import Tiling, predict
from micraframe.types import Progress

METHODS = """
from typing import final
from micraframe.interfaces import Method
from micraframe.types import Annotation

@final
class Failing(Method):
    learns_from = frozenset({Annotation.LABELS})
    def fit(self, train, valid, info, run):
        raise RuntimeError("cannot learn this")
    def load(self, folder, device="auto"):
        raise RuntimeError
"""
ENTRY = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 1
@hookimpl
def micraframe_components():
    return [Component("method", "failing", "fake_methods:Failing", "Failing")]
"""


def test_seeds_are_not_negative():
    with pytest.raises(ValidationError, match="seeds.0"):
        study(net("a"), seeds=[-1])


def test_of_a_training_that_is_done_the_log_stays_and_nothing_half_written(tmp_path):
    made = study(net("a"), seeds=[3])
    training = StudyFolder(tmp_path).training(plan(made)[0])
    (training / ".log.half.csv").parent.mkdir(parents=True)
    (training / ".log.half.csv").touch()
    (training / ".folder").mkdir()
    run_study(made, tmp_path)
    assert {path.name for path in training.iterdir()} == {"log.csv", "curves.svg"}
    # Of a process that was killed when the model was saved, but the checkpoints still there.
    (training / "checkpoints" / "epoch-000001").mkdir(parents=True)
    run_study(study(net("a", combiner="last-layer"), seeds=[3]), tmp_path)
    assert {path.name for path in training.iterdir()} == {"log.csv", "curves.svg"}


def test_provenance_names_the_studys_seeds(tmp_path):
    run_study(study(Contender(method=Choice(name="centre-blob")), seeds=[7, 4]), tmp_path)
    told = json.loads((tmp_path / "provenance.json").read_text())
    assert told["seeds"] == [4, 7]
    assert "seed" not in told["datasets"]["modified-digits"]


def test_test_images_are_cut_alike_for_all_methods_that_a_head_decides_for(tmp_path):
    made = study(
        net("net"),
        Contender(method=Choice(name="forest"), annotator=Choice(name="full")),
        Contender(method=Choice(name="intensity-otsu")),
        tune=2,
        tiling=Tiling(size=64, halo=16),
        pictures=1,
    ).model_copy(update={"datasets": [Choice(name="modified-digits", params={**DIGITS, "size": 120})]})
    outcome = run_study(made, tmp_path)
    assert not outcome.failures
    assert [path.name for path in outcome.pictures] == ["modified-digits.png"], "of cut images no steps are drawn"
    assert "Images larger than 64 pixels were cut into tiles" in outcome.report.read_text()
    dataset = registry.build("dataset", "modified-digits", **made.datasets[0].params | {"size": 120})
    test = list(dataset.samples("test"))
    metric = registry.build("metric", "overlap")
    for cell in plan(made):
        choice = cell.contender.method
        method = registry.build("method", choice.name, **choice.params)
        fitted = method.load(StudyFolder(tmp_path).model(cell), "cpu")
        cut = list(predict(fitted, (sample.image for sample in test), made.tiling))
        rows = [row for row in StudyFolder(tmp_path).rows(cell) if (row.thresholds, row.metric) == ("fixed", "iou")]
        expected = [metric.measure(one, sample)["iou"] for one, sample in zip(cut, test, strict=True)]
        np.testing.assert_allclose([row.value for row in rows], np.concatenate(expected), rtol=1e-5)
        whole = list(fitted.predict(sample.image for sample in test))
        same = [np.array_equal(one.masks, other.masks) for one, other in zip(cut, whole, strict=True)]
        assert all(same) == (fitted.head is None)


class Heard(Progress):
    def __init__(self) -> None:
        self.studys: list[tuple[int, dict[str, float]]] = []

    def advance(self, label, done, total, numbers=MappingProxyType({})):
        if label == "study":
            self.studys.append((done, dict(numbers)))


def test_the_time_to_go_is_told_from_the_first_job_on(tmp_path, install):
    install("fake", ENTRY, fake_methods=METHODS)
    names = ("failing", "centre-blob", "random-map", "intensity-otsu")
    heard = Heard()
    run_study(study(*(Contender(method=Choice(name=name)) for name in names)), tmp_path, heard)
    # The one that failed is not tried again, and says nothing of how long others take.
    assert [(done, list(numbers)) for done, numbers in heard.studys] == [
        (0, []),
        (1, []),
        (2, ["minutes to go on one machine"]),
        (3, ["minutes to go on one machine"]),
        (4, []),
    ]
    (two,), (one,) = (numbers.values() for _, numbers in heard.studys[2:4])
    assert two > 0
    assert one > 0
