"""MICRA-Net's model: what is saved, what loading may touch, and its two steps in a notebook."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm

import micraframe
from micraframe import pipeline
from micraframe.combiners.pca import Pca
from micraframe.errors import ConfigError, DataError, MicraframeError
from micraframe.micranet import MicraNetModel
from micraframe.pipeline import Pipeline
from micraframe.registry import build
from micraframe.types import DatasetInfo, FitContext, Normalisation, Sample

INFO = DatasetInfo("noise", ("rings", "fibers"), 1, Normalisation("none"), "")
TIMM = {"name": "timm", "params": {"model": "resnet10t", "pretrained": True, "out_indices": [0, 1]}}


def make_samples(count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(f"s{number}", rng.random((1, 33, 35), dtype=np.float32), labels=rng.random(2) > 0.5)
        for number in range(count)
    ]


def fit(backbone: dict[str, Any], folder: Path | None = None) -> Pipeline:
    params = {"backbone": backbone, "training": {"epochs": 1, "batch_size": 4}}
    context = FitContext(folder=folder, device="cpu")
    return pipeline.fit({"name": "micra-net", "params": params}, make_samples(4), make_samples(2), INFO, context)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("micranet")
    fit({"name": "unet-encoder", "params": {"widths": [2, 3]}}, path / "training").save(path / "model")
    return path


def test_the_log_names_the_classes(folder: Path) -> None:
    with (folder / "training" / "log.csv").open() as stream:
        header = next(csv.reader(stream))
    assert [name for name in header if name.startswith("accuracy")] == ["accuracy rings", "accuracy fibers"]


def test_maps_and_scores_in_five_lines(folder: Path) -> None:
    image = make_samples(1)[0].image
    pipeline = micraframe.load(folder / "model")
    [maps] = pipeline.model.explain([image], [0])
    scores = pipeline.model.combine(maps, image)
    assert [array.shape for array in maps.maps] == [(1, 33, 35), (1, 33, 35), (1, 16, 17), (1, 16, 17)]
    assert (scores.classes, scores.maps.shape, scores.coarse.shape) == ((0,), (1, 33, 35), (1, 33, 35))


def test_an_image_without_classes_is_not_combined(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pca, "combine", None)
    [scores] = micraframe.load(folder / "model").model.score([make_samples(1)[0].image], lambda presence: ())
    assert (scores.classes, scores.maps.shape, scores.coarse.shape) == ((), (0, 33, 35), (0, 33, 35))


def test_a_method_that_trains_it_learns_of_a_wrong_layer_before_training(tmp_path: Path) -> None:
    parts = {"backbone": {"name": "unet-encoder", "params": {"widths": [2, 3]}}}
    method = build("method", "micra-net", **parts, combiner={"name": "select", "params": {"layers": ["nowhere"]}})
    with pytest.raises(ConfigError, match="expected layers from .*, got 'nowhere'"):
        method.fit(make_samples(4), [], INFO, FitContext(folder=tmp_path / "training", device="cpu"))
    assert not (tmp_path / "training").exists()


def test_explain_and_combine_are_the_steps_of_score(folder: Path) -> None:
    images = [sample.image for sample in make_samples(3)]
    model = micraframe.load(folder / "model", "cpu").model
    assert isinstance(model, MicraNetModel)
    steps = [
        model.combine(maps, image)
        for image, maps in zip(images, model.explain(images, lambda presence: (1, 0)), strict=True)
    ]
    for one, other in zip(steps, model.score(images, lambda presence: (1, 0)), strict=True):
        assert one.classes == other.classes == (1, 0)
        for name in ("presence", "maps", "coarse"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_maps_of_another_image_are_an_error(folder: Path) -> None:
    model = micraframe.load(folder / "model", "cpu").model
    [maps] = model.explain([make_samples(1)[0].image], [0])
    with pytest.raises(DataError, match="expected an image of size"):
        model.combine(maps, np.zeros((1, 35, 33), np.float32))


def test_a_saved_model_is_loaded_without_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create, requested = timm.create_model, []

    def spy(name: str, *, pretrained: bool, **options: Any) -> Any:
        requested.append(pretrained)
        return create(name, pretrained=False, **options)  # without internet

    monkeypatch.setattr(timm, "create_model", spy)
    trained = fit(TIMM)
    assert requested == [False, True]  # the rehearsal needs no weights
    trained.save(tmp_path / "model")
    loaded = pipeline.load(tmp_path / "model", "cpu")
    assert requested == [False, True, False]
    image = make_samples(1)[0].image
    [one], [other] = trained.predict([image]), loaded.predict([image])
    np.testing.assert_array_equal(one.scores.presence, other.scores.presence)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.json").read_bytes() == (tmp_path / "model" / "model.json").read_bytes()


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"options": {"checkpoint_path": "FILE"}}, ConfigError),
        ({"options": {"pretrained_cfg": "FILE"}}, ConfigError),
        ({"options": {"pretrained_cfg_overlay": {"file": "FILE"}}, "pretrained": True}, ConfigError),
        ({"model": "local-dir:FILE"}, MicraframeError),
    ],
)
def test_a_crafted_model_file_runs_no_code_and_opens_no_other_file(
    tmp_path: Path, change: dict[str, Any], error: type[MicraframeError]
) -> None:
    fit(TIMM | {"params": {"model": "resnet10t", "out_indices": [0, 1]}}).save(tmp_path / "model")
    payload, mark = tmp_path / "payload.pth", tmp_path / "executed"
    payload.write_bytes(pickle.dumps(Payload(mark)))
    description = tmp_path / "model" / "model.json"
    record = json.loads(description.read_text())
    record["method"]["params"]["backbone"]["params"] |= json.loads(json.dumps(change).replace("FILE", str(payload)))
    description.write_text(json.dumps(record))
    with pytest.raises(error):
        micraframe.load(tmp_path / "model", "cpu")
    assert not mark.exists()
