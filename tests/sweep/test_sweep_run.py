from __future__ import annotations

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
from table_files import rows_of
from typer.testing import CliRunner

import micraframe
from micraframe import pipeline as pipelines
from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.cli import app
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError, ModelError
from micraframe.images import read_labels
from micraframe.interfaces import Thresholds
from micraframe.micranet import MicraNet, MicraNetModel
from micraframe.pipeline import Pipeline
from micraframe.sweep import SweepOptions, sweep_image
from micraframe.sweep import engine as engines
from micraframe.sweep.image import LargeImage
from micraframe.sweep.run import correlations, proposal_threshold
from micraframe.types import DatasetInfo, FitContext, Normalisation, Progress, Sample

OPTIONS = SweepOptions(window=(32, 32), tile=64, presence_threshold=0.3)
OUTPUTS = ("proposals.csv", "proposals.geojson", "overlay.png", "windows-dense.csv")


@pytest.fixture(scope="module")
def fitted():
    """Return a model that finds bright spots, with weights set by hand."""
    backbone = Choice(name="micraframe/unet-encoder", params={"widths": [2, 2]})
    params = MicraNet.Params(backbone=backbone)
    created = registry.build("backbone", backbone.name, **backbone.params).create(1)
    classifier = Classifier(*created, channels=1, classes=1).eval()
    for name, parameter in classifier.backbone.named_parameters():
        if "conv.weight" in name:
            parameter.data.fill_(1 / (9 * parameter.shape[1]))
        elif "conv.bias" in name:
            parameter.data.zero_()
    classifier.linear.weight.data.fill_(25)
    classifier.linear.bias.data.fill_(-20)
    info = DatasetInfo("spots", ("spot",), 1, Normalisation("min-max"), "0" * 64, image_size=(32, 32))
    method = Choice(name="micraframe/micra-net", params=params.model_dump(mode="json"))
    head = registry.build("head", "micraframe/semantic")
    return Pipeline(method, MicraNetModel(params, classifier, info), "micraframe/semantic", head, info)


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
    rows = rows_of(tmp_path / "proposals.csv")
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
    windows = rows_of(tmp_path / "windows-dense.csv")
    assert len(windows) == report.windows
    assert max(int(row["x"]) + int(row["width"]) for row in windows) == 270
    over = zarr.open_group(tmp_path / "probability.ome.zarr", mode="r")["0"]
    assert over.shape == (1, 25, 34)
    assert over[0, 46 // 8, 56 // 8] > 0.5 > over[0, 10, 20]


def test_masks_of_the_proposals_are_those_of_another_pipeline(fitted, image, tmp_path):
    fixed = Choice(name="instance", params={"mask_threshold": {"name": "fixed", "value": 0.5}, "minimum_size": 4})
    segmenting = fitted.with_head(fixed)
    plain = sweep_image(fitted, image, tmp_path / "plain", OPTIONS)
    report = sweep_image(fitted, image, tmp_path / "masks", OPTIONS, segmenting=segmenting)
    assert plain.objects is None
    assert results(tmp_path / "plain") == results(tmp_path / "masks")
    proposals = rows_of(tmp_path / "masks" / "proposals.csv")
    objects = rows_of(tmp_path / "masks" / "objects.csv")
    assert len(objects) == report.objects == 2
    found = sorted((float(row["y"]), float(row["x"])) for row in objects)
    np.testing.assert_allclose(found, [(45.5, 55.5), (155.5, 205.5)], atol=2)
    normalised = (image / 255).astype(np.float32)[None]
    for one in proposals:
        y, x, height, width = (int(one[name]) for name in ("y", "x", "height", "width"))
        top, left = max(0, y - height // 2), max(0, x - width // 2)
        part = normalised[:, top : y + height + height // 2, left : x + width + width // 2]
        (prediction,) = segmenting.predict([part])
        expected = prediction.masks[0][y - top : y - top + height, x - left : x - left + width]
        written = read_labels(tmp_path / "masks" / "proposal-masks" / f"{int(one['rank']):04}.tif")
        assert expected.any()
        np.testing.assert_array_equal(np.squeeze(written) > 0, expected)
    outlines = json.loads((tmp_path / "masks" / "objects.geojson").read_text())["features"]
    corners = np.concatenate([np.array(one["geometry"]["coordinates"][0]) for one in outlines])
    assert ((corners >= [50, 40]) & (corners <= [212, 162])).all()
    assert np.ptp(corners, axis=0).min() > 100
    sweep_image(fitted, image, tmp_path / "masks", OPTIONS)
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {
        path.name for path in (tmp_path / "plain").iterdir()
    }
    with pytest.raises(ModelError, match="expected a head that makes masks, got .*classification"):
        sweep_image(fitted, image, tmp_path, OPTIONS, segmenting=fitted.with_head("classification"))


def test_an_object_belongs_to_the_proposal_that_contains_its_centroid(fitted, image, tmp_path):
    options = dataclasses.replace(OPTIONS, window=(16, 16), overlap=0.5)
    fixed = Choice(name="semantic", params={"mask_threshold": {"name": "fixed", "value": 0.5}, "minimum_size": 4})
    sweep_image(fitted, image, tmp_path, options, segmenting=fitted.with_head(fixed))
    proposals = {row["rank"]: row for row in rows_of(tmp_path / "proposals.csv")}
    objects = rows_of(tmp_path / "objects.csv")
    assert len({(row["y"], row["x"]) for row in objects}) == len(objects) > 0
    for row in objects:
        one = proposals[row["rank"]]
        for axis, side in (("y", "height"), ("x", "width")):
            assert int(one[axis]) - 0.5 <= float(row[axis]) < int(one[axis]) + int(one[side]) - 0.5


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


def test_finished_tiles_are_not_computed_again(fitted, image, tmp_path, monkeypatch):
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
    sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, presence_threshold=0.6))
    assert len(calls) == len(tiles[::3])
    sweep_image(fitted, 255 - image, tmp_path, OPTIONS)
    sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, overlap=0.5))
    assert len(calls) == len(tiles[::3]) + 2 * len(tiles)


