"""A study that is killed at any moment and started again ends as one that is not, and does nothing twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from micraframe import config
from micraframe.config import Study
from micraframe.study import run_study

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")

TABLES = ("rows.csv", "summary.csv", "costs.csv", "statistics.csv")
PATIENCE = 600
"""Seconds after which a process that should have ended is taken to hang."""

STUDY = """
datasets:
  - name: modified-digits
    params: {{size: 32, counts: [1], digits: 20, train: 12, valid: 4, test: 4}}
methods:
  - label: net
    method:
      name: micra-net
      params: &micra
        backbone: {{name: unet-encoder, params: {{widths: [2, 4]}}}}
        dropout: 0
        training: {{epochs: {epochs}, batch_size: 4}}
    head: &head {{name: semantic, params: {{presence_threshold: 0.2}}}}
  - label: coarse
    method: {{name: micra-net, params: {{<<: *micra, combiner: last-layer}}}}
    head: *head
  - method: intensity-otsu
seeds: {seeds}
tuning_images: 2
ceilings: false
pictures: 1
device: cpu
precision: float32
"""


def start(file: Path, output: Path) -> subprocess.Popen[str]:
    words = ["study", "run", str(file), "--output", str(output)]
    return subprocess.Popen(
        [sys.executable, "-c", "from micraframe.cli import main; main()", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MICRAFRAME_SCRATCH": str(output.parent / "scratch" / output.name)},
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said


def kill_when(process: subprocess.Popen[str], appears: Callable[[], bool]) -> None:
    """Kill the process as soon as something has appeared."""
    end = time.monotonic() + PATIENCE
    while not appears():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "nothing appeared"
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def finished(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return what is finished, and by what it is seen whether it was written again."""
    files = [*folder.glob("runs/[!.]*/done.json"), *folder.glob("models/[!.]*/*")]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of the only training; they are not in the study's folder."""
    return list((folder.parent / "scratch" / folder.name).glob("*/checkpoints/epoch-*"))


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """Return what the newest checkpoint of the only training knows of its epochs."""
    newest = sorted(checkpoints(folder))[-1] / "state.json"
    rows: list[dict[str, Any]] = json.loads(newest.read_text())["rows"]
    return rows


def test_killed_from_outside_at_three_moments(tmp_path: Path) -> None:
    file, folder = tmp_path / "study.yaml", tmp_path / "killed"
    file.write_text(STUDY.format(epochs=20, seeds=[0]))
    finish(start(file, tmp_path / "undisturbed"))

    kill_when(start(file, folder), lambda: bool(checkpoints(folder)))
    known = epochs_of(folder)
    kill_when(start(file, folder), lambda: any(folder.glob("models/[!.]*/model.json")))
    trained = finished(folder)
    assert trained
    kill_when(start(file, folder), lambda: any(folder.glob("runs/*/done.json")))
    before = finished(folder)
    assert trained.items() <= before.items()
    finish(start(file, folder))

    assert tables(folder) == tables(tmp_path / "undisturbed")
    assert before.items() <= finished(folder).items()
    # The epochs before the first kill are in the log with the very seconds that they took then.
    with next(folder.glob("training/*/log.csv")).open(newline="") as stream:
        log = list(csv.DictReader(stream))
    assert [int(row["epoch"]) for row in log] == list(range(1, 21))
    assert [float(row["seconds"]) for row in log[: len(known)]] == [round(row["seconds"], 3) for row in known]


def killed_at(number: int, file: Path, output: Path) -> None:
    """Run the study, and die when a file is put in its place for that time: by turns just before, and just after."""
    replace = Path.replace
    count = 0

    def counted(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == number and number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        moved = replace(self, target)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.replace = counted  # type: ignore[method-assign]
    assert not run_study(config.read(file, Study), output).failures


def keep_killing(file: Path, output: Path) -> None:
    """Run the study until it ends; the first process dies at its first file, the second at its second, and so on."""
    kills = 0
    done: dict[Path, tuple[int, int]] = {}
    while True:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                killed_at(kills + 1, file, output)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        now = finished(output)
        assert done.items() <= now.items(), "something was done again"
        done = now
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
    assert kills > 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_killed_at_every_kind_of_file(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.format(epochs=2, seeds=[0]))
    words = [sys.executable, __file__, file, tmp_path / "killed"]
    ran = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ran.returncode == 0, ran.stderr
    finish(start(file, tmp_path / "undisturbed"))
    assert tables(tmp_path / "killed") == tables(tmp_path / "undisturbed")
    assert not list((tmp_path / "killed").glob("runs/*/.*")), "what a killed process left half written"


if __name__ == "__main__":
    keep_killing(Path(sys.argv[1]), Path(sys.argv[2]))
