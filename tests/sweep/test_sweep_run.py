from __future__ import annotations

import copy
import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import tifffile
import torch
import zarr
from typer.testing import CliRunner

import micraframe
from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.cli import app
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError, ModelError
from micraframe.micranet import FittedMicraNet, MicraNet
from micraframe.sweep import Options, sweep_file, sweep_image
from micraframe.sweep import engine as engines
from micraframe.sweep.image import LargeImage
from micraframe.sweep.run import correlations
from micraframe.types import DatasetInfo, Normalisation, Progress

OPTIONS = Options(window=(32, 32), tile=64, threshold=0.3)
OUTPUTS = ("proposals.csv", "proposals.geojson", "overlay.png", "windows-dense.csv")


@pytest.fixture(scope="module")
def fitted():
    """Return a model that finds bright spots: its weights are set by hand, so that nothing need be trained."""
    backbone = Choice(name="unet-encoder", params={"widths": [2, 2]})
    method = MicraNet(MicraNet.Params(backbone=backbone))
    classifier = Classifier(*registry.build("backbone", backbone.name, **backbone.params).create(1), classes=1).eval()
    for name, parameter in classifier.backbone.named_parameters():
        if "conv.weight" in name:
            parameter.data.fill_(1 / (9 * parameter.shape[1]))
        elif "conv.bias" in name:
            parameter.data.zero_()
    classifier.linear.weight.data.fill_(25)
    classifier.linear.bias.data.fill_(-20)
    info = DatasetInfo("spots", ("spot",), 1, Normalisation("min-max"), "0" * 64, image_size=(32, 32))
    return FittedMicraNet(method.params, classifier, info, {})


@pytest.fixture(scope="module")
def image():
    values = np.random.default_rng(0).integers(0, 20, (200, 270)).astype(np.uint8)
    for y, x in ((40, 50), (150, 200)):
        values[y : y + 12, x : x + 12] = 255
    return values


@pytest.fixture(scope="module")
def model(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "spots"
    fitted.save(folder)
    return folder


def results(folder):
    return {name: (folder / name).read_bytes() for name in OUTPUTS} | {
        "map": zarr.open_group(folder / "probability.ome.zarr", mode="r")["0"][:].tobytes()
    }


def test_spots_are_found(fitted, image, tmp_path):
    report = sweep_image(fitted, image, tmp_path, OPTIONS)
    with (tmp_path / "proposals.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == report.proposals == 2
    for y, x in ((46, 56), (156, 206)):
        inside = [
            int(row["x"]) <= x < int(row["x"]) + int(row["width"])
            and int(row["y"]) <= y < int(row["y"]) + int(row["height"])
            for row in rows
        ]
        assert sum(inside) == 1
    assert (report.window, report.step, report.size) == ((32, 32), 8, (200, 270))
    assert 0 < report.area < 0.2
    assert json.loads((tmp_path / "report.json").read_text())["proposals"] == 2
    assert cv2.imread(str(tmp_path / "overlay.png")).shape == (200, 270, 3)
    with (tmp_path / "windows-dense.csv").open(newline="") as stream:
        windows = list(csv.DictReader(stream))
    assert len(windows) == report.windows
    assert max(int(row["x"]) + int(row["width"]) for row in windows) == 270
    over = zarr.open_group(tmp_path / "probability.ome.zarr", mode="r")["0"]
    assert over.shape == (1, 25, 34)
    assert over[0, 46 // 8, 56 // 8] > 0.5 > over[0, 10, 20]


def test_both_modes_are_compared(fitted, image, tmp_path):
    report = sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, mode="both"))
    agreement = report.agreement
    assert agreement.correlation > 0.8
    assert agreement.correlations == {"spot": agreement.correlation}
    assert agreement.proposals_in_common == agreement.proposals_dense == agreement.proposals_exact == 2
    assert agreement.windows_above <= min(agreement.windows_above_dense, agreement.windows_above_exact)
    assert set(report.seconds) == {"dense", "exact"}
    assert (tmp_path / "windows-exact.csv").exists()


def test_the_tile_does_not_matter(fitted, image, tmp_path):
    maps = []
    for tile in (16, 52, 64, 1024):
        sweep_image(fitted, image, tmp_path / str(tile), dataclasses.replace(OPTIONS, tile=tile))
        maps.append(zarr.open_group(tmp_path / str(tile) / "probability.ome.zarr", mode="r")["0"][:])
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=1e-5)


@pytest.mark.parametrize(("mode", "tiles"), [("dense", 4 * 5), ("exact", 3 * 4)])
def test_never_more_than_a_tile_is_read(fitted, image, tmp_path, monkeypatch, mode, tiles):
    sides = []
    read = LargeImage.read

    def spy(self, top, bottom, left, right):
        sides.append((bottom - top, right - left))
        return read(self, top, bottom, left, right)

    monkeypatch.setattr(LargeImage, "read", spy)
    monkeypatch.setattr("micraframe.sweep.run.shrink", lambda image: (np.zeros((1, 200, 270), np.float32), 1))
    sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, mode=mode))
    assert len(sides) == 4 * 5 + tiles  # for intensities, then for those tiles in which a window begins
    assert max(map(max, sides)) <= 64 + max(2 * 6, 32)