class Labels(Progress):
    """Records the labels of what is reported."""

    def __init__(self):
        self.labels = []

    def advance(self, label, done, total, numbers=None):
        if label not in self.labels:
            self.labels.append(label)


def test_measurements_are_not_repeated(fitted, image, tmp_path, monkeypatch):
    info = dataclasses.replace(fitted.info, normalisation=Normalisation("percentile"))
    measuring = dataclasses.replace(fitted, info=info)
    first, second = Labels(), Labels()
    sweep_image(measuring, image, tmp_path, OPTIONS, first)
    assert first.labels == [
        "measuring the receptive field",
        "measuring intensities, pass 1 of 2",
        "measuring intensities, pass 2 of 2",
        "sweep dense",
    ]
    before = results(tmp_path)
    monkeypatch.setattr(engines, "reach", None)
    sweep_image(measuring, image, tmp_path, OPTIONS, second)
    assert second.labels == ["sweep dense"]
    assert results(tmp_path) == before


def test_a_network_of_unlimited_reach_is_rejected_before_the_image_is_read(fitted, image, tmp_path, monkeypatch):
    def refuse(*args):
        raise ModelError("everywhere")

    monkeypatch.setattr(engines, "reach", refuse)
    monkeypatch.setattr(LargeImage, "read", None)
    with pytest.raises(ModelError, match="everywhere"):
        sweep_image(fitted, image, tmp_path, OPTIONS)


def test_damaged_tiles_are_computed_again(fitted, image, tmp_path):
    sweep_image(fitted, image, tmp_path, OPTIONS)
    before = results(tmp_path)
    tiles = sorted((tmp_path / "tiles").rglob("*.npz"))
    for tile, keep in zip(tiles, (0, 10, 100, -4), strict=False):
        tile.write_bytes(tile.read_bytes()[:keep])
    said = []
    report = sweep_image(fitted, image, tmp_path, OPTIONS, say=said.append)
    assert results(tmp_path) == before
    (note,) = report.notes
    assert note.endswith("recomputed 4 damaged tiles of mode dense")
    assert said == [note]


def test_old_results_are_replaced_and_other_files_kept(fitted, image, tmp_path):
    (tmp_path / "windows.txt").write_text("mine")
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "mine.npz").write_text("mine")
    first = sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, mode="both"))
    assert (tmp_path / "windows-exact.csv").exists()
    second = sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, window=(48, 48)))
    assert not (tmp_path / "windows-exact.csv").exists()
    assert {path.name for path in (tmp_path / "tiles").iterdir()} == {second.fingerprint[:16], "mine.npz"}
    assert first.fingerprint != second.fingerprint
    # Another mode belongs to the same sweep, and keeps its tiles.
    sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, window=(48, 48), mode="exact"))
    assert not (tmp_path / "windows-dense.csv").exists()
    assert list((tmp_path / "tiles").rglob("dense-*.npz"))
    assert (tmp_path / "windows.txt").read_text() == (tmp_path / "tiles" / "mine.npz").read_text() == "mine"


def test_the_report_identifies_model_and_image(model, fitted, image, tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "image.tif", image)
    report = sweep_image(fitted, tmp_path / "image.tif", tmp_path / "out", OPTIONS, model=model)
    assert report.model == str(model)
    assert report.weights == json.loads((model / "model.json").read_text())["sha256"]
    assert report.versions["micraframe"] == micraframe.__version__
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["fingerprint"] == report.fingerprint
    assert content["notes"] == []
    from_memory = sweep_image(fitted, tmp_path / "image.tif", tmp_path / "out", OPTIONS)
    assert (from_memory.model, from_memory.fingerprint) == (None, report.fingerprint)
    monkeypatch.setattr("micraframe.sweep.run.__version__", "0.0.0")
    assert sweep_image(fitted, tmp_path / "image.tif", tmp_path / "out", OPTIONS).fingerprint != report.fingerprint


