"""A training that is killed at any moment ends as one that is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from noise_samples import make_samples

from micraframe.backbones.unet_encoder import UNetEncoder
from micraframe.classifier import create_classifier
from micraframe.errors import ModelError
from micraframe.training import ClassifierRecipe, fit_classifier
from micraframe.types import FitContext, Progress

RECIPE = ClassifierRecipe(epochs=5, batch_size=4, learning_rate=1e-2, plateau_patience=0)
STEPS = 3
SILENT = Progress()


def train(folder: Path | None, progress: Progress = SILENT, seed: int = 3, recipe: ClassifierRecipe = RECIPE) -> bytes:
    """Return the bytes of the trained network."""
    torch.manual_seed(0)
    model = create_classifier(UNetEncoder(UNetEncoder.Params(widths=(2, 3))), 1, 2)
    context = FitContext(seed=seed, folder=folder, progress=progress)
    fit_classifier(model, make_samples(12), make_samples(6, start=100), recipe, context)
    return safetensors.torch.save(model.state_dict())


class Kill(Progress):
    """Kills the process after a number of steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def advance(self, label: str, done: int, total: int, numbers: object = ()) -> None:
        if done == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_in_the_middle_of_an_epoch(folder: Path) -> None:
    train(folder, Kill(step=3 * STEPS + 2))


def kill_while_a_checkpoint_is_written(folder: Path) -> None:
    write = Path.write_bytes

    def die(path: Path, content: bytes) -> int:
        if ".epoch-000003." in str(path):
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content)

    Path.write_bytes = die
    train(folder)


@pytest.fixture(scope="module")
def undisturbed() -> bytes:
    return train(None)


class Recorder(Progress):
    """Remembers reported steps and messages."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.messages: list[str] = []

    def advance(self, label: str, done: int, total: int, numbers: object = ()) -> None:
        if total:
            self.steps.append(done)
        else:
            self.messages.append(label)


@pytest.mark.parametrize(
    ("how", "done"), [("kill_in_the_middle_of_an_epoch", 3), ("kill_while_a_checkpoint_is_written", 2)]
)
def test_killed_and_resumed(tmp_path: Path, undisturbed: bytes, how: str, done: int) -> None:
    killed = subprocess.run([sys.executable, __file__, how, tmp_path], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list((tmp_path / "checkpoints").glob("epoch-*"))) == 2
    recorder = Recorder()
    assert train(tmp_path, recorder) == undisturbed
    assert recorder.steps[0] == done * STEPS + 1
    assert recorder.messages == [f"resuming from epoch {done + 1} of {RECIPE.epochs}"]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 1 + RECIPE.epochs
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_finished_training_is_not_done_again(tmp_path: Path, undisturbed: bytes) -> None:
    recorder = Recorder()
    assert train(tmp_path) == undisturbed
    assert train(tmp_path, recorder) == undisturbed
    assert recorder.steps == [RECIPE.epochs * STEPS]
    assert not recorder.messages


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
def test_a_damaged_generation_falls_back_to_the_one_before(tmp_path: Path, undisturbed: bytes, file: str) -> None:
    train(tmp_path)
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1] / file
    newest.write_bytes(newest.read_bytes()[:100])
    assert train(tmp_path) == undisturbed


def test_two_generations_are_kept(tmp_path: Path) -> None:
    train(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["epoch-000004", "epoch-000005"]


@pytest.mark.parametrize("change", [{"seed": 4}, {"recipe": RECIPE.model_copy(update={"batch_size": 5})}])
def test_another_trainings_folder_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    train(tmp_path)
    with pytest.raises(ModelError, match="got those of another"):
        train(tmp_path, **change)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