def test_what_is_done_is_not_done_again(fitted, image, tmp_path, monkeypatch):
    sweep_image(fitted, image, tmp_path, OPTIONS)
    before = results(tmp_path)
    tiles = sorted((tmp_path / "tiles").rglob("*.npz"))
    assert len(tiles) == 4 * 5
    for tile in tiles[::3]:
        tile.unlink()
    calls = []
    dense_tile = engines.dense_tile
    monkeypatch.setattr(engines, "dense_tile", lambda *args: calls.append(args) or dense_tile(*args))
    sweep_image(fitted, image, tmp_path, OPTIONS)
    assert len(calls) == len(tiles[::3])
    assert results(tmp_path) == before
    # Another image, model or window is another sweep; another threshold is not.
    sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, threshold=0.6))
    assert len(calls) == len(tiles[::3])
    sweep_image(fitted, 255 - image, tmp_path, OPTIONS)
    sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, overlap=0.5))
    assert len(calls) == len(tiles[::3]) + 2 * len(tiles)


class Told(Progress):
    """Keeps the labels that it is told of."""

    def __init__(self):
        self.labels = []

    def advance(self, label, done, total, numbers=None):
        if label not in self.labels:
            self.labels.append(label)


def test_what_was_measured_is_not_measured_again(fitted, image, tmp_path, monkeypatch):
    info = dataclasses.replace(fitted.info, normalisation=Normalisation("percentile"))
    measuring = FittedMicraNet(fitted._params, fitted.classifier, info, {})
    first, second = Told(), Told()
    sweep_image(measuring, image, tmp_path, OPTIONS, first)
    assert first.labels == [
        "measure the network's reach",
        "measure intensities, pass 1 of 2",
        "measure intensities, pass 2 of 2",
        "sweep dense",
    ]
    before = results(tmp_path)
    monkeypatch.setattr(engines, "reach", None)
    sweep_image(measuring, image, tmp_path, OPTIONS, second)
    assert second.labels == ["sweep dense"]
    assert results(tmp_path) == before


def test_a_network_that_looks_everywhere_is_refused_before_the_image_is_read(fitted, image, tmp_path, monkeypatch):
    def refuse(*args):
        raise ModelError("everywhere")

    monkeypatch.setattr(engines, "reach", refuse)
    monkeypatch.setattr(LargeImage, "read", None)
    with pytest.raises(ModelError, match="everywhere"):
        sweep_image(fitted, image, tmp_path, OPTIONS)


def test_damaged_tiles_are_computed_anew(fitted, image, tmp_path):
    sweep_image(fitted, image, tmp_path, OPTIONS)
    before = results(tmp_path)
    tiles = sorted((tmp_path / "tiles").rglob("*.npz"))
    for tile, keep in zip(tiles, (0, 10, 100, -4), strict=False):
        tile.write_bytes(tile.read_bytes()[:keep])
    said = []
    report = sweep_image(fitted, image, tmp_path, OPTIONS, say=said.append)
    assert results(tmp_path) == before
    (note,) = report.notes
    assert note.endswith("tiles of mode dense whose files were damaged, computed anew: 4")
    assert said == [note]


def test_old_results_go_and_other_files_stay(fitted, image, tmp_path):
    (tmp_path / "windows.txt").write_text("mine")
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "mine.npz").write_text("mine")
    first = sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, mode="both"))
    assert (tmp_path / "windows-exact.csv").exists()
    second = sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, window=(48, 48)))
    assert not (tmp_path / "windows-exact.csv").exists()
    assert {path.name for path in (tmp_path / "tiles").iterdir()} == {second.fingerprint[:16], "mine.npz"}
    assert first.fingerprint != second.fingerprint
    # Another mode is the same sweep: what was computed for it is worth keeping.
    sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, window=(48, 48), mode="exact"))
    assert not (tmp_path / "windows-dense.csv").exists()
    assert list((tmp_path / "tiles").rglob("dense-*.npz"))
    assert (tmp_path / "windows.txt").read_text() == (tmp_path / "tiles" / "mine.npz").read_text() == "mine"


def test_the_report_says_what_computed(model, fitted, image, tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "image.tif", image)
    report = sweep_file(model, tmp_path / "image.tif", tmp_path / "out", OPTIONS, "cpu")
    assert report.model == str(model)
    assert report.weights == json.loads((model / "model.json").read_text())["sha256"]
    assert report.versions["micraframe"] == micraframe.__version__
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["fingerprint"] == report.fingerprint
    assert told["notes"] == []
    from_memory = sweep_image(fitted, tmp_path / "image.tif", tmp_path / "out", OPTIONS)
    assert (from_memory.model, from_memory.fingerprint) == (None, report.fingerprint)
    monkeypatch.setattr("micraframe.sweep.run.__version__", "0.0.0")
    assert sweep_image(fitted, tmp_path / "image.tif", tmp_path / "out", OPTIONS).fingerprint != report.fingerprint