def test_a_window_larger_than_the_image_is_noted(fitted, image, tmp_path):
    report = sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, window=(100000, 32)))
    assert (report.window_asked, report.window) == ((100000, 32), (200, 32))
    (note,) = report.notes
    assert "100000 x 32 pixels do not fit in 200 x 270; they are cut to 200 x 32" in note
    # Rounding to a multiple of the stride is not worth a note.
    assert not sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, window=(33, 31))).notes


def test_differences_to_the_training_images_are_noted(fitted, image, tmp_path):
    def notes(**changes) -> tuple[str, ...]:
        other = dataclasses.replace(fitted, info=dataclasses.replace(fitted.info, **changes))
        return sweep_image(other, image, tmp_path, OPTIONS).notes

    (note,) = notes(image_size=None)
    assert "normalised by its own range (min-max)" in note
    assert "scope: train" in note
    # With these wrong intensities, the class is found everywhere.
    (note,) = notes(image_size=None, normalisation=Normalisation("fixed", offset=(0.0,), scale=(1.0,)))
    assert note == "array: the proposals cover 91 % of the image; raise --presence-threshold"
    assert not notes()
    (note,) = notes(scale=0.5)
    assert "resized by a factor of 0.5; sweep does not resize" in note


def test_correlation_is_by_class():
    generator = np.random.default_rng(0)
    low, high = generator.random((2, 200))
    other = generator.random(200)
    # All values together correlate, since one class is always higher than the other.
    one, two = np.stack([low, 100 + high, np.ones(200)], 1), np.stack([low, 100 + other, np.ones(200)], 1)
    first, second, third = correlations(one, two)
    assert first == pytest.approx(1)
    assert abs(second) < 0.2
    assert third is None
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.99


def test_a_killed_sweep_resumes(model, image, tmp_path):
    path, output = tmp_path / "image.tif", tmp_path / "killed"
    tifffile.imwrite(path, image)
    slow = (
        "import sys, time, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from micraframe.sweep import SweepOptions, engine, sweep_image\n"
        "from micraframe.pipeline import load\n"
        "tile = engine.dense_tile\n"
        "engine.dense_tile = lambda *args: (time.sleep(0.2), tile(*args))[1]\n"
        "options = SweepOptions(window=(32, 32), tile=64, presence_threshold=0.3)\n"
        "sweep_image(load(sys.argv[1], 'cpu'), *map(Path, sys.argv[2:]), options)\n"
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
    sweep_image(pipelines.load(model, "cpu"), path, output, OPTIONS)
    sweep_image(pipelines.load(model, "cpu"), path, tmp_path / "undisturbed", OPTIONS)
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
    # Another threshold belongs to the same sweep; another window does not.
    again = [*arguments, "--window", "32", "--presence-threshold", "0.4"]
    assert CliRunner().invoke(app, again, catch_exceptions=False).exit_code == 0
    before = results(tmp_path / "out")
    refused = CliRunner().invoke(app, [*arguments, "--window", "48"])
    assert isinstance(refused.exception, ConfigError)
    assert "expected a new folder, or one of the same sweep, got the results of another" in str(refused.exception)
    assert results(tmp_path / "out") == before
    arguments[4] = str(tmp_path / "wide")
    done = CliRunner().invoke(app, [*arguments, "--window", "100000"], catch_exceptions=False)
    assert "windows of 100000 x 100000 pixels do not fit in 200 x 270" in done.stderr
    assert "do not fit" not in done.stdout
    unsized = dataclasses.replace(fitted.info, image_size=None)
    dataclasses.replace(fitted, info=unsized).save(tmp_path / "unsized")
    arguments[1] = str(tmp_path / "unsized")
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, ConfigError)
    assert "--window" in str(refused.exception)


def test_the_window_is_that_of_the_training_images(fitted, image, tmp_path):
    options = dataclasses.replace(OPTIONS, window=None)
    assert sweep_image(fitted, image, tmp_path, options).window == (32, 32)
    # A dataset of crops in files names no size; training records what they share.
    info = dataclasses.replace(fitted.info, image_size=None, training_size=(24, 24))
    assert sweep_image(dataclasses.replace(fitted, info=info), image, tmp_path / "24", options).window == (24, 24)
    info = dataclasses.replace(info, training_size=None)
    with pytest.raises(ConfigError, match="or a model that does not record their size; give the side of a window"):
        sweep_image(dataclasses.replace(fitted, info=info), image, tmp_path / "none", options)


