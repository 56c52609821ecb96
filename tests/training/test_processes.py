"""Several processes learn together what one learns alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from noise_samples import make_samples
from torch import nn

from micraframe.backbones.unet_encoder import UNetEncoder
from micraframe.classifier import Classifier, create_classifier
from micraframe.cli import app
from micraframe.errors import ModelError
from micraframe.modelfile import load_model
from micraframe.training import ClassifierRecipe, fit_classifier
from micraframe.training.processes import accelerator_for, is_main_process, share
from micraframe.types import FitContext, Layer, Progress

# The last of the batches of 5, 5 and 3 is too small for two to share.
RECIPE = ClassifierRecipe(epochs=3, batch_size=5, learning_rate=3e-3, gradient_clipping=0.5)
CONFIG = """
dataset: {name: modified-digits, params: {size: 64, counts: [1], train: 12, valid: 5, test: 1}}
method:
  name: micra-net
  params:
    backbone: {name: unet-encoder, params: {widths: [2, 3]}}
    training: {epochs: 2, batch_size: 4}
"""


class Plain(nn.Module):
    """A backbone without batch normalisation, of which several processes' gradients are exactly one's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.relu(self.conv(images))]


def train(normalised: bool, context: FitContext) -> dict[str, Any]:
    """Return weights and measurements."""
    torch.manual_seed(0)
    if normalised:
        model = create_classifier(UNetEncoder(UNetEncoder.Params(widths=(2, 3))), 1, 2, dropout=0.0)
    else:
        model = Classifier(Plain(), (Layer("L1", 3, 1),), 1, 2, dropout=0.0)
    history = fit_classifier(model, make_samples(13), make_samples(7, start=100), RECIPE, context)
    return {
        "weights": safetensors.torch.save(model.state_dict()).hex(),
        "measured": [[one.train_loss, one.valid_loss, *one.measures.values()] for one in history.epochs],
    }


def each_process(folder: Path) -> None:
    """Learn, and write what was learned and reported; then run the command."""
    steps: list[int] = []

    class Recorder(Progress):
        def advance(self, label: str, done: int, total: int, numbers: object = ()) -> None:
            steps.append(done)

    context = FitContext(precision="float32", device="cpu", progress=Recorder())
    results = {
        "plain": train(False, context),
        "normalised": train(True, FitContext(folder=folder / "training", device="cpu")),
        "resumed": train(True, FitContext(folder=folder / "training", device="cpu")),
        "steps": steps,
        "main": is_main_process(),
    }
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(results))
    app(["train", str(folder / "config.yaml"), "--output", str(folder / "output")])


def launch(folder: Path, processes: int = 2) -> list[tuple[str, str]]:
    """Start processes as torchrun does; return each one's output and errors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, folder],
            env=os.environ
            | {key: str(value) for key, value in shared.items()}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors
    return outputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def learned(folder: Path) -> list[dict[str, Any]]:
    (folder / "config.yaml").write_text(CONFIG)
    outputs = launch(folder)
    results = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return [
        result | {"printed": printed, "errors": errors}
        for result, (printed, errors) in zip(results, outputs, strict=True)
    ]


def test_two_learn_what_one_learns(learned: list[dict[str, Any]]) -> None:
    alone = train(False, FitContext(precision="float32", device="cpu"))
    for together in learned:
        np.testing.assert_allclose(together["plain"]["measured"], alone["measured"], rtol=1e-4)
        weights = safetensors.torch.load(bytes.fromhex(together["plain"]["weights"]))
        for name, tensor in safetensors.torch.load(bytes.fromhex(alone["weights"])).items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["plain", "normalised"])
def test_all_end_with_the_same(learned: list[dict[str, Any]], network: str) -> None:
    assert learned[0][network] == learned[1][network]


def test_all_go_on_from_what_the_first_wrote(learned: list[dict[str, Any]]) -> None:
    assert all(one["resumed"] == one["normalised"] for one in learned)


def test_the_first_writes_and_reports(learned: list[dict[str, Any]], folder: Path) -> None:
    assert [one["main"] for one in learned] == [True, False]
    assert learned[0]["steps"][-1] == RECIPE.epochs * 3
    assert learned[1]["steps"] == []
    assert len((folder / "training" / "log.csv").read_text().splitlines()) == 1 + RECIPE.epochs
    assert {path.name for path in (folder / "training").iterdir()} == {"checkpoints", "log.csv", "curves.svg"}


def test_the_command_saves_and_prints_once(learned: list[dict[str, Any]], folder: Path) -> None:
    first, second = learned
    assert first["printed"].count("on 12 samples") == 1
    assert second["printed"] == second["errors"] == ""
    assert load_model(folder / "output" / "model").info.classes[0] == "0"
    assert {path.name for path in (folder / "output").glob("[!.]*")} == {
        "config.yaml",
        "model",
        "splits.csv",
        "test.csv",
        "training",
    }


@given(st.integers(1, 40), st.integers(1, 5))
def test_shares_make_the_batch(size: int, processes: int) -> None:
    shares = [share(range(size), process, processes) for process in range(processes)]
    counted = np.zeros(size)
    for one in shares:
        counted[list(one.indices)] += one.weight
        assert min(size, 2) <= len(one.indices)
        assert one.scale == pytest.approx(len(one.indices) * one.weight * processes / size)
    np.testing.assert_allclose(counted, 1)
    assert sum(one.scale for one in shares) / processes == pytest.approx(1)


def test_one_process_takes_all() -> None:
    assert share([3, 1, 2], 0, 1) == ([3, 1, 2], 1.0, 1.0)


def test_nothing_of_accelerate_stays_on_the_network() -> None:
    torch.manual_seed(0)
    model = create_classifier(UNetEncoder(UNetEncoder.Params(widths=(2,))), 1, 2)
    before = set(vars(model))
    fit_classifier(model, make_samples(4), make_samples(2), RECIPE, FitContext())
    assert set(vars(model)) == before
    with pytest.raises(ModelError, match="diverged"):
        fit_classifier(model, make_samples(4), make_samples(2), ClassifierRecipe(learning_rate=1e30), FitContext())
    assert set(vars(model)) == before


def test_the_kind_of_device_may_change() -> None:
    assert accelerator_for(torch.device("cpu")).device.type == "cpu"
    state = accelerator_for(torch.device("cpu")).state
    state.device = torch.device("cuda")  # as a training on a GPU would have left it
    assert accelerator_for(torch.device("cpu")).device.type == "cpu"


if __name__ == "__main__":
    each_process(Path(sys.argv[1]))