def test_a_window_larger_than_the_image_is_said(fitted, image, tmp_path):
    report = sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, window=(100000, 32)))
    assert (report.window_asked, report.window) == ((100000, 32), (200, 32))
    (note,) = report.notes
    assert "100000 x 32 pixels do not fit in 200 x 270; they are cut to 200 x 32" in note
    # A multiple of the stride that is rounded to is nothing to tell.
    assert not sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, window=(33, 31))).notes


def test_images_that_were_brought_to_their_own_range_are_said(fitted, image, tmp_path):
    def notes(**changes) -> tuple[str, ...]:
        other = copy.copy(fitted)
        other.info = dataclasses.replace(fitted.info, **changes)
        return sweep_image(other, image, tmp_path, OPTIONS).notes

    (note,) = notes(image_size=None)
    assert "each brought to their own range (min-max)" in note
    assert "scope: train" in note
    assert not notes(image_size=None, normalisation=Normalisation("fixed", offset=(0.0,), scale=(1.0,)))
    assert not notes()


def test_correlation_is_by_class():
    generator = np.random.default_rng(0)
    low, high = generator.random((2, 200))
    other = generator.random(200)
    # Together they would correlate, for one class is high wherever the other is low.
    one, two = np.stack([low, 100 + high, np.ones(200)], 1), np.stack([low, 100 + other, np.ones(200)], 1)
    first, second, third = correlations(one, two)
    assert first == pytest.approx(1)
    assert abs(second) < 0.2
    assert third is None
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.99


def test_a_killed_sweep_goes_on(model, image, tmp_path):
    path, output = tmp_path / "image.tif", tmp_path / "killed"
    tifffile.imwrite(path, image)
    slow = (
        "import sys, time, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from micraframe.sweep import Options, engine, sweep_file\n"
        "tile = engine.dense_tile\n"
        "engine.dense_tile = lambda *args: (time.sleep(0.2), tile(*args))[1]\n"
        "sweep_file(*map(Path, sys.argv[1:]), Options(window=(32, 32), tile=64, threshold=0.3), 'cpu')\n"
    )
    child = subprocess.Popen([sys.executable, "-c", slow, str(model), str(path), str(output)])
    try:
        until = time.monotonic() + 60
        while len(list(output.rglob("dense-*.npz"))) < 5:
            assert child.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert not (output / "report.json").exists()
    torch.set_num_threads(1)
    sweep_file(model, path, output, OPTIONS, "cpu")
    sweep_file(model, path, tmp_path / "undisturbed", OPTIONS, "cpu")
    assert results(output) == results(tmp_path / "undisturbed")


def test_command(model, fitted, image, tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image)
    arguments = ["sweep", str(model), str(path), "--output", str(tmp_path / "out"), "--tile", "64", "--mode", "both"]
    done = CliRunner().invoke(app, [*arguments, "--window", "32", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "do not fit" not in done.stderr
    (record,) = json.loads(done.stdout)
    assert record["agreement: proposals_in_common"] == 2
    done = CliRunner().invoke(app, [*arguments, "--window", "32"], catch_exceptions=False)
    assert "proposals.csv" in done.stdout
    done = CliRunner().invoke(app, [*arguments, "--window", "100000"], catch_exceptions=False)
    assert "windows of 100000 x 100000 pixels do not fit in 200 x 270" in done.stderr
    unsized = dataclasses.replace(fitted.info, image_size=None)
    FittedMicraNet(fitted._params, fitted.classifier, unsized, {}).save(tmp_path / "unsized")
    arguments[1] = str(tmp_path / "unsized")
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, ConfigError)
    assert "--window" in str(refused.exception)


def test_the_window_is_that_of_the_training_images(fitted, image, tmp_path):
    options = dataclasses.replace(OPTIONS, window=None)
    assert sweep_image(fitted, image, tmp_path, options).window == (32, 32)


def test_what_cannot_be_swept_is_said(fitted, image, tmp_path):
    with pytest.raises(ModelError, match="2 channels; the model learned from images of 1"):
        sweep_image(fitted, np.stack([image, image]), tmp_path, OPTIONS)
    with pytest.raises(DataError, match="no such file"):
        sweep_image(fitted, tmp_path / "missing.tif", tmp_path, OPTIONS)
    for wrong in ({"mode": "sparse"}, {"threshold": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Options(**wrong)


def test_a_model_of_another_method_is_refused(image, tmp_path):
    from micraframe.modelfile import ModelFile, save_model

    info = DatasetInfo("spots", ("spot",), 1, Normalisation(), "0" * 64)
    save_model(tmp_path / "model", ModelFile(Choice(name="micraframe/random-map"), info, {}, {}))
    tifffile.imwrite(tmp_path / "image.tif", image)
    with pytest.raises(ModelError, match="random-map"):
        sweep_file(tmp_path / "model", tmp_path / "image.tif", tmp_path / "out", OPTIONS)
