"""`micraframe remodel` and `micraframe tune`: other parameters and thresholds in a new model with the same weights."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from shape_files import write_shapes

from micraframe import pipeline, registry, tuning
from micraframe.batch.labelled import labelled_images
from micraframe.config import Choice, Train, load
from micraframe.errors import ConfigError, DataError
from micraframe.images import read_labels, write_png
from micraframe.interfaces import Thresholds
from micraframe.metrics.masks_and_labels import masks_of
from micraframe.modelfile import DESCRIPTION, WEIGHTS, load_model
from micraframe.objects import objects_of
from micraframe.pipeline import Pipeline
from micraframe.types import Annotation, Sample

CONFIG = """
dataset: {name: modified-digits, params: {size: 64, counts: [1], train: 8, valid: 4, test: 1}}
method:
  name: micra-net
  params: {backbone: {name: unet-encoder, params: {widths: [2, 3]}}, training: {epochs: 1, batch_size: 4}}
head: {name: semantic, params: {presence_threshold: 0.3}}
device: cpu
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    (folder / "train.yaml").write_text(CONFIG)
    run("train", folder / "train.yaml", "--output", folder / "run")
    return folder


@pytest.fixture
def model(folder: Path) -> Path:
    return folder / "run" / "model"


def head_params(folder: Path) -> dict[str, Any]:
    return load_model(folder).head.params


def test_another_head_and_combiner_share_the_weights(model: Path, tmp_path: Path) -> None:
    before = (model / DESCRIPTION).read_bytes()
    new = tmp_path / "new"
    run("remodel", model, "--head", "instance", "--combiner", "pca:weight=coarse", "--output", new)
    assert (new / WEIGHTS).samefile(model / WEIGHTS)
    assert (model / DESCRIPTION).read_bytes() == before
    saved, old = load_model(new), load_model(model)
    assert saved.head.name == "micraframe/instance"
    assert saved.method.params["combiner"]["params"]["weight"] == "coarse"
    assert saved.method.params["backbone"] == old.method.params["backbone"]
    assert (saved.info, saved.provenance) == (old.info, old.provenance)
    shutil.rmtree(new)
    assert load_model(model).head == old.head


def test_without_hard_links_the_weights_are_copied(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*paths: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", fails)
    run("remodel", model, "--set", "presence_threshold=0.9", "--output", tmp_path / "new")
    assert not (tmp_path / "new" / WEIGHTS).samefile(model / WEIGHTS)
    assert head_params(tmp_path / "new")["presence_threshold"] == 0.9


def test_single_parameters_change_and_the_others_stay(model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run("remodel", model, "--combiner", "pca:weight=coarse", "--output", first)
    words = ["--set", "combiner.params.sign=largest-score", "--set", "mask_threshold={name: fixed, value: 0.4}"]
    run("remodel", first, *words, "--output", second)
    changed = load_model(second)
    assert changed.method.params["combiner"]["params"]["weight"] == "coarse"
    assert changed.head.params["mask_threshold"]["value"] == 0.4
    assert changed.head.params["presence_threshold"] == 0.3


def test_tuned_thresholds_travel_unless_they_are_set(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = pipeline.load(model, "cpu").with_thresholds(Thresholds((0.6,) * 10, 0.7), "validation")
    tuned.save(tmp_path / "tuned", like=model)
    run("remodel", tmp_path / "tuned", "--set", "presence_threshold=0.2", "--output", tmp_path / "new")
    new = pipeline.load(tmp_path / "new", "cpu")
    assert new.origins == {"mask": "validation"}
    assert (new.head.params.presence_threshold, head_params(tmp_path / "new")["mask_threshold"]["value"]) == (0.2, 0.7)
    assert "warning" not in capsys.readouterr().err
    run("remodel", tmp_path / "tuned", "--combiner", "guided", "--output", tmp_path / "guided")
    assert pipeline.load(tmp_path / "guided", "cpu").origins == tuned.origins
    # What is set stays when thresholds are tuned again.
    run("remodel", tmp_path / "tuned", "--set", "smoothing=3", "--output", tmp_path / "smooth")
    smooth = pipeline.load(tmp_path / "smooth", "cpu")
    assert smooth.origins == tuned.origins
    for each in (smooth, smooth.without_tuning()):
        assert each.head.params.model_dump()["smoothing"] == 3
    assert smooth.without_tuning().head.params.presence_threshold == 0.3
    assert "mask threshold (validation) was tuned for the maps of the old model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--set", "dropout=0.1"], "only combiner, extractor and the head can"),
        (["--set", "presence_threshold=2"], "presence_threshold"),
        (["--set", "presence_threshold=[0.1, 0.2]"], "one number or 10, one per class"),
        (["--set", "presence_threshold"], "--set presence_threshold: expected KEY=VALUE, such as distance=8"),
        (
            ["--set", "presence_treshold=0.3"],
            "has such a parameter; did you mean 'presence_thresh",
        ),
        (["--head", "instance", "--set", "dist=3"], "did you mean 'distance'"),
        ([], "expected --head, --combiner, --extractor or --set, got none of them"),
        (["--combiner", "select:layers=[L77]"], "L77"),
        (["--combiner", "guided", "--set", "combiner=pca"], "leave one out"),
    ],
)
def test_what_cannot_be_changed_or_cannot_work_is_refused(
    model: Path, tmp_path: Path, words: list[str], reason: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=reason):
        run("remodel", model, *words, "--output", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["remodel", "tune"])
