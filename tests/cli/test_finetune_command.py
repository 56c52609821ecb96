from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from table_files import rows_of

from micraframe import pipeline
from micraframe.config import Choice
from micraframe.errors import ConfigError
from micraframe.images import write_png
from micraframe.interfaces import Thresholds
from micraframe.modelfile import load_model

DATASET = "dataset: {name: modified-digits, params: {size: 64, counts: [1], train: 8, valid: 4, test: 1}}\n"
METHOD = """
method:
  name: micra-net
  params: {backbone: {name: unet-encoder, params: {widths: [2, 3]}}, training: {epochs: 1, batch_size: 4}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "train.yaml").write_text(DATASET + METHOD)
    run("train", folder / "train.yaml", "--output", folder / "trained")
    (folder / "more.yaml").write_text(DATASET + "training: {epochs: 2, learning_rate: 0.02}\nseed: 5\n")
    return folder


def test_a_model_continues_to_learn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = folder / "trained" / "model"
    run("finetune", model, folder / "more.yaml", "--unfreeze", "linear", "--output", folder / "tuned")
    assert "on 8 samples, with 4 for validation" in capsys.readouterr().out
    before, after = load_model(model), load_model(folder / "tuned" / "model")
    changed = {name for name, tensor in after.tensors.items() if not tensor.equal(before.tensors[name])}
    assert changed == {"linear.weight", "linear.bias"}
    used = after.method.params["training"]
    assert (used["epochs"], used["learning_rate"], used["batch_size"]) == (2, 0.02, 4)
    assert after.provenance["seed"] == "5"
    assert len((folder / "tuned" / "training" / "log.csv").read_text().splitlines()) == 3


def test_thresholds_tuned_for_the_old_model_are_not_those_of_the_new_one(folder: Path, tmp_path: Path) -> None:
    trained = pipeline.load(folder / "trained" / "model").with_head(
        Choice(name="semantic", params={"presence_threshold": 0.3})
    )
    tuned = trained.with_thresholds(Thresholds((0.8,) * 10, 0.9), "validation")
    tuned.with_thresholds(Thresholds((0.7,) * 10), "oracle").save(tmp_path / "tuned")
    run("finetune", tmp_path / "tuned", folder / "more.yaml", "--unfreeze", "linear", "--output", tmp_path / "new")
    new = pipeline.load(tmp_path / "new" / "model")
    assert new.head.params == trained.head.params
    assert (new.origins, new.untuned) == ({}, None)


def test_an_imported_model_which_has_no_seed_continues_to_learn(folder: Path, tmp_path: Path) -> None:
    trained = pipeline.load(folder / "trained" / "model")
    dataclasses.replace(trained, provenance={"imported": "published.hdf5"}).save(tmp_path / "imported")
    run("finetune", tmp_path / "imported", folder / "more.yaml", "--unfreeze", "linear", "--output", tmp_path / "new")
    assert load_model(tmp_path / "new" / "model").provenance["seed"] == "5"


def test_another_methods_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "control.yaml").write_text(DATASET + "method: centre-blob\n")
    run("train", tmp_path / "control.yaml", "--output", tmp_path / "control")
    model = tmp_path / "control" / "model"
    with pytest.raises(ConfigError, match="expected a model of micra-net, got one of micraframe/centre-blob"):
        run("finetune", model, folder / "more.yaml", "--unfreeze", "all", "--output", tmp_path / "x")


def test_a_wrong_key_of_training(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(DATASET + "training: {epoch: 2}\n")
    model = folder / "trained" / "model"
    with pytest.raises(ConfigError, match="wrong.yaml: training: .*did you mean 'epochs'"):
        run("finetune", model, tmp_path / "wrong.yaml", "--unfreeze", "all", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_model_itself_is_unchanged(folder: Path, tmp_path: Path) -> None:
    model = folder / "trained" / "model"
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    run("finetune", model, folder / "more.yaml", "--unfreeze", "all", "--output", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert json.loads((tmp_path / "out" / "model" / "model.json").read_text())["provenance"]["before all: seed"] == "0"


def test_test_images_that_the_model_was_trained_on_are_a_warning(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", folder / "trained" / "model", folder / "more.yaml", "--unfreeze", "linear", "--output"]
    rows = rows_of(folder / "trained" / "splits.csv")
    before = (folder / "trained" / "splits.csv").read_text()
    run(*words, tmp_path / "apart")
    assert "was trained on" not in capsys.readouterr().err
    (name,) = (row["image"] for row in rows if row["split"] == "test")
    (folder / "trained" / "splits.csv").write_text(f"image,split\n{name},train\n")
    run(*words, tmp_path / "seen")
    (folder / "trained" / "splits.csv").write_text(before)
    expected = (
        f"1 of 1 test samples have the names of samples that the model to start from was trained on (first: {name})"
    )
    assert expected in capsys.readouterr().err


def test_classes_are_renamed(folder: Path, tmp_path: Path) -> None:
    table = "image,nought,one,group\n" + "".join(f"{n}.png,{n % 2},{1 - n % 2},g{n}\n" for n in range(8))
    (tmp_path / "labels.csv").write_text(table)
    for number in range(8):
        write_png(tmp_path / "images" / f"{number}.png", np.full((64, 64), number, np.uint8))
    params = f"{{images: {tmp_path}/images, labels: {tmp_path}/labels.csv, normalisation: {{kind: none}}}}"
    (tmp_path / "train.yaml").write_text(f"dataset: {{name: folder, params: {params}}}" + METHOD)
    run("train", tmp_path / "train.yaml", "--output", tmp_path / "first")
    (tmp_path / "labels.csv").write_text(table.replace("nought,one", "zero,1"))
    more = f"dataset: {{name: folder, params: {params}}}\ntraining: {{epochs: 1}}\nrename: {{nought: zero, one: uno}}\n"
    (tmp_path / "more.yaml").write_text(more)
    words = ["finetune", tmp_path / "first" / "model", tmp_path / "more.yaml", "--unfreeze", "linear", "--output"]
    run(*words, tmp_path / "new", "--rename", "one=1")
    assert pipeline.load(tmp_path / "new" / "model").info.classes == ("zero", "1")
    saved = load_model(tmp_path / "new" / "model")
    assert saved.provenance["before linear: classes"] == "nought, one"
    assert "one: '1'" in (tmp_path / "new" / "config.yaml").read_text()
    with pytest.raises(ConfigError, match="--rename one: expected OLD=NEW"):
        run(*words, tmp_path / "not", "--rename", "one")
    with pytest.raises(ConfigError, match="model's classes nought, one, got 'two'"):
        run(*words, tmp_path / "not", "--rename", "two=2")
    assert not (tmp_path / "not").exists()
