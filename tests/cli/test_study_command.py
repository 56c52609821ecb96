"""`micraframe study`: what it prints before, while and after a study runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Command
from small_studies import FAILING

from micraframe import config
from micraframe.cli import study as study_command
from micraframe.config import Choice, ComparedMethod, Study
from micraframe.images import write_png
from micraframe.pipeline import Pipeline
from micraframe.plugin import Component
from micraframe.study import StudyFolder, executors, job, plan, run_study
from micraframe.study.folder import Step
from micraframe.study.status import StudyStatus
from micraframe.types import Progress

SMOKE = Path(__file__).parents[2] / "benchmarks" / "studies" / "smoke.yaml"

ENTRY = [Component("method", "failing", "command_methods:Failing", "Failing")]


def study(*methods: str, **changes: Any) -> Study:
    params = {"size": 32, "counts": [1], "digits": 20, "train": 4, "valid": 2, "test": 2}
    return Study(
        datasets=[Choice(name="modified-digits", params=params)],
        methods=[ComparedMethod(method=Choice(name=name)) for name in methods],
        pictures=0,
        device="cpu",
        precision="float32",
        **changes,
    )


@pytest.fixture
def half_done(tmp_path: Path, install: Callable[..., None]) -> Path:
    """Return the folder of a study of which one run is done, one failed, one started and one waits."""
    install("command_plugin", ENTRY, command_methods=FAILING)
    run_study(study("intensity-otsu", "failing"), tmp_path)
    whole = study("intensity-otsu", "failing", "centre-blob", "random-map")
    folder = StudyFolder(tmp_path)
    folder.config.write_text(config.to_yaml(whole), encoding="utf-8")
    folder.scratch(plan(whole)[2]).mkdir(parents=True)
    return tmp_path


def test_status_counts_what_is_done_failed_started_and_waiting(half_done: Path, command: Command) -> None:
    ran = command("study", "status", half_done)
    assert ran.code == 0
    assert "4 runs: 1 done, 1 failed, 1 started, 1 waiting." in ran.out
    assert "4 trainings, 3 to do.\n" in ran.out
    assert "The remaining time is known once the first runs are done." in ran.out  # a control says nothing of trainings
    assert "cell" not in ran.out
    assert "RuntimeError: cannot learn this" in ran.out


@pytest.mark.parametrize("dry", [False, True])
def test_errors_are_below_the_table_and_whole(half_done: Path, command: Command, dry: bool) -> None:
    folder = StudyFolder(half_done)
    whole = "ValueError: " + "word " * 60 + "end"
    failed = plan(config.read(folder.config, Study))[1]
    folder.write_error(failed, f"Traceback (most recent call last):\n  File\n{whole}\n")
    words = ["run", folder.config, "--output", half_done, "--dry-run"] if dry else ["status", half_done]
    ran = command("study", *words)
    table, _, below = ran.out.partition("\n\n")
    assert "ValueError" not in table
    assert f"{failed} failed:\n  {whole}\n\n4 runs" in below


def test_what_nothing_measures_is_refused_by_a_dry_run(tmp_path: Path, command: Command) -> None:
    (tmp_path / "study.yaml").write_text(config.to_yaml(study("centre-blob", primary_metric="iuo")), encoding="utf-8")
    ran = command("study", "run", tmp_path / "study.yaml", "--output", tmp_path / "study", "--dry-run")
    assert (ran.code, ran.out) == (2, "")
    assert "primary_metric: no metric of this study reports 'iuo'" in ran.err


def test_the_time_to_go_is_printed_when_the_first_job_is_done(tmp_path: Path, command: Command) -> None:
    (tmp_path / "study.yaml").write_text(config.to_yaml(study("centre-blob", "random-map")), encoding="utf-8")
    ran = command("study", "run", tmp_path / "study.yaml", "--output", tmp_path / "study")
    (line,) = [line for line in ran.err.splitlines() if line.startswith("study 1/2")]
    assert re.fullmatch(r"study 1/2  about \d+ (s|min|h) remaining on one machine", line)


def test_a_plan_that_cannot_work_is_refused(tmp_path: Path, command: Command) -> None:
    pytest.importorskip("micraframe_unet")
    (tmp_path / "study.yaml").write_text(config.to_yaml(study("unet")), encoding="utf-8")
    ran = command("study", "run", tmp_path / "study.yaml", "--output", tmp_path / "study", "--dry-run")
    assert (ran.code, ran.out) == (2, "")
    assert "method 'unet' (micraframe-unet/unet): expected " in ran.err
    assert "got labels from annotator micraframe/image-level; choose another annotator" in ran.err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("name", ["study.yaml", "report.html"])
def test_files_of_others_are_not_replaced(tmp_path: Path, command: Command, name: str) -> None:
    (tmp_path / "mine.yaml").write_text(config.to_yaml(study("centre-blob")), encoding="utf-8")
    foreign = tmp_path / "out" / name
    foreign.parent.mkdir()
    foreign.write_text("title: mine\n")
    ran = command("study", "run", tmp_path / "mine.yaml", "--output", foreign.parent)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"micraframe: {foreign}: expected no file, or ")
    assert [(file.name, file.read_text()) for file in foreign.parent.iterdir()] == [(name, "title: mine\n")]


def test_lines_of_a_plan_that_are_too_long_are_folded(half_done: Path, command: Command, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    whole = command("study", "status", half_done).out.splitlines()
    assert whole[0].split() == ["run", "state", "trains", "seconds"]
    monkeypatch.setenv("COLUMNS", "60")
    folded = command("study", "status", half_done).out.splitlines()
    assert folded[:2] == ["run      modified-digits / image-level / intensity-otsu /", "         seed 0"]
    assert max(map(len, folded[:-4])) <= 60


def test_failures_for_the_same_reason_are_grouped(tmp_path: Path, command: Command, install: Any) -> None:
    install("command_plugin", ENTRY, command_methods=FAILING)
    (tmp_path / "study.yaml").write_text(config.to_yaml(study("failing", seeds=[0, 1])), encoding="utf-8")
    ran = command("study", "run", tmp_path / "study.yaml", "--output", tmp_path / "study")
    assert ran.code == 1
    assert ran.err.endswith(
        "2 failed, 0 done:\n  2 runs: RuntimeError: cannot learn this "
        "(first: modified-digits / image-level / failing / seed 0)\n"
    )


def test_status_of_a_study_that_was_interrupted_early(tmp_path: Path, command: Command) -> None:
    StudyFolder(tmp_path).write_numerics({})
    ran = command("study", "status", tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert "this study was interrupted before its first run" in ran.err


@pytest.mark.parametrize(("shared", "said"), [(1, "1 run reuses the"), (2, "2 runs reuse the")])
def test_runs_that_share_a_training_are_counted(shared: int, said: str) -> None:
    assert said in study_command._plan_text(StudyStatus((), 1, shared))


def test_status_as_json(half_done: Path, command: Command) -> None:
    found = json.loads(command("study", "status", half_done, "--json").out)
    assert [run["state"] for run in found] == ["done", "failed", "started", "waiting"]
    assert [run["trains"] for run in found] == [False, True, True, True]
    assert found[0]["seconds"] == 0
    assert found[1]["seconds"] is None
    assert all(run["seconds"] > 0 for run in found[2:])
    assert found[1]["error"] == "RuntimeError: cannot learn this"


def test_status_names_the_step_of_a_run_that_was_interrupted(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder = study("centre-blob", "random-map"), StudyFolder(tmp_path)
    folder.config.write_text(config.to_yaml(made), encoding="utf-8")

    def killed(run: Any, made: Study, folder: StudyFolder, progress: Progress, processes: Any) -> None:
        (before,) = json.loads(command("study", "status", tmp_path, "--json").out)[:1]
        assert (before["state"], before["step"]) == ("running", "start")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "execute", killed)
        with pytest.raises(KeyboardInterrupt):
            run_study(made, tmp_path)
    out = command("study", "status", tmp_path).out
    assert "2 runs: 1 interrupted, 1 waiting." in out
    assert out.split()[:3] == ["run", "state", "step"]
    run_study(made, tmp_path)
    out = command("study", "status", tmp_path).out
    assert "2 runs: 2 done." in out
    assert "step" not in out.splitlines()[0]


def test_a_step_is_kept_with_its_numbers_and_without_those_that_are_undefined(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    (run,) = plan(study("centre-blob"))
    assert folder.step(run) is None
    folder.write_step(run, Step(f"{run}: training", 3, 10, {"loss": 0.25, "valid": float("nan")}))
    assert str(folder.step(run)) == f"{run}: training 3/10, loss 0.25"
    folder.clear_step(run)
    assert folder.step(run) is None


def test_status_before_anything_is_done(tmp_path: Path, command: Command) -> None:
    (tmp_path / "study.yaml").write_text(config.to_yaml(study("centre-blob")), encoding="utf-8")
    assert "The remaining time is known once the first runs are done." in command("study", "status", tmp_path).out
    assert json.loads(command("study", "status", tmp_path, "--json").out)[0]["seconds"] is None


def test_report_writes_tables_of_what_is_done_and_runs_nothing(half_done: Path, command: Command) -> None:
    for name in ("rows", "summary", "statistics", "costs"):
        (half_done / f"{name}.csv").unlink()
    ran = command("study", "report", half_done)
    assert ran.code == 0
    assert "intensity-otsu" in ran.out
    assert all((half_done / f"{name}.csv").exists() for name in ("rows", "summary", "statistics", "costs"))
    assert len(list(half_done.glob("runs/*/rows.csv"))) == 1


@pytest.mark.parametrize("what", ["status", "report"])
def test_a_folder_that_is_no_study(tmp_path: Path, command: Command, what: str) -> None:
    ran = command("study", what, tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"micraframe: {tmp_path}: expected the folder of a study, got one without study.yaml; name its --output\n"
    )


@pytest.mark.parametrize("what", ["status", "report"])
def test_a_study_whose_images_are_gone(tmp_path: Path, command: Command, what: str) -> None:
    images = tmp_path / "images"
    for number in range(4):
        write_png(images / f"{number}.png", np.full((16, 16), 60 * number, np.uint8))
    (tmp_path / "labels.csv").write_text("image,a\n" + "".join(f"{number}.png,{number % 2}\n" for number in range(4)))
    params = {"images": str(images), "labels": str(tmp_path / "labels.csv"), "valid": 0.25, "test": 0.25}
    chosen = study("centre-blob").model_copy(update={"datasets": [Choice(name="folder", params=params)]})
    run_study(chosen, tmp_path / "study")
    for image in images.iterdir():
        image.unlink()
    ran = command("study", what, tmp_path / "study")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("micraframe: ")
    assert len(ran.err.splitlines()) == 1
    assert str(images) in ran.err


def test_a_model_that_was_saved_by_half_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(pipeline: Pipeline, folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("")
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "save", break_off)
        outcome = run_study(study("intensity-otsu"), tmp_path)
    assert "the disk is full" in next(iter(outcome.failures.values()))
    assert not run_study(study("intensity-otsu"), tmp_path).failures


def test_the_plan_of_the_smoke_study(tmp_path: Path, command: Command) -> None:
    pytest.importorskip("micraframe_unet")
    pytest.importorskip("micraframe_forest")
    ran = command("study", "run", SMOKE, "--output", tmp_path / "study", "--dry-run")
    assert ran.code == 0
    # Eight methods, two of which have two budgets, and two seeds; two combiners share a training. Three ceilings.
    assert "23 runs: 23 waiting." in ran.out
    assert not (tmp_path / "study").exists()


def test_a_dry_run_prints_the_job_script(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", "")
    (tmp_path / "study.yaml").write_text(config.to_yaml(study("centre-blob")), encoding="utf-8")
    (tmp_path / "slurm.yaml").write_text("{queue: gpu, cores: 8, walltime: '00:30:00'}\n")
    words = ["study", "run", tmp_path / "study.yaml", "--output", tmp_path / "study", "--executor", "dask"]
    words += ["--slurm", tmp_path / "slurm.yaml", "--dry-run"]
    ran = command(*words)
    assert ran.code == 0
    assert "#SBATCH -p gpu\n" in ran.err
    assert "#SBATCH --cpus-per-task=8\n" in ran.err
    assert f"#SBATCH -o {tmp_path / 'study' / 'slurm' / 'worker-%j.log'}\n" in ran.err
    assert "1 run: 1 waiting." in ran.out
    assert not (tmp_path / "study").exists()
    assert json.loads(command(*words, "--json").out)[0]["state"] == "waiting"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--slurm", "slurm.yaml"], "--scheduler and --slurm need --executor dask"),
        (["--executor", "dask", "--scheduler", "tcp://a:1", "--slurm", "b.yaml"], "give one of them"),
        (["--executor", "dask", "--slurm", "absent.yaml"], "absent.yaml: no such file"),
        (["--executor", "dask", "--scheduler", "tcp://127.0.0.1:9"], "expected a Dask scheduler at"),
    ],
)
def test_executors_that_cannot_be_used(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, words: list[str], reason: str
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "CONNECT", 0.2)
    (tmp_path / "study.yaml").write_text(config.to_yaml(study("centre-blob")), encoding="utf-8")
    ran = command("study", "run", tmp_path / "study.yaml", "--output", tmp_path / "study", *words)
    assert ran.code == 2
    said = [line for line in ran.err.splitlines() if line.startswith("micraframe: ")]
    assert len(said) == 1
    assert reason in said[0]
    assert ran.err.endswith(f"{said[0]}\n")