def test_a_folder_with_files_is_refused(folder: Path, model: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "notes.txt").touch()
    words = [folder / "train.yaml"] if command == "tune" else []
    for output in (tmp_path, model):
        with pytest.raises(ConfigError, match="expected a new or empty folder"):
            run(command, model, *words, "--output", output)


def expected(model: Path, origin: str) -> Thresholds:
    samples: tuple[Sample, ...] = tuple(
        registry.build("dataset", "modified-digits", size=64, counts=[1], train=8, valid=4, test=1).samples("valid")
    )
    loaded: Pipeline = pipeline.load(model, "cpu")
    if origin == "validation":
        return tuning.tune(loaded, samples, list(loaded.score(sample.image for sample in samples)))
    labelled = [sample.keep({Annotation.LABELS}) for sample in samples]
    found = tuning.tune_by_labels(loaded, labelled)
    return {str(name): each for name, each in found.items()}[origin]


@pytest.mark.parametrize("origin", ["validation", "negatives", "expected-share"])
def test_thresholds_are_tuned_on_validation_images(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], origin: str
) -> None:
    run("tune", model, folder / "train.yaml", "--origin", origin, "--output", tmp_path / "new", "--device", "cpu")
    printed = capsys.readouterr().out
    thresholds = expected(model, origin)
    new = pipeline.load(tmp_path / "new", "cpu")
    old = pipeline.load(model, "cpu")
    assert (tmp_path / "new" / WEIGHTS).samefile(model / WEIGHTS)
    assert new.head.params == old.head.with_thresholds(thresholds).params
    assert set(new.origins.values()) == {origin}
    assert new.without_tuning().head.params == old.head.params
    assert f"masks of {4 if origin == 'validation' else 'none'} of them were read" in printed
    first = next(line for line in printed.splitlines() if line.startswith("presence of 0")).split()
    presence = f"{np.ravel(new.head.params.presence_threshold)[0]:.4g}"
    assert first[3:] == ["0.3", presence, new.origins.get("presence", "fixed")]