def test_the_models_presence_threshold_is_the_default(fitted, image, tmp_path):
    options = dataclasses.replace(OPTIONS, presence_threshold=None)
    assert sweep_image(fitted, image, tmp_path, options).presence_threshold == (0.5,)
    tuned = fitted.with_thresholds(Thresholds(presence=(0.99,)), "validation")
    tuned.save(tmp_path / "tuned")
    report = sweep_image(pipelines.load(tmp_path / "tuned", "cpu"), image, tmp_path, options)
    assert report.presence_threshold == (0.99,)
    same = sweep_image(fitted, image, tmp_path, dataclasses.replace(OPTIONS, presence_threshold=0.99))
    assert (report.proposals, report.area) == (same.proposals, same.area)
    assert sweep_image(tuned, image, tmp_path, OPTIONS).presence_threshold == 0.3


def test_what_is_as_likely_everywhere_is_not_proposed(fitted):
    # Of the two values, Otsu's threshold is the lower.
    probability = np.full((1, 6, 8), 0.6, np.float32)
    probability[0, 2, 3] = 0.9
    (threshold,) = proposal_threshold(fitted, dataclasses.replace(OPTIONS, presence_threshold=None), probability)
    assert (probability[0] >= np.float32(threshold)).sum() == 1


def test_the_command_takes_the_thresholds_of_a_study(model, image, tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", image)
    content = {"tuned": {"validation": {"presence": [0.9], "mask": 0.25}}}
    (tmp_path / "thresholds.json").write_text(json.dumps(content))
    arguments = ["sweep", str(model), str(tmp_path / "image.tif"), "--output", str(tmp_path / "out"), "--ngff", "0.4"]
    tuned = [*arguments, "--thresholds", str(tmp_path / "thresholds.json"), "--json"]
    (record,) = json.loads(CliRunner().invoke(app, tuned, catch_exceptions=False).stdout)
    assert record["presence_threshold"] == [0.9]
    assert zarr.open_group(tmp_path / "out" / "probability.ome.zarr", mode="r").metadata.zarr_format == 2
    done = CliRunner().invoke(app, [*tuned, "--presence-threshold", "0.4"], catch_exceptions=False)
    assert json.loads(done.stdout)[0]["presence_threshold"] == 0.4


def test_the_command_segments_proposals_with_another_head_and_combiner(model, image, tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", image)
    arguments = ["sweep", str(model), str(tmp_path / "image.tif"), "--output", str(tmp_path / "out")]
    others = ["--head", "instance:mask_threshold={name: fixed, value: 0.5}", "--combiner", "last-layer"]
    refused = CliRunner().invoke(app, [*arguments, *others])
    assert isinstance(refused.exception, ConfigError)
    assert "expected --masks too" in str(refused.exception)
    done = CliRunner().invoke(app, [*arguments, *others, "--masks"], catch_exceptions=False)
    found = len(rows_of(tmp_path / "out" / "objects.csv"))
    assert found > 0
    assert f"Objects in them: {found}" in done.stdout
    head = Choice(name="instance", params={"mask_threshold": {"name": "fixed", "value": 0.5}})
    segmenting = micraframe.load(model, "cpu", head=head, combiner="last-layer")
    report = sweep_image(
        micraframe.load(model, "cpu"), tmp_path / "image.tif", tmp_path / "same", segmenting=segmenting
    )
    assert report.objects == found
    assert (tmp_path / "same" / "objects.csv").read_bytes() == (tmp_path / "out" / "objects.csv").read_bytes()


def test_impossible_sweeps_are_rejected(fitted, image, tmp_path):
    with pytest.raises(DataError, match="expected 1 channel, as in the training images, got 2"):
        sweep_image(fitted, np.stack([image, image]), tmp_path, OPTIONS)
    with pytest.raises(DataError, match="no such file"):
        sweep_image(fitted, tmp_path / "missing.tif", tmp_path, OPTIONS)
    for wrong in ({"mode": "sparse"}, {"presence_threshold": 0.0}, {"ngff": "0.3"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            SweepOptions(**wrong)


def test_a_model_of_another_method_is_rejected(image, tmp_path):
    info = DatasetInfo("spots", ("spot",), 1, Normalisation(), "0" * 64)
    sample = Sample("s", image[None].astype(np.float32), labels=np.ones(1, bool))
    control = pipelines.fit("micraframe/random-map", [sample], [sample], info, FitContext())
    tifffile.imwrite(tmp_path / "image.tif", image)
    with pytest.raises(
        ModelError, match="expected a model of micraframe/micra-net, got one of micraframe/random-map; predict"
    ):
        sweep_image(control, tmp_path / "image.tif", tmp_path / "out", OPTIONS)
