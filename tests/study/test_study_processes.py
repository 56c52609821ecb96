"""A study in the processes of one torchrun: they train together, and the first does the rest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed
from small_studies import compared, net, study

from micraframe import config
from micraframe.study import StudyFolder, plan

PATIENCE = 240
"""Seconds after which processes are taken to be deadlocked."""

COMMAND = [sys.executable, "-c", "from micraframe.cli import main; main()"]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed processes here")
def test_two_processes_train_together_and_one_keeps_the_books(tmp_path: Path) -> None:
    made = study(net("net"), net("coarse", combiner="last-layer"), compared("centre-blob"), seeds=[0, 1])
    (tmp_path / "study.yaml").write_text(config.to_yaml(made), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = [*COMMAND, "study", "run", str(tmp_path / "study.yaml"), "--output", str(tmp_path / "study")]
    processes = [
        subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**common, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"},
        )
        for rank in ("0", "1")
    ]
    try:
        printed = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
    folder = StudyFolder(tmp_path / "study")
    assert all(folder.is_done(run) for run in plan(made))
    assert "6 runs: 6 waiting." in printed[0]
    assert "waiting for another process" not in "".join(printed)
    assert "run" not in printed[1], "the second process reports nothing"
