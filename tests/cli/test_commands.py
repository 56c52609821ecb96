"""Whole runs of the command line, in one process."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from ruamel.yaml import YAML
from shape_files import write_shapes
from table_files import rows_of

import micraframe
from micraframe import catalog
from micraframe.cli.output import print_json, print_table
from micraframe.config import Choice, resolve_choice
from micraframe.images import read_image, read_labels, write_png, write_tiff
from micraframe.modelfile import load_model
from micraframe.plugin import KINDS, Component
from micraframe.runtime.locks import exclusive
from micraframe.testing import full_samples

TRAIN = """
dataset:
  name: folder
  params:
    images: {folder}/images
    labels: {folder}/labels.csv
    valid: 0.25
    test: 0
    normalisation: {{kind: min-max}}
method:
  name: micra-net
  params:
    backbone: {{name: unet-encoder, params: {{widths: [4, 8]}}}}
    dropout: 0
    training: {{epochs: 2, batch_size: 4, learning_rate: 0.01}}
head: {{name: semantic, params: {{presence_threshold: 0.0}}}}
seed: 3
device: cpu
"""


FAKE = [Component("metric", "nothing", "fake_metrics:Nothing", "Does nothing")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of twelve images of discs and squares, their labels, and their masks in a folder per class."""
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, 12, (40, 40))
    (folder / "train.yaml").write_text(TRAIN.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    run("train", folder / "train.yaml", "--output", folder / "run")
    return folder / "run" / "model"


def test_list_prints_records(command):
    ran = command("list", "--json")
    records = json.loads(ran.out)
    assert ran.code == 0
    assert len(records) == len(catalog().entries())
    assert all(set(record) == {"kind", "name", "plugin", "version", "summary"} for record in records)
    heads = json.loads(command("list", "head", "--json").out)
    assert {record["kind"] for record in heads} == {"head"}


def test_list_is_grouped_by_kind_and_fits_80_columns(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = command("list").out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == list(KINDS)
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  unet-encoder ") for line in lines)
    assert re.findall(r"\[micraframe.*?\]", command("list", "backbone").out) == ["[micraframe-example]"]
    assert "[micraframe" not in command("list", "extractor").out


def test_list_names_the_plugin_of_a_component_that_is_not_built_in(command, install):
    install("fake", FAKE)
    assert "Does nothing [fake]" in command("list", "metric").out


def test_version(command):
    ran = command("--version")
    assert (ran.code, ran.out) == (0, f"micraframe {micraframe.__version__}\n")


def test_a_wrong_kind_is_wrong_usage(command):
    ran = command("list", "backbne")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "micraframe: there is no kind of component 'backbne'; did you mean 'backbone'?\n"


def test_show_prints_parameters_with_their_descriptions(command):
    ran = command("show", "combiner", "pca")
    assert "micraframe/pca" in ran.out
    assert "deepest-weighted" in ran.out
    records = {each["parameter"]: each for each in json.loads(command("show", "method", "micra-net", "--json").out)}
    assert records["combiner"]["default"] == {"name": "micraframe/pca", "params": {}}
    assert all(record["description"] for record in records.values())


def test_show_prints_the_bounds_of_numbers_in_lists_and_alternatives(command):
    types = {
        each["parameter"]: each["type"]
        for kind, name in (
            ("backbone", "unet"),
            ("metric", "objects"),
            ("head", "semantic"),
            ("method", "self-training"),
        )
        for each in json.loads(command("show", kind, name, "--json").out)
    }
    assert types["widths"] == "list of int (> 0)"
    assert types["iou"] == "list of float (> 0, <= 1)"
    assert types["minimum_size"] == "float (>= 0) | auto"
    assert types["agreement"] == "float (>= 0, <= 1)"


def test_show_expands_nested_parameters_and_wraps_words(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    records = {each["parameter"]: each for each in json.loads(command("show", "head", "instance", "--json").out)}
    assert records["mask_threshold.name"]["type"] == "otsu | triangle | percentile | fixed | block-otsu"
    # The head's own default, not that of the nested model.
    assert records["mask_threshold.nonzero"]["default"] is True
    out = command("show", "head", "instance").out
    assert "\n    nonzero: bool = true\n" in out
    assert max(map(len, out.splitlines())) <= 60
    assert "combiner: combiner = {name: micraframe/pca, params: {weight: coarse}}" in " ".join(
        command("show", "combiner", "guided").out.split()
    )
    assert "Cite: Bilodeau" in command("show", "method", "micra-net").out
    required = {each["parameter"]: each for each in json.loads(command("show", "dataset", "folder", "--json").out)}
    assert required["images"]["required"]


@pytest.mark.parametrize("entry", catalog().entries(), ids=lambda entry: f"{entry.component.kind} {entry.qualified}")
def test_show_ends_with_an_example_that_a_configuration_can_have_and_fits_80_columns(entry, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    kind = entry.component.kind
    ran = command("show", kind, entry.qualified)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    _, found, example = ran.out.partition("Example for a configuration; leave out what you do not change:\n")
    assert bool(found) != ("It has no parameters." in ran.out)
    if found and "FILL-IN" not in example:
        (choice,) = YAML(typ="safe").load(example).values()
        resolve_choice(kind, Choice(name=entry.qualified, params=choice["params"]))


def test_show_hides_no_default_and_names_what_can_be_chosen(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = command("show", "method", "micra-net").out
    assert "objectives: list of mapping = []" in out
    assert "augmentations: list of mapping = [{kind: flip, probability: 0.5, axis: left-right}" in out
    assert "{kind: log-sum-exp}: A smooth maximum" in out
    assert "dropout: float (>= 0, < 1) = 0.5" in out
    assert "One of: timm, two-convolutions, unet, unet-encoder; see micraframe show backbone NAME." in out
    assert "otsu alone is short for {name: otsu}." in command("show", "head", "semantic").out


def test_columns_without_a_value_are_left_out(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    records = [{"name": "a", "empty": "", "undefined": math.nan}, {"name": "b", "empty": "", "undefined": math.nan}]
    print_table(records)
    assert capsys.readouterr().out == "name\na\nb\n"
    print_table([{"name": "a", "number": 0.5}, {"name": "b", "number": math.nan}])
    assert capsys.readouterr().out == "name  number\na        0.5\nb          -\n"
    print_json(records)
    assert set(json.loads(capsys.readouterr().out)[0]) == {"name", "empty", "undefined"}


def test_a_table_too_wide_for_the_screen_is_printed_as_lists(capsys, monkeypatch):
    records = [{"name": "a b", "number": 0.5, "undefined": math.nan}]
    monkeypatch.setenv("COLUMNS", "80")
    print_table(records)
    assert capsys.readouterr().out.split() == ["name", "number", "a", "b", "0.5"]
    monkeypatch.setenv("COLUMNS", "11")
    print_table([{"name": "a b c d e f"} | records[0] | {"name": "a b c d"}])
    assert capsys.readouterr().out == "name    a b\n        c d\nnumber  0.5\n"


def test_a_table_in_a_pipe_has_a_line_for_each_record(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    records = [{"name": "long " * 20, "object_f1@0.5": "0.009 (0.001 to 0.020)"} for _ in range(2)]
    print_table(records)
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split("  ")[-1].strip() == "object f1@0.5"
    assert len(lines) == 2
    assert all(line.endswith("0.009 (0.001 to 0.020)") for line in lines)


def test_plugins_shows_the_traceback_of_what_failed(command, install):
    install("bad", "raise ValueError('broken at import')")
    ran = command("plugins")
    assert (ran.code, ran.err) == (0, "")
    assert "ValueError: broken at import" in ran.out
    assert "Traceback" in ran.out
    assert json.loads(command("plugins", "--json").out)[-1]["reason"] == "ValueError: broken at import"


def test_a_plugin_without_a_failure_in_its_code_has_a_reason_but_no_traceback(command, install):
    install("old", "MICRAFRAME_API = 0")
    out = command("plugins").out
    assert "plugin 'old' of old cannot be used: PluginError: old: expected MICRAFRAME_API = 2, got 0\n" in out
    assert "Traceback" not in out


def test_a_rejected_plugin_is_one_warning_on_the_command_line(install, command, monkeypatch):
    install("bad", "raise ValueError('broken at import')")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        # Pytest's own hook would collect the warning instead of printing it.
        monkeypatch.setattr(warnings, "showwarning", lambda *args: sys.stderr.write(warnings.formatwarning(*args[:4])))
        ran = command("list", "combiner")
    assert ran.code == 0
    assert ran.err == "warning: plugin 'bad' of bad 1.0 was rejected: ValueError: broken at import\n"


def test_check_prints_every_default(command, folder):
    ran = command("check", folder / "train.yaml")
    assert ran.code == 0
    assert "name: micraframe/pca" in ran.out
    assert "early_stopping: 30" in ran.out


def test_check_says_where_a_file_is_wrong(command, folder):
    path = folder / "wrong.yaml"
    path.write_text("dataset: folder\nmethd: micra-net\n")
    ran = command("check", path)
    assert ran.code == 2
    assert f"{path}:2: methd: there is no key 'methd' here; did you mean 'method'?" in ran.err
    path.write_text("dataset: folder\nmethods: micra-net\n")
    assert command("check", path).err == (
        f"micraframe: {path}:2: methods: there is no key 'methods' here; did you mean 'method'?\n"
    )


def test_train_writes_a_model_a_log_and_its_configuration(model):
    run = model.parent
    assert {path.name for path in model.iterdir()} == {"model.json", "weights.safetensors"}
    assert len(rows_of(run / "training" / "log.csv")) == 2
    assert (run / "config.yaml").exists()
    assert load_model(model).info.training_size == (40, 40)
    assert json.loads((model / "model.json").read_text())["method"]["name"].endswith("micra-net")


def test_train_writes_which_image_is_in_which_split_and_measures_the_test_images(command, folder, tmp_path):
    config = (folder / "train.yaml").read_text().replace("test: 0", "test: 0.25")
    config = config.replace(
        "labels:", f"masks: {{disc: {folder}/masks/disc, square: {folder}/masks/square}}\n    labels:"
    )
    (tmp_path / "train.yaml").write_text(config)
    ran = command("train", tmp_path / "train.yaml", "--output", tmp_path / "run")
    assert ran.code == 0
    rows = {row["image"]: row for row in rows_of(tmp_path / "run" / "splits.csv")}
    truth = {row["image"].removesuffix(".png"): row for row in rows_of(folder / "labels.csv")}
    assert {name: (row["disc"], row["square"]) for name, row in rows.items()} == {
        name: (row["disc"], row["square"]) for name, row in truth.items()
    }
    assert [row["split"] for row in rows.values()].count("test") == 3
    train = [row for row in rows.values() if row["split"] == "train"]
    assert f"{sum(row['disc'] == '1' for row in train)} of {len(train)}" in ran.out
    assert re.search(r"^training (\d+)/\1  loss \S+  valid \S+  accuracy \S+$", ran.err, re.MULTILINE)
    (tmp_path / "images").mkdir()
    for name, row in rows.items():
        if row["split"] == "test":
            shutil.copy(folder / "images" / f"{name}.png", tmp_path / "images")
    assert command("predict", tmp_path / "run/model", tmp_path / "images", "--output", tmp_path / "out").code == 0
    evaluated = {}
    for truth in (folder / "masks", folder / "labels.csv"):
        for row in json.loads(command("evaluate", tmp_path / "out", truth, "--json").out):
            if row["value"] is not None:
                evaluated[row["metric"], row["class"]] = row["value"]
    numbers = {(row["metric"], row["class"]): float(row["value"]) for row in rows_of(tmp_path / "run" / "test.csv")}
    assert {metric for metric, _ in numbers} <= {"correct", "average_precision", "iou", "iou_if_present"}
    assert ("correct", "disc") in numbers
    assert ("iou", "disc") in numbers
    assert {key: evaluated[key] for key in numbers} == pytest.approx(numbers, abs=1e-4)


def test_a_training_that_was_interrupted_before_the_test_images_is_completed(command, folder, tmp_path):
    words = ("train", folder / "train.yaml", "--output", tmp_path / "run")
    assert command(*words).code == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    (tmp_path / "run" / "test.csv").unlink()
    assert command(*words).code == 0
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
    assert command(*words).code == 2


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("{name: semantic, params: {presence_threshold: [0.5, 0.5, 0.5]}}", "presence_threshold: expected one number"),
        ("failing", "head fake/failing cannot decide on the scores of method micraframe/micra-net: no scale"),
    ],
)
def test_train_refuses_before_its_first_step_what_fails_at_predict(command, folder, tmp_path, install, head, reason):
    code = """
        from typing import final
        from micraframe.interfaces import Head, HeadParams
        @final
        class Failing(Head[HeadParams]):
            def decide(self, scores, image, info):
                raise ValueError("no scale")
    """
    install("fake", [Component("head", "failing", "fake_heads:Failing", "Fails")], fake_heads=textwrap.dedent(code))
    text = (folder / "train.yaml").read_text().partition("\nhead:")[0]
    (tmp_path / "train.yaml").write_text(f"{text}\nhead: {head}\ndevice: cpu\n")
    ran = command("train", tmp_path / "train.yaml", "--output", tmp_path / "run")
    assert ran.code == 2
    assert reason in ran.err
    assert "training 1/" not in ran.err
    assert not (tmp_path / "run").exists()


def test_train_does_not_overwrite_a_model(command, folder, model):
    ran = command("train", folder / "train.yaml", "--output", model.parent)
    assert ran.code == 2
    assert f"{model.parent}: already contains a model; choose another --output or delete it" in ran.err


def test_train_does_not_replace_a_configuration_of_another_program(command, folder, tmp_path):
    (tmp_path / "config.yaml").write_text("title: mine\n")
    ran = command("train", folder / "train.yaml", "--output", tmp_path)
    assert ran.code == 2
    assert f"{tmp_path / 'config.yaml'}: expected no file, or a configuration that this command wrote" in ran.err
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("config.yaml", "title: mine\n")]


def test_a_training_that_fails_at_once_leaves_no_folder(command, folder, tmp_path):
    (tmp_path / "train.yaml").write_text((folder / "train.yaml").read_text().replace("labels.csv", "absent.csv"))
    ran = command("train", tmp_path / "train.yaml", "--output", tmp_path / "new" / "run")
    assert ran.code == 1
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    command("train", tmp_path / "train.yaml", "--output", tmp_path / "old")
    assert (tmp_path / "old").exists()


def test_train_does_not_disturb_another_training_in_its_folder(command, folder, tmp_path):
    with exclusive(tmp_path / ".lock", pytest.fail):
        ran = command("train", folder / "train.yaml", "--output", tmp_path)
    assert ran.code == 2
    assert "another process is training here" in ran.err
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_train_fails_if_a_component_ends_the_program(command, folder, install, tmp_path):
    offers = [Component("head", "nothing", "fake_heads:Nothing", "Does nothing")]
    install("fake", offers, fake_heads="import sys\nsys.exit(0)")
    text = (folder / "train.yaml").read_text().partition("\nhead:")[0] + "\nhead: nothing\ndevice: cpu\n"
    (tmp_path / "train.yaml").write_text(text)
    ran = command("train", tmp_path / "train.yaml", "--output", tmp_path / "run")
    assert ran.code == 1
    assert "importing module 'fake_heads' ended the program" in ran.err


def test_train_warns_of_a_class_without_examples_and_estimates_annotation_time(command, folder, tmp_path):
    text = (folder / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([f"{text[0]},never", *(f"{line},0" for line in text[1:])]))
    config = (folder / "train.yaml").read_text().replace(f"{folder}/labels.csv", f"{tmp_path}/labels.csv")
    (tmp_path / "train.yaml").write_text(config)
    ran = command("train", tmp_path / "train.yaml", "--output", tmp_path / "run")
    assert ran.code == 0
    assert "warning: class 'never' is in none of the 9 training samples, so it cannot be learned" in ran.err
    assert "class 'disc' is in" not in ran.err
    table = ran.out.partition("Presence on the validation samples")[2].partition("Test")[0]
    assert "disc" in table
    assert "never" not in table  # no number of it can be given
    assert "on 9 samples, with 3 for validation" in ran.out
    assert "Annotation time: about 24 s (12 s to 48 s)" in ran.out


def test_nothing_is_trained_if_no_class_has_samples_of_both_kinds(command, folder, tmp_path):
    names = [line.partition(",")[0] for line in (folder / "labels.csv").read_text().splitlines()[1:]]
    (tmp_path / "labels.csv").write_text("image,disc,square\n" + "".join(f"{name},1,0\n" for name in names))
    config = (folder / "train.yaml").read_text().replace(f"{folder}/labels.csv", f"{tmp_path}/labels.csv")
    (tmp_path / "train.yaml").write_text(config)
    ran = command("train", tmp_path / "train.yaml", "--output", tmp_path / "run")
    assert ran.code == 1
    assert "class 'disc' is in all of the 9 training samples; class 'square' is in none of the 9" in ran.err
    assert "micraframe data audit" in ran.err
    assert not (tmp_path / "run").exists()


def test_train_annotates_no_validation_samples_that_the_method_does_not_use(command, folder, tmp_path):
    text = (folder / "train.yaml").read_text().partition("\nmethod:")[0] + "\nmethod: centre-blob\ndevice: cpu\n"
    (tmp_path / "train.yaml").write_text(text)
    ran = command("train", tmp_path / "train.yaml", "--output", tmp_path / "run")
    assert ran.code == 0
    assert "on 9 samples, with 0 for validation" in ran.out
    assert "Annotation time: about 18 s (9 s to 36 s)" in ran.out


def test_predict_writes_masks_overlays_and_a_table(command, folder, model, tmp_path):
    ran = command("predict", model, folder / "images", "--output", tmp_path)
    assert ran.code == 0
    rows = rows_of(tmp_path / "predictions.csv")
    assert list(rows[0]) == ["image", "class", "presence", "present", "area", "objects", "status"]
    assert len(rows) == 24
    for sample in full_samples(12, (40, 40)):
        masks = read_image(tmp_path / f"{sample.id}.tif")
        assert masks.shape == (2, 40, 40)
        assert set(np.unique(masks)) <= {0, 255}
        areas = [int(row["area"]) for row in rows if row["image"] == f"{sample.id}.png"]
        assert areas == [int((mask > 0).sum()) for mask in masks]
        assert (tmp_path / f"{sample.id}-overlay.png").exists()
        assert not (tmp_path / f"{sample.id}-labels.tif").exists()


def test_predict_takes_other_components_than_the_models_own(command, folder, model, tmp_path):
    image = folder / "images" / "sample-1.png"
    options = ("--head", "instance:presence_threshold=0", "--combiner", "pca:weight=coarse", "--scores")
    ran = command("predict", model, image, "--output", tmp_path / "out", *options)
    assert ran.code == 0
    labels = read_labels(tmp_path / "out" / "sample-1-labels.tif")
    objects = rows_of(tmp_path / "out" / "objects.csv")
    assert list(objects[0]) == ["image", "class", "id", "area", "y", "x", "score", "pixel_size_um"]
    for number, name in enumerate(("disc", "square")):
        ids, areas = np.unique(labels[number][labels[number] > 0], return_counts=True)
        mine = [row for row in objects if row["class"] == name]
        assert [int(row["id"]) for row in mine] == ids.tolist()
        assert [int(row["area"]) for row in mine] == areas.tolist()
    outlines = json.loads((tmp_path / "out" / "sample-1.geojson").read_text())["features"]
    assert [one["properties"]["measurements"]["area (px)"] for one in outlines] == [int(row["area"]) for row in objects]
    scores = read_image(tmp_path / "out" / "sample-1-scores.tif")
    assert scores.shape == (2, 40, 40)
    direct = micraframe.load(model, "cpu", head="instance", combiner=Choice(name="pca", params={"weight": "coarse"}))
    assert json.loads((tmp_path / "out" / "predict.json").read_text())["method"] == direct.method.model_dump()
    for wrong, reason in (
        (("--combiner", "last-layer:x=1"), "no parameter 'x'"),
        (("--head", "pca"), "a combiner 'pca'"),
    ):
        ran = command("predict", model, image, "--output", tmp_path / "other", *wrong)
        assert ran.code == 2
        assert reason in ran.err


def test_predict_takes_thresholds_of_a_study(command, folder, model, tmp_path):
    tuned = {"tuned": {"validation": {"presence": [1.0, 0.0], "mask": 0.25}}}
    (tmp_path / "thresholds.json").write_text(json.dumps(tuned))
    image = folder / "images" / "sample-1.png"
    ran = command("predict", model, image, "--output", tmp_path / "out", "--thresholds", tmp_path / "thresholds.json")
    assert ran.code == 0
    assert [row["present"] for row in rows_of(tmp_path / "out" / "predictions.csv")] == ["0", "1"]
    assert json.loads((tmp_path / "out" / "predict.json").read_text())["origins"] == {
        "mask": "validation",
        "presence": "validation",
    }


def test_predict_takes_a_studys_thresholds_of_another_origin(command, folder, model, tmp_path):
    tuned = {"validation": {"presence": [1.0, 1.0], "mask": 0.5}, "negatives": {"presence": [0.0, 1.0], "mask": 0.25}}
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"tuned": tuned}))
    words = ["predict", model, folder / "images" / "sample-1.png", "--output", tmp_path / "out"]
    assert command(*words, "--thresholds", file, "--origin", "negatives").code == 0
    assert [row["present"] for row in rows_of(tmp_path / "out" / "predictions.csv")] == ["1", "0"]
    origins = json.loads((tmp_path / "out" / "predict.json").read_text())["origins"]
    assert set(origins.values()) == {"negatives"}
    ran = command(*words, "--thresholds", file, "--origin", "expected-share")
    assert (ran.code, "got validation, negatives" in ran.err) == (1, True)
    assert command(*words, "--origin", "negatives").code == 2


def test_predict_replaces_its_own_earlier_files_and_no_others(command, folder, model, tmp_path):
    images, out = folder / "images", tmp_path / "out"
    assert command("predict", model, images, "--output", out, "--head", "detection").code == 0
    (out / "notes.txt").write_text("mine")
    assert command("predict", model, images / "sample-1.png", "--output", out).code == 0
    kept = {"notes.txt", "objects.csv", "predict.json", "predictions.csv"}
    kept |= {f"sample-1{end}" for end in (".tif", ".geojson", "-overlay.png")}
    assert {file.name for file in out.glob("[!.]*")} == kept


@pytest.mark.parametrize("name", ["points.csv", "sample-1.tif", "predict.json"])
def test_predict_does_not_touch_unrelated_files(command, folder, model, tmp_path, name):
    (tmp_path / name).write_text("mine")
    ran = command("predict", model, folder / "images", "--output", tmp_path)
    assert ran.code == 2
    assert f"files that it would replace ({name})" in ran.err
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "mine")]


