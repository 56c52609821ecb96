from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from micraframe.config import Choice
from micraframe.errors import ModelError
from micraframe.modelfile import DESCRIPTION, WEIGHTS, ModelFile, load_model, provenance, save_model
from micraframe.tiling import Tiling
from micraframe.types import DatasetInfo, Normalisation

INFO = DatasetInfo(
    "cells",
    ("ring", "fibre"),
    2,
    Normalisation("fixed", offset=(0.1, 0.2), scale=(3.0,), clip=True),
    fingerprint="abc",
    pixel_size_um=0.02,
)


def model() -> ModelFile:
    whole = torch.arange(24.0).reshape(2, 3, 4)
    return ModelFile(
        Choice(name="micraframe/micra-net", params={"dropout": 0.5}),
        Choice(name="micraframe/semantic", params={"presence_threshold": [0.5, 0.3]}),
        INFO,
        {
            "turned": whole.permute(2, 0, 1),
            "part": whole[0],
            "same part": whole[0],
            "count": torch.tensor(7),
            "half": torch.ones(3, dtype=torch.bfloat16),
            "nothing": torch.zeros(0, 5),
        },
        Tiling(size=256, halo=32),
        {"presence": "validation"},
        Choice(name="micraframe/semantic", params={"presence_threshold": 0.5}),
        provenance(3, INFO.fingerprint, {}),
    )


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    saved = model()
    save_model(tmp_path / "model", saved)
    read = load_model(tmp_path / "model")
    for name in ("method", "head", "info", "tiling", "origins", "untuned", "provenance"):
        assert getattr(read, name) == getattr(saved, name)
    assert read.tensors.keys() == saved.tensors.keys()
    for name, tensor in saved.tensors.items():
        assert read.tensors[name].dtype == tensor.dtype
        assert torch.equal(read.tensors[name], tensor)


def test_the_same_model_has_the_same_bytes(tmp_path: Path) -> None:
    one = model()
    other = dataclasses.replace(one, tensors=dict(reversed(one.tensors.items())))
    save_model(tmp_path / "one", one)
    save_model(tmp_path / "other", other)
    for name in (DESCRIPTION, WEIGHTS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_saving_replaces_what_was_there(tmp_path: Path) -> None:
    save_model(tmp_path / "model", model())
    (tmp_path / "model" / "left over").touch()
    save_model(tmp_path / "model", model())
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [DESCRIPTION, WEIGHTS]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    save_model(tmp_path / "model", model())
    before = (tmp_path / "model" / WEIGHTS).read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_model(tmp_path / "model", dataclasses.replace(model(), provenance={"nan": math.nan}))  # type: ignore[dict-item]
    assert (tmp_path / "model" / WEIGHTS).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_provenance_names_versions_and_seed() -> None:
    record = provenance(3, "abc", {"device": "cpu"})
    assert record["seed"] == "3"
    assert record["device"] == "cpu"
    assert record["data"] == "abc"
    assert record["torch"] == torch.__version__.partition("+")[0] or record["torch"] == torch.__version__
    assert {"micraframe", "timm", "python"} <= record.keys()


def edit(folder: Path, **changes: Any) -> None:
    path = folder / DESCRIPTION
    record = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del record[key]
        else:
            record[key] = value
    path.write_text(json.dumps(record))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", model())
    return tmp_path / "model"


@pytest.mark.parametrize("name", [DESCRIPTION, WEIGHTS])
def test_a_missing_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ModelError, match=f"expected a saved model.*; there is no {name} in it$"):
        load_model(saved)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: expected a saved model, .*; there is no such folder$"):
        load_model(tmp_path / "nowhere")


def test_the_folder_of_a_training_instead_of_its_model(saved: Path) -> None:
    training = saved.with_name("training")
    training.mkdir()
    saved.rename(training / "model")
    with pytest.raises(ModelError, match=rf"training: expected .*; did you mean {training}/model\?$"):
        load_model(training)


@pytest.mark.parametrize("version", [0, 1, "2", None])
def test_another_format_version(saved: Path, version: Any) -> None:
    edit(saved, format=version)
    with pytest.raises(ModelError, match=f"expected format 3, got {version!r}"):
        load_model(saved)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\ud800"])
def test_a_description_that_is_none(saved: Path, text: str) -> None:
    (saved / DESCRIPTION).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelError, match=DESCRIPTION):
        load_model(saved)


@pytest.mark.parametrize("cut", [0, 5, -1])
def test_truncated_weights(saved: Path, cut: int) -> None:
    content = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(content[:cut])
    with pytest.raises(ModelError, match="expected the SHA-256 in model.json, got another"):
        load_model(saved)


def test_weights_of_which_a_bit_is_wrong(saved: Path) -> None:
    content = bytearray((saved / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (saved / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="expected the SHA-256 in model.json, got another"):
        load_model(saved)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of a model file was run",))


def test_pickled_weights_are_not_run(saved: Path) -> None:
    content = pickle.dumps(Bomb())
    (saved / WEIGHTS).write_bytes(content)
    edit(saved, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"info": None},
        {"info": {"name": "cells"}},
        {"info": {**dataclasses.asdict(INFO), "classes": []}},
        {"method": {"name": 3}},
        {"head": None},
        {"tiling": {"size": 3}},
        {"origins": {"presence": 3}},
        {"provenance": ["torch"]},
    ],
)
def test_a_description_without_what_is_needed(saved: Path, changes: dict[str, Any]) -> None:
    edit(saved, **changes)
    with pytest.raises(ModelError, match=r"^[^\n]*model[^\n]*save the model again$"):
        load_model(saved)
