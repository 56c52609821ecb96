"""What a run records about where it was computed, and what of it is part of its keys."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from small_studies import compared, net, study

from micraframe.runtime import numerics as computing
from micraframe.runtime.numerics import numerics
from micraframe.study import StudyFolder, plan, run_study
from micraframe.study.committed import runs_of
from micraframe.study.provenance import ComputedOn, differences, machines

HERE = ComputedOn(
    "2026-01-02",
    {"processor": "Epyc", "system": "Linux", "python": "3.11"},
    {"device": "cpu", "precision": "float32", "instructions": "AVX512", "threads": "1", "torch": "2.14"},
    {"torch": "2.14", "micraframe": "1"},
)


@pytest.mark.parametrize("name", ["torch", "numpy", "scikit-learn", "device", "precision", "instructions", "threads"])
def test_what_changes_bytes_changes_both_keys(name):
    here = numerics("cpu", "float32")
    (one,), (other,) = (plan(study(net()), each) for each in (here, {**here, name: "other"}))
    assert one.training_key != other.training_key
    assert one.key != other.key


def test_device_and_precision_are_resolved():
    assert numerics("auto", "float32")["precision"] == "float32"
    assert numerics("cpu")["device"] == "cpu"
    assert numerics("cpu")["precision"] in ("float32", "bfloat16")
    assert numerics("cpu", threads=7)["threads"] == "7"
    assert numerics("cpu")["torch"] == torch.__version__.partition("+")[0]
    # One that only the workers of a cluster have.
    assert numerics("cuda:99", "float32")["device"] == "cuda:99"


def test_a_precision_that_auto_resolves_to_is_the_same_run():
    resolved = numerics("cpu", "auto")["precision"]
    assert plan(study(net(), precision="auto"))[0].key == plan(study(net(), precision=resolved))[0].key


def test_a_run_keeps_what_it_was_computed_with(tmp_path, monkeypatch):
    run_study(study(compared("centre-blob")), tmp_path)
    before = json.loads((tmp_path / "provenance.json").read_text())
    # Another machine with newer libraries: the first run's results stay, and are found by what they were made with.
    monkeypatch.setattr(computing, "library_versions", lambda: {"torch": "99"})
    monkeypatch.setattr("micraframe.modelfile.library_versions", lambda: {"torch": "99"})
    made, folder = study(compared("centre-blob")), StudyFolder(tmp_path)
    assert all(folder.is_done(run) for run in runs_of(made, folder))
    assert not any(folder.is_done(run) for run in plan(made))
    # What is measured there now is recorded beside what was measured before, not over it.
    records = [each for run in runs_of(made, folder) for each in folder.computed(run)]
    assert {each.numerics["torch"] for each in records} == {before["numerics"]["torch"]}
    assert ComputedOn.here("cpu", "float32").versions["torch"] == "99"
    run_study(made, tmp_path)
    (new,) = runs_of(made, folder)
    assert {each.numerics["torch"] for each in folder.computed(new)} == {"99"}
    assert {each.numerics["torch"] for each in records} == {before["numerics"]["torch"]}


def test_where_runs_differ_provenance_says_so():
    newer = dataclasses.replace(
        HERE,
        date="2026-03-04",
        numerics={**HERE.numerics, "torch": "2.15"},
        versions={**HERE.versions, "torch": "2.15"},
    )
    assert differences([HERE, HERE]) == ()
    assert differences([HERE, HERE, newer]) == ("torch: 2.14 (2 times), 2.15 (1 times)",)
    one, other = machines({"a": [HERE, HERE], "b": [HERE, HERE], "c": [HERE, newer]})
    assert one == {
        "description": "Epyc, AVX512 instructions, 1 thread, computed on cpu in float32, Linux, Python 3.11, "
        "torch 2.14",
        "runs": 3,
        "first": "2026-01-02",
        "last": "2026-01-02",
    }
    assert (other["runs"], other["first"]) == (1, "2026-03-04")


def test_provenance_is_assembled_from_the_runs(tmp_path, monkeypatch):
    made = study(compared("centre-blob"), net())
    run_study(made, tmp_path)
    before = (tmp_path / "provenance.json").read_bytes()
    found = json.loads(before)
    assert found["numerics"]["precision"] == "float32"
    assert found["differences"] == []
    assert [each["runs"] for each in found["machines"]] == [2]
    assert {"micraframe", "torch", "python", "micraframe-unet"} <= found["versions"].keys()
    # Writing tables again, later and elsewhere, changes nothing of it.
    from micraframe.study import write_results
    from micraframe.types import Progress

    monkeypatch.setattr("micraframe.study.provenance.machine", lambda: {"processor": "other"})
    write_results(made, runs_of(made, StudyFolder(tmp_path)), StudyFolder(tmp_path), Progress())
    assert (tmp_path / "provenance.json").read_bytes() == before