def test_a_manifest_removes_nothing_outside_its_folder(command, folder, model, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predict.json").write_text('{"files": ["predict.json", "../mine.txt", "..", 3]}')
    assert command("predict", model, folder / "images" / "sample-1.png", "--output", tmp_path / "out").code == 0
    assert (tmp_path / "mine.txt").exists()


def test_a_bad_file_does_not_end_the_batch(command, folder, model, tmp_path):
    good = folder / "images" / "sample-1.png"
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(good.read_bytes()[:60])
    empty = tmp_path / "empty.tif"
    empty.write_bytes(b"")
    colour = tmp_path / "colour.png"
    write_png(colour, np.zeros((40, 40, 3), np.uint8))
    tiny = tmp_path / "tiny.png"
    write_png(tiny, np.zeros((1, 1), np.uint8))
    other = folder / "images" / "sample-2.png"
    (tmp_path / "out").mkdir()
    write_png(tmp_path / "out" / "of-somebody-overlay.png", np.zeros((4, 4), np.uint8))
    files = (truncated, good, empty, colour, tiny, other)
    ran = command("predict", model, *files, "--output", tmp_path / "out")
    assert ran.code == 1
    for bad in (truncated, empty, colour, tiny):
        assert ran.err.count(str(bad)) == 1
    assert "4 failed, 2 done" in ran.err
    assert {row["image"] for row in rows_of(tmp_path / "out" / "predictions.csv")} == {"sample-1.png", "sample-2.png"}


def test_failures_for_the_same_reason_are_one_line(command, folder, model, tmp_path):
    for name in "abc":
        write_png(tmp_path / "colour" / f"{name}.png", np.zeros((40, 40, 3), np.uint8))
    ran = command("predict", model, tmp_path / "colour", "--output", tmp_path / "out")
    assert ran.code == 1
    assert "\n  3 images: expected 1 channel" in ran.err
    assert ran.err.endswith(f"(first: {tmp_path / 'colour' / 'a.png'})\n")
    assert not (tmp_path / "out").exists()


def test_two_images_of_one_name_do_not_overwrite_each_other(command, folder, model, tmp_path):
    copy = tmp_path / "sample-1.png"
    copy.write_bytes((folder / "images" / "sample-1.png").read_bytes())
    ran = command("predict", model, folder / "images" / "sample-1.png", copy, "--output", tmp_path / "out")
    assert ran.code == 1
    assert "would replace those of" in ran.err


def test_predict_does_not_write_among_the_images(command, folder, model, tmp_path):
    image = tmp_path / "a.tif"
    write_tiff(image, np.zeros((40, 40), np.uint8))
    before = image.read_bytes()
    for given in (image, tmp_path):
        ran = command("predict", model, given, "--output", tmp_path / ".." / tmp_path.name)
        assert ran.code == 2
        assert "choose another folder" in ran.err
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
    assert image.read_bytes() == before


def test_large_images_are_predicted_in_tiles(command, folder, model, tmp_path):
    image = read_image(folder / "images" / "sample-1.png")[0]
    write_png(tmp_path / "large.png", np.tile(image, (4, 5)).astype(np.uint8))
    cut = ("--output", tmp_path / "cut", "--tile", 64, "--halo", 16)
    assert command("predict", model, tmp_path / "large.png", folder / "images", *cut).code == 0
    assert command("predict", model, tmp_path / "large.png", "--output", tmp_path / "whole").code == 0
    masks, others = (read_image(tmp_path / name / "large.tif") for name in ("cut", "whole"))
    assert masks.shape == others.shape == (2, 160, 200)
    assert not np.array_equal(masks, others), "maps are scaled in each tile"
    assert len({row["image"] for row in rows_of(tmp_path / "cut" / "predictions.csv")}) == 13
    # As large as the training images, which leaves less than the usual halo.
    crop = ("--output", tmp_path / "crop", "--tile", 40)
    assert command("predict", model, tmp_path / "large.png", *crop).code == 0
    assert read_image(tmp_path / "crop" / "large.tif").shape == masks.shape


def test_tiles_without_a_middle_are_refused(command, folder, model, tmp_path):
    ran = command("predict", model, folder / "images", "--output", tmp_path, "--tile", 128, "--halo", 64)
    assert ran.code == 2
    assert "--tile 128 --halo 64: expected at least 32 used pixels per tile" in ran.err
    ran = command("predict", model, folder / "images", "--output", tmp_path, "--halo", 16)
    assert ran.code == 2
    assert "--halo 16: expected --tile too" in ran.err


def test_hidden_files_of_a_folder_are_not_images(command, folder, model, tmp_path):
    (tmp_path / "a.png").write_bytes((folder / "images" / "sample-1.png").read_bytes())
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves")
    assert command("predict", model, tmp_path, "--output", tmp_path / "out").code == 0


def test_an_output_that_cannot_be_written_is_one_line(command, folder, model, tmp_path):
    (tmp_path / "out").write_text("a file")
    ran = command("predict", model, folder / "images", "--output", tmp_path / "out")
    assert ran.code == 2
    assert str(tmp_path / "out") in ran.err
    assert "Traceback" not in ran.err


def test_predict_without_images_says_so(command, model, tmp_path):
    ran = command("predict", model, tmp_path, "--output", tmp_path / "out")
    assert ran.code == 1
    assert "expected images with suffix .tif" in ran.err


def test_evaluate_gives_numbers_per_image_and_class(command, folder, model, tmp_path):
    command("predict", model, folder / "images", "--output", tmp_path)
    ran = command("evaluate", tmp_path, folder / "masks", "--output", tmp_path / "rows.csv", "--json")
    assert ran.code == 0
    means = {(row["metric"], row["class"]): row["value"] for row in json.loads(ran.out)}
    rows = [row for row in rows_of(tmp_path / "rows.csv") if row["statistic"] == "iou" and row["class"] == "disc"]
    assert len(rows) == 12
    defined = [float(row["value"]) for row in rows if row["value"]]
    assert means["iou", "disc"] == pytest.approx(np.mean(defined), rel=1e-5)
    assert means["correct", "all"] == pytest.approx((means["correct", "disc"] + means["correct", "square"]) / 2)
    again = command("evaluate", tmp_path, folder / "masks", "--output", tmp_path / "rows.csv")
    assert again.code == 2
    assert "rows.csv: expected no such file yet" in again.err
    labels = command("evaluate", tmp_path, folder / "labels.csv", "--json")
    assert {row["component"] for row in json.loads(labels.out)} == {"micraframe/classification"}
    assert means["correct", "disc"] == next(
        row["value"] for row in json.loads(labels.out) if (row["metric"], row["class"]) == ("correct", "disc")
    )


def test_evaluate_prints_a_table_for_each_metric(command, folder, model, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command("predict", model, folder / "images", "--output", tmp_path)
    ran = command("evaluate", tmp_path, folder / "masks")
    lines = ran.out.splitlines()
    assert [line.partition(":")[0] for line in lines if line.startswith("micraframe/")] == [
        "micraframe/classification",
        "micraframe/overlap",
    ]
    assert lines[0].endswith("Whether each class's presence was classified correctly")
    assert lines[1].split() == ["metric", "class", "value", "images", "reduction"]


def test_evaluate_does_not_mind_a_plugin_that_offers_the_names_of_metrics(command, folder, model, tmp_path, install):
    names = ("classification", "overlap", "detection")
    offers = [Component("metric", name, "nowhere:Nothing", "Takes a name") for name in names]
    command("predict", model, folder / "images", "--output", tmp_path / "out", "--head", "detection")
    expected = command("evaluate", tmp_path / "out", folder / "masks", "--json")
    install("taker", offers)
    assert command("evaluate", tmp_path / "out", folder / "masks", "--json") == expected


def test_evaluate_reads_labels_as_training_does(command, folder, model, tmp_path):
    command("predict", model, folder / "images", "--output", tmp_path / "out")
    answers = rows_of(folder / "labels.csv")
    classes = [(row["image"], name) for row in answers for name in ("disc", "square", "") if row.get(name, "1") == "1"]
    named = tmp_path / "named.csv"
    named.write_text("file,class\n" + "".join(f"{image},{name}\n" for image, name in classes))
    expected = command("evaluate", tmp_path / "out", folder / "labels.csv", "--json")
    assert command("evaluate", tmp_path / "out", named, "--json").out == expected.out
    (tmp_path / "bad.csv").write_text("image,disc\nsample-1.png,1\n")
    ran = command("evaluate", tmp_path / "out", tmp_path / "bad.csv")
    assert ran.code == 1
    assert "square" in ran.err


def test_perfect_predictions_are_measured_as_perfect(command, folder, model, tmp_path):
    command("predict", model, folder / "images", "--output", tmp_path)
    for sample in full_samples(12, (40, 40)):
        assert sample.masks is not None
        write_tiff(tmp_path / f"{sample.id}.tif", sample.masks.astype(np.uint8), ("disc", "square"))
    ran = command("evaluate", tmp_path, folder / "masks", "--json")
    means = {(row["metric"], row["class"]): row["value"] for row in json.loads(ran.out)}
    assert means["iou", "all"] == 1
    assert means["f1", "disc"] == 1


def test_points_are_written_and_their_curve_is_measured(command, folder, model, tmp_path):
    from sklearn.metrics import average_precision_score

    out = tmp_path / "out"
    head = ("--head", "detection:points=peaks,presence_threshold=0")
    assert command("predict", model, folder / "images", "--output", out, *head).code == 0
    points = rows_of(out / "points.csv")
    assert list(points[0]) == ["image", "class", "y", "x", "score"]
    # As if a model had found every disc but one, and on the way something else.
    (out / "points.csv").unlink()
    lines, hits = ["image,class,y,x,score"], []
    discs = [sample for sample in full_samples(12, (40, 40)) if sample.masks is not None and sample.masks[0].any()]
    for number, sample in enumerate(discs[1:]):
        assert sample.masks is not None
        y, x = np.argwhere(sample.masks[0]).mean(axis=0)
        lines.append(f"{sample.id}.png,disc,{y},{x},{0.9 - 0.1 * (number % 3)}")
        hits.append((True, 0.9 - 0.1 * (number % 3)))
    lines.append(f"{discs[0].id}.png,disc,-30,-30,0.75")
    (out / "points.csv").write_text("\n".join(lines) + "\n")
    ran = command("evaluate", out, folder / "masks", "--output", tmp_path / "rows.csv", "--distance", 2, "--json")
    assert ran.code == 0
    means = {(row["metric"], row["class"]): row["value"] for row in json.loads(ran.out)}
    wanted = average_precision_score(*zip(*hits, (False, 0.75), strict=True)) * len(hits) / len(discs)
    assert means["detection_average_precision_pooled", "disc"] == pytest.approx(wanted)
    assert means["detection_average_precision_pooled", "square"] == 0
    assert means["detection_average_precision_pooled", "all"] == pytest.approx(wanted / 2)
    curve = rows_of(tmp_path / "rows-precision_recall.csv")
    assert list(curve[0]) == ["class", "threshold", "precision", "recall"]
    assert [row["threshold"] for row in curve] == ["0.899999976", "0.800000012", "0.75", "0.699999988"]
    assert float(curve[-1]["recall"]) == pytest.approx(len(hits) / len(discs))
    statistics = {row["statistic"] for row in rows_of(tmp_path / "rows.csv")}
    assert statistics > {"detection_f1", "detection_average_precision"}
    assert command("evaluate", out, folder / "labels.csv").code == 0, "labels say nothing of where objects are"
    (tmp_path / "rows.csv").unlink()
    clash = command("evaluate", out, folder / "masks", "--output", tmp_path / "rows.csv")
    assert clash.code == 2
    assert "rows-precision_recall.csv: expected no such file yet" in clash.err
    (out / "points.csv").write_text("image,class,y,x,score\na.png,disc,1,2,many\n")
    ran = command("evaluate", out, folder / "masks")
    assert ran.code == 1
    assert "expected image, y, x, score and a class" in ran.err
    # What one model found is not taken for another's.
    command("predict", model, folder / "images", "--output", out)
    assert not (out / "points.csv").exists()


def test_evaluate_takes_names_of_metrics_and_boxes_as_truth(command, folder, model, tmp_path):
    out, boxes = tmp_path / "out", tmp_path / "boxes.csv"
    command("predict", model, folder / "images", "--output", out)
    lines = [f"sample-{number}.png,disc,0,0,9,9\nsample-{number}.png,rod,0,0,9,9" for number in range(12)]
    boxes.write_text("image,class,xmin,ymin,xmax,ymax\n" + "\n".join([*lines, "sample-1.png,square,5,5,20,20"]) + "\n")
    ran = command("evaluate", out, boxes, "--json")
    assert ran.code == 0
    assert list(dict.fromkeys(row["component"] for row in json.loads(ran.out))) == [
        "micraframe/classification",
        "micraframe/counts",
        "micraframe/detection",
    ]
    words = ("--metrics", "counts,classification", "--metrics", "detection:distance=4")
    ran = command("evaluate", out, boxes, *words, "--json")
    assert list(dict.fromkeys(row["component"] for row in json.loads(ran.out))) == [
        "counts",
        "classification",
        "detection",
    ]


def test_a_failure_that_all_images_share_is_stated_once(command, folder, model, tmp_path):
    command("predict", model, folder / "images", "--output", tmp_path / "out")
    (tmp_path / "truth").mkdir()
    ran = command("evaluate", tmp_path / "out", tmp_path / "truth", "--output", tmp_path / "rows.csv")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("expected a mask") == 1
    assert "12 images: " in ran.err
    assert not (tmp_path / "rows.csv").exists()


def test_evaluate_names_an_image_without_truth(command, folder, model, tmp_path):
    command("predict", model, folder / "images" / "sample-1.png", "--output", tmp_path)
    (tmp_path / "truth").mkdir()
    ran = command("evaluate", tmp_path, tmp_path / "truth")
    assert ran.code == 1
    assert "expected a mask sample-1.*" in ran.err
    ran = command("evaluate", tmp_path, folder / "images" / "absent")
    assert ran.code == 1
    assert "expected a folder of masks, or a CSV of labels, boxes or points" in ran.err


def test_a_model_of_another_format_is_refused(command, folder, model, tmp_path):
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(record | {"format": 99}))
    ran = command("predict", tmp_path, folder / "images", "--output", tmp_path / "out")
    assert ran.code == 1
    assert "99" in ran.err
    assert len(ran.err.splitlines()) == 1