def test_tuning_again_forgets_the_earlier_thresholds(folder: Path, model: Path, tmp_path: Path) -> None:
    tuned = pipeline.load(model, "cpu").with_thresholds(Thresholds((0.99,) * 10, 0.99), "negatives")
    tuned.save(tmp_path / "tuned", like=model)
    run("tune", tmp_path / "tuned", folder / "train.yaml", "--output", tmp_path / "again", "--device", "cpu")
    run("tune", model, folder / "train.yaml", "--output", tmp_path / "once", "--device", "cpu")
    again, once = json.loads((tmp_path / "again" / DESCRIPTION).read_text()), load_model(tmp_path / "once")
    assert again == json.loads((tmp_path / "once" / DESCRIPTION).read_text())
    assert dict(once.origins) == again["origins"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images of discs and squares, their masks, and a model that was trained on half the size."""
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, 8, (40, 44))
    masks = f"{{disc: {folder}/masks/disc, square: {folder}/masks/square}}"
    params = f"{{images: {folder}/images, labels: {folder}/labels.csv, masks: {masks}, scale: 0.5, test: 0}}"
    text = CONFIG.replace("modified-digits, params: {size: 64, counts: [1], train: 8, valid: 4, test: 1}", "folder")
    (folder / "train.yaml").write_text(text.replace("{name: folder}", f"{{name: folder, params: {params}}}"))
    run("train", folder / "train.yaml", "--output", folder / "run")
    return folder


@pytest.fixture(scope="module")
def sized(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of the same images, whose head finds its smoothing and minimum size in training."""
    folder = tmp_path_factory.mktemp("sized")
    text = (shapes / "train.yaml").read_text()
    auto = "{name: instance, params: {smoothing: auto, minimum_size: auto, presence_threshold: 0.3}}"
    (folder / "train.yaml").write_text(text.replace("{name: semantic, params: {presence_threshold: 0.3}}", auto))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run("train", folder / "train.yaml", "--output", folder / "run")
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder / "run" / "model"


def test_training_says_that_there_are_no_test_images(sized: Path) -> None:
    printed = (sized.parents[1] / "printed.txt").read_text()
    assert "Test: the dataset has no test samples" in printed
    assert "micraframe evaluate" in printed


def test_training_finds_what_is_auto_and_other_heads_need_it(sized: Path) -> None:
    found = head_params(sized)
    assert all(isinstance(found[name], float) for name in ("smoothing", "minimum_size"))
    assert found["smoothing"] > 0
    printed = (sized.parents[1] / "printed.txt").read_text()
    assert f"Head: smoothing {found['smoothing']:g}, minimum_size {found['minimum_size']:g} (from auto)" in printed
    again = pipeline.load(sized, "cpu", head=Choice(name="instance", params={"minimum_size": "auto", "smoothing": 9}))
    assert (again.head.params.minimum_size, again.head.params.smoothing) == (found["minimum_size"], 9)
    with pytest.raises(ConfigError, match="expected numbers for smoothing and minimum_size of head semantic, got auto"):
        pipeline.load(sized, "cpu", head=Choice(name="semantic", params={"smoothing": "auto"}))


def test_tuning_sets_sizes_from_the_masks(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shapes / "run" / "model"
    words = [model, shapes / "images", "--masks", shapes / "masks", "--sizes"]
    run("tune", *words, "--output", tmp_path / "new", "--device", "cpu")
    areas = np.concatenate(
        [
            np.bincount(labels.ravel())[1:]
            for sample in labelled_images(load_model(model).info, shapes / "images", shapes / "masks")
            for labels in objects_of(sample)
        ]
    )
    found = head_params(tmp_path / "new")
    assert found["minimum_size"] == pytest.approx(np.median(areas), abs=0.1)  # a quarter, at a scale of 0.5
    assert found["smoothing"] == pytest.approx(0.1 * np.sqrt(4 * np.median(areas) / np.pi), abs=0.01)
    assert f"minimum_size: {found['minimum_size']:g}" in capsys.readouterr().out
    assert head_params(model)["minimum_size"] == 0
    with pytest.raises(ConfigError, match="--sizes: expected images with objects to measure, got --negatives"):
        run("tune", model, shapes / "images", "--negatives", "--sizes", "--output", tmp_path / "other")
    run("remodel", model, "--head", "classification", "--output", tmp_path / "classes")
    words[0] = tmp_path / "classes"
    with pytest.raises(ConfigError, match="--sizes: expected a head that smooths maps"):
        run("tune", *words, "--output", tmp_path / "other", "--device", "cpu")


def test_masks_with_several_values_number_objects(shapes: Path, tmp_path: Path) -> None:
    for class_ in ("disc", "square"):
        for path in (shapes / "masks" / class_).iterdir():
            mask = read_labels(path) > 0
            numbered = mask.astype(np.uint8)
            numbered[:20] *= 7
            write_png(tmp_path / class_ / path.name, numbered)
    info = load_model(shapes / "run" / "model").info
    binary = labelled_images(info, shapes / "images", shapes / "masks")
    for one, other in zip(binary, labelled_images(info, shapes / "images", tmp_path), strict=True):
        np.testing.assert_array_equal(one.masks, other.masks)
        assert one.instances is None
        assert other.instances is None or set(np.unique(other.instances)) == {0, 1, 7}


def test_a_folder_of_images_with_masks(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shapes / "run" / "model"
    words = [model, shapes / "images", "--masks", shapes / "masks"]
    run("tune", *words, "--output", tmp_path / "new")
    assert "Images: 8; masks of 8 of them were read" in capsys.readouterr().out
    loaded = pipeline.load(model, "cpu")
    info = load_model(model).info
    assert info.scale == 0.5
    dataset = registry.build("dataset", "folder", **load(shapes / "train.yaml", Train).dataset.params)
    samples = labelled_images(info, shapes / "images", shapes / "masks")
    theirs = {Path(sample.id).stem: sample for split in ("train", "valid") for sample in dataset.samples(split)}
    assert len(samples) == len(theirs) == 8
    for sample in samples:
        known = theirs[Path(sample.id).stem]
        np.testing.assert_array_equal(sample.image, known.image)
        np.testing.assert_array_equal(sample.masks, masks_of(known))
    scores = list(loaded.score(sample.image for sample in samples))
    tuned = loaded.head.with_thresholds(tuning.tune(loaded, samples, scores))
    assert pipeline.load(tmp_path / "new", "cpu").head.params == tuned.params
    write_png(tmp_path / "masks" / "disc" / "sample-0.png", np.zeros((20, 22), bool))
    with pytest.raises(DataError, match=r"expected masks of its size \(40, 44\), got \(20, 22\)"):
        run("tune", model, shapes / "images", "--masks", tmp_path / "masks", "--output", tmp_path / "other")


def test_images_without_the_classes_set_the_mask_threshold_alone(shapes: Path, tmp_path: Path) -> None:
    model = shapes / "run" / "model"
    run("tune", model, shapes / "images", "--negatives", "--output", tmp_path / "new", "--device", "cpu")
    old, new = pipeline.load(model, "cpu"), pipeline.load(tmp_path / "new", "cpu")
    assert new.origins == {"mask": "negatives"}
    assert new.head.params.presence_threshold == old.head.params.presence_threshold
    images = [sample.image for sample in labelled_images(old.info, shapes / "images", None)]
    maps = [scores.maps for scores in old.score(iter(images), lambda presence: range(2))]
    level = head_params(tmp_path / "new")["mask_threshold"]["value"]
    assert level == pytest.approx(float(np.quantile(np.stack(maps), 0.99)))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["images"], "expected --masks or --negatives with a folder of images"),
        (["images", "--masks", "masks", "--negatives"], "got both"),
        (["images", "--negatives", "--origin", "expected-share"], "expected --origin negatives, got expected-share"),
        (["digits.yaml"], "expected a dataset with the model's classes disc, square, got 0, 1"),
    ],
)
def test_data_that_do_not_fit(shapes: Path, tmp_path: Path, words: list[str], reason: str) -> None:
    (shapes / "digits.yaml").write_text(CONFIG)
    found = [shapes / word if (shapes / word).exists() else word for word in words]
    with pytest.raises((ConfigError, DataError), match=reason):
        run("tune", shapes / "run" / "model", *found, "--output", tmp_path / "new")


def test_a_head_without_masks_is_tuned_for_presence_alone(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("remodel", model, "--head", "classification", "--output", tmp_path / "classes")
    run("tune", tmp_path / "classes", folder / "train.yaml", "--output", tmp_path / "new")
    assert pipeline.load(tmp_path / "new", "cpu").origins == {"presence": "validation"}
    assert "\nmask" not in capsys.readouterr().out
    with pytest.raises(DataError, match="expected a head that makes masks"):
        run("tune", tmp_path / "classes", folder / "train.yaml", "--origin", "negatives", "--output", tmp_path / "x")
