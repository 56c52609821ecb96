"""Published model files, written in their layout with random weights, against a forward pass written out by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from micraframe_paper.presets import preset
from micraframe_paper.zoo import dataset_of, import_zoo, read_zoo
from torch.nn import functional

import micraframe
from micraframe.cli import app
from micraframe.errors import ConfigError, MissingDependency, ModelError
from micraframe.pipeline import Pipeline

WIDTHS = (3, 4, 6, 8)
STRIDES = (1, 1, 2, 2, 4, 4, 8, 8)
RATIOS = ("2:1", "1:1", "1:2", "1:5", "1:8", "1:16")
Weights = dict[str, npt.NDArray[Any]]


def weights(channels: int, classes: int, seed: int) -> Weights:
    """Return the arrays of a model, by the keys of the published files; its layers and classes do not die out."""
    generator = np.random.default_rng(seed)
    made: Weights = {}

    def normal(*shape: int) -> npt.NDArray[np.float32]:
        return generator.normal(size=shape).astype(np.float32)

    for stage, width in enumerate(WIDTHS, 1):
        for half, inputs in (("a", channels), ("b", width)):
            made[f"conv{stage}{half}.weight"] = normal(width, inputs, 3, 3) / 3
            made[f"conv{stage}{half}.bias"] = normal(width) / 10
            made[f"bnorm{stage}{half}.weight"] = 1 + normal(width) / 10
            made[f"bnorm{stage}{half}.bias"] = np.float32(0.5) + normal(width) / 10
            made[f"bnorm{stage}{half}.running_mean"] = normal(width) / 10
            made[f"bnorm{stage}{half}.running_var"] = np.abs(normal(width)) + np.float32(0.5)
            made[f"bnorm{stage}{half}.num_batches_tracked"] = np.array(1234)
        channels = width
    return made | {"linear1.weight": np.abs(normal(classes, channels)), "linear1.bias": normal(classes)}


def write(group: h5py.Group, arrays: Weights) -> None:
    for key, array in arrays.items():
        group.create_dataset(key, data=array)


def architecture(file: h5py.File, name: str, settings: dict[str, Any], thresholds: Any = None) -> h5py.Group:
    group = file.create_group(name)
    group.attrs["trainer_params"] = json.dumps(settings)
    if thresholds is not None:
        group.attrs["class_thresholds"] = thresholds
    return group


def settings(channels: int, classes: int) -> dict[str, Any]:
    return {"num_classes": classes, "num_input_images": channels, "size": 256, "lr": 0.001}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with a file of each dataset."""
    with h5py.File(tmp_path / "f-actin.hdf5", "w") as file:
        group = architecture(file, "MICRANet", {"epochs": 250, "model_params": settings(1, 2)})
        for seed in range(2):
            write(group.create_group(f"model_{seed}"), weights(1, 2, seed))
        architecture(file, "UNet", {}).create_group("model_0")
    with h5py.File(tmp_path / "ctc.hdf5", "w") as file:
        write(architecture(file, "MICRANet", settings(1, 2)).create_group("0"), weights(1, 2, 10))
    with h5py.File(tmp_path / "em-axon.hdf5", "w") as file:
        for seed, ratio in enumerate(RATIOS):
            group = architecture(file, f"MICRANet-{ratio}", settings(1, 1), np.array([0.1 * (seed + 1)]))
            write(group.create_group("0"), weights(1, 1, 20 + seed))
    with h5py.File(tmp_path / "p-vivax.hdf5", "w") as file:
        write(architecture(file, "MICRANet-naive", settings(3, 1), [0.25]).create_group("0"), weights(3, 1, 30))
        model = architecture(file, "MICRANet-finetuned", settings(3, 1)).create_group("0")
        for fold in range(3):
            group = model.create_group(str(fold))
            group.attrs["class_thresholds"] = [(0.2, 0.4, 0.9)[fold]]
            write(group, weights(3, 1, 40 + fold))
    return tmp_path


def imported(files: Path, dataset: str, **given: Any) -> dict[str, Pipeline]:
    given = {"intensities": (10.0, 60.0)} | given if dataset == "f-actin" else given
    output = files / f"models-{dataset}"
    folders = [folder for folder, *_ in import_zoo(files / f"{dataset}.hdf5", output, **given)]
    return {folder.relative_to(output).as_posix(): micraframe.load(folder, "cpu") for folder in folders}


