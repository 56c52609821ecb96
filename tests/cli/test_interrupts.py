"""Ctrl-C, at any time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from micraframe import cli

COMMAND = "from pathlib import Path; from micraframe.cli import main; Path('started').touch(); main()"
TRAIN = """
dataset: {name: modified-digits, params: {size: 32, counts: [1], digits: 20, train: 8, valid: 4, test: 1}}
method:
  name: micra-net
  params: {backbone: {name: unet-encoder, params: {widths: [2, 3]}}, training: {epochs: 100000, early_stopping: null}}
device: cpu
"""
RESUME = "micraframe: interrupted; run the same command again to resume\n"


def interrupt(words: list[str], folder: Path, is_time: Callable[[], bool]) -> tuple[int, str]:
    """Run a command in a folder, interrupt it once it is time, and return its exit code and standard error."""
    # The handler of this process, which would be inherited, may ignore the signal.
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        try:
            until = time.monotonic() + 120
            while not is_time():
                assert child.poll() is None
                assert time.monotonic() < until
                time.sleep(0.01)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    return child.returncode, said


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "train.yaml").write_text(TRAIN)
    return ["train", str(tmp_path / "train.yaml"), "--output", str(tmp_path / "run")]


def test_an_interrupted_training_says_how_to_resume_and_resumes(words: list[str], tmp_path: Path) -> None:
    checkpoints = tmp_path / "run" / "training" / "checkpoints"
    code, said = interrupt(words, tmp_path, lambda: (checkpoints / "epoch-000002").exists())
    assert code == 130
    assert said.endswith(RESUME)
    assert "Traceback" not in said
    last = max(int(folder.name.removeprefix("epoch-")) for folder in checkpoints.glob("epoch-*"))
    _, said = interrupt(words, tmp_path, lambda: (checkpoints / f"epoch-{last + 1:06d}").exists())
    assert said.count("resuming from epoch") == 1
    assert f"resuming from epoch {last + 1} of 100000\n" in said


@pytest.mark.parametrize("delay", [0.05, 0.5, 2.0])
def test_an_early_interrupt_is_one_line(words: list[str], tmp_path: Path, delay: float) -> None:
    def is_time() -> bool:
        started = (tmp_path / "started").exists()
        time.sleep(delay if started else 0)
        return started

    code, said = interrupt(words, tmp_path, is_time)
    assert code == 130
    assert said.endswith(RESUME)
    assert "Traceback" not in said


@pytest.mark.parametrize(("command", "line"), [("study", RESUME), ("predict", "micraframe: interrupted\n")])
def test_what_a_library_makes_of_an_interrupt_does_not_matter(
    command: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt as error:
            raise ImportError("cannot import name 'torch'") from error

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["micraframe", command])
    with pytest.raises(SystemExit, match="130"):
        cli.main()
    assert capsys.readouterr().err == line
    assert signal.getsignal(signal.SIGINT) == handler