def forward(arrays: Weights, image: npt.NDArray[np.float32]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return the eight layers, and the logits (K,), written out."""
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    x, layers = torch.from_numpy(image)[None].requires_grad_(), []
    for stage in range(1, 5):
        if stage > 1:
            x = functional.max_pool2d(x, 2)
        for half in "ab":
            conv, norm = f"conv{stage}{half}", f"bnorm{stage}{half}"
            x = functional.conv2d(x, tensors[f"{conv}.weight"], tensors[f"{conv}.bias"], padding=1)
            mean, variance = (tensors[f"{norm}.running_{part}"][:, None, None] for part in ("mean", "var"))
            scale, shift = (tensors[f"{norm}.{part}"][:, None, None] for part in ("weight", "bias"))
            x = torch.relu((x - mean) / torch.sqrt(variance + 1e-5) * scale + shift)
            layers.append(x)
    pooled = x.amax((2, 3))[0]
    return layers, tensors["linear1.weight"] @ pooled + tensors["linear1.bias"]


def component(arrays: Weights, image: npt.NDArray[np.float32], index: int, scale: str, sign: str) -> Any:
    """Return the first principal component of L1 to L7, scaled to [0, 1], and the rectified L8; each (H, W)."""
    layers, logits = forward(arrays, image)
    gradients = torch.autograd.grad(logits[index], layers)
    maps = []
    for activation, gradient, stride in zip(layers, gradients, STRIDES, strict=True):
        alpha = gradient.mean((2, 3), keepdim=True)
        native = (alpha * activation).sum(1)[0].detach().numpy().astype(np.float64)
        maps.append(native.repeat(stride, 0).repeat(stride, 1))
    *shallow, deepest = maps
    deepest = np.maximum(deepest, 0)
    stack = np.stack([one.ravel() for one in shallow], 1)
    if scale == "min-max":
        stack = (stack - stack.min(0)) / (stack.max(0) - stack.min(0))
    centred = stack - stack.mean(0)
    scores = (centred @ np.linalg.svd(centred, full_matrices=False)[2][0]).reshape(deepest.shape)
    positive = (scores * deepest).sum() > 0 if sign == "deepest-weighted" else scores.max() > -scores.min()
    scores = scores if positive else -scores
    return (scores - scores.min()) / (scores.max() - scores.min()), deepest / deepest.max()


@pytest.mark.parametrize("version", ["official", "paper"])
@pytest.mark.parametrize(
    ("dataset", "name", "channels", "classes", "seed"),
    [
        ("f-actin", "MICRANet/model_1", 1, 2, 1),
        ("ctc", "MICRANet/0", 1, 2, 10),
        ("em-axon", "MICRANet-1-5/0", 1, 1, 23),
        ("p-vivax", "MICRANet-naive/0", 3, 1, 30),
    ],
)
def test_logits_and_maps_are_those_of_a_forward_pass_by_hand(
    files: Path, dataset: str, name: str, channels: int, classes: int, seed: int, version: Any
) -> None:
    found = imported(files, dataset, version=version)[name]
    arrays = weights(channels, classes, seed)
    image = np.random.default_rng(99).random((channels, 48, 64), np.float32)
    logits = forward(arrays, image)[1].detach()
    torch.testing.assert_close(
        found.model.classifier.eval()(torch.from_numpy(image)[None])[0], logits, rtol=1e-4, atol=1e-4
    )
    (scores,) = found.score([image], lambda presence: range(classes))
    np.testing.assert_allclose(scores.presence, torch.sigmoid(logits).numpy(), atol=1e-5)
    params = preset(dataset, version).params["combiner"]["params"]
    for index in range(classes):
        combined, deepest = component(arrays, image, index, params["scale"], params["sign"])
        np.testing.assert_allclose(scores.maps[index], combined, atol=1e-4)
        np.testing.assert_allclose(scores.coarse[index], deepest, atol=1e-4)


def test_the_maps_of_folds_are_averaged(files: Path) -> None:
    found = imported(files, "p-vivax")["MICRANet-finetuned/0"]
    image = np.random.default_rng(98).random((3, 40, 40), np.float32)
    (scores,) = found.score([image], lambda presence: [0])
    folds = [weights(3, 1, 40 + fold) for fold in range(3)]
    presence = [torch.sigmoid(forward(fold, image)[1]).item() for fold in folds]
    assert scores.presence[0] == pytest.approx(np.mean(presence), abs=1e-5)
    maps = [component(fold, image, 0, "none", "largest-score")[0] for fold in folds]
    np.testing.assert_allclose(scores.maps[0], np.mean(maps, axis=0), atol=1e-4)


def test_every_architecture_is_read_with_its_thresholds_and_the_head_of_the_preset(files: Path) -> None:
    expected = {
        "f-actin": {"MICRANet/model_0": 0.5, "MICRANet/model_1": 0.5},
        "ctc": {"MICRANet/0": 0.5},
        "em-axon": {f"MICRANet-{ratio.replace(':', '-')}/0": 0.1 * (n + 1) for n, ratio in enumerate(RATIOS)},
        "p-vivax": {"MICRANet-naive/0": 0.25, "MICRANet-finetuned/0": 0.5},
    }
    for dataset, thresholds in expected.items():
        models = imported(files, dataset)
        assert models.keys() == thresholds.keys()
        for name, made in models.items():
            given = np.ravel(made.head.params.presence_threshold)
            assert given == pytest.approx(thresholds[name])
            assert made.origins == ({"presence": "validation"} if dataset in ("em-axon", "p-vivax") else {})
            chosen = preset(dataset, "official").head  # type: ignore[arg-type]
            assert made.head_name == chosen.name
            params = made.head.params.model_dump(mode="json")
            assert params["fill_holes"] == chosen.params.get("fill_holes", 0)
            assert params["smoothing"] == chosen.params["smoothing"]
            assert (made.info.name, made.info.image_size) == (dataset, (256, 256))


def test_images_are_normalised_as_those_it_learned_from(files: Path) -> None:
    raw = np.array([[[10.0, 30.0], [50.0, 210.0]]], np.float32)
    (actin, *_), (axon, *_), (cells,) = (imported(files, each).values() for each in ("f-actin", "em-axon", "ctc"))
    np.testing.assert_allclose(actin.info.normalisation.apply(raw), (raw - 10) / (0.8 * 50), rtol=1e-6)
    np.testing.assert_allclose(axon.info.normalisation.apply(raw), 1 - raw / 255, rtol=1e-6)
    np.testing.assert_allclose(cells.info.normalisation.apply(raw), (raw - 10) / 200, rtol=1e-6)
    assert cells.info.roles == ("object", "contact")


def test_the_file_tells_its_dataset(files: Path) -> None:
    for dataset in ("f-actin", "ctc", "em-axon", "p-vivax"):
        assert dataset_of(read_zoo(files / f"{dataset}.hdf5")) == dataset


def test_what_is_missing_or_does_not_fit_is_named(files: Path) -> None:
    with pytest.raises(ConfigError, match="intensities: expected two numbers for f-actin"):
        list(import_zoo(files / "f-actin.hdf5", files / "a"))
    with pytest.raises(ConfigError, match="intensities: expected none for ctc"):
        list(import_zoo(files / "ctc.hdf5", files / "b", intensities=(0.0, 1.0)))
    with pytest.raises(ConfigError, match="dataset: expected .* got 'actin'"):
        list(import_zoo(files / "ctc.hdf5", files / "c", "actin"))
    with pytest.raises(ModelError, match="expected 1 class and 3 channels for dataset p-vivax, got 2 and 1"):
        list(import_zoo(files / "ctc.hdf5", files / "d", "p-vivax"))
    with h5py.File(files / "ctc.hdf5", "a") as file:
        del file["MICRANet/0/bnorm3a.running_var"]
    with pytest.raises(ModelError, match=r"MICRANet/0: expected the arrays of 4 stages .*bnorm3a.running_var"):
        read_zoo(files / "ctc.hdf5")
    with h5py.File(files / "em-axon.hdf5", "a") as file:
        file["MICRANet-2:1"].attrs["class_thresholds"] = [0.5, 0.5]
    with pytest.raises(ModelError, match="class_thresholds: expected 1 number from 0 to 1"):
        read_zoo(files / "em-axon.hdf5")
    (files / "text.hdf5").write_text("no HDF5")
    with pytest.raises(ModelError, match="text.hdf5: expected a published model file"):
        read_zoo(files / "text.hdf5")


def test_the_command_writes_models_that_predict(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = files / "out"
    app(["import-zoo", str(files / "p-vivax.hdf5"), "--output", str(output), "--json"], standalone_mode=False)
    records = {record["model"]: record for record in json.loads(capsys.readouterr().out)}
    assert records[str(output / "MICRANet-finetuned" / "0")]["folds"] == 3
    image = np.random.default_rng(1).normal(size=(3, 37, 51)).astype(np.float32)
    for folder in records:
        (prediction,) = micraframe.load(folder, "cpu").predict([image])
        assert prediction.masks.shape == (1, 37, 51)
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        app(["import-zoo", str(files / "p-vivax.hdf5"), "--output", str(output)], standalone_mode=False)


def test_without_the_plugin_the_command_says_what_to_install(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "micraframe_paper.zoo", None)
    with pytest.raises(MissingDependency, match="pip install micraframe-paper"):
        app(["import-zoo", str(files / "ctc.hdf5"), "--output", str(files / "none")], standalone_mode=False)
