"""`micraframe data audit`, and what `check` and `train` find out before training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from micraframe.images import write_png
from micraframe.testing import full_samples

CONFIG = """
dataset:
  name: folder
  params:
    images: {folder}/images
    masks: {{disc: {folder}/masks/disc, square: {folder}/masks/square}}
    crop: 16
method:
  name: micra-net
  params:
    backbone: {{name: unet-encoder, params: {{widths: [4, 8]}}}}
    training: {{epochs: 1}}
    combiner: {combiner}
device: cpu
"""


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    for sample in full_samples(6, (40, 40)):
        assert sample.masks is not None
        write_png(tmp_path / "images" / f"{sample.id}.png", (sample.image[0] * 255).astype(np.uint8))
        for class_, mask in zip(("disc", "square"), sample.masks, strict=True):
            write_png(tmp_path / "masks" / class_ / f"{sample.id}.png", mask)

    def write(combiner: str = "pca") -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(CONFIG.format(folder=tmp_path, combiner=combiner))
        return path

    return write


def test_audit_prints_80_columns_or_json(command, config):
    code, out, _ = command("data", "audit", config())
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "Proposal:\n  scale: 1\n  crop: 32\n" in out
    assert "width (10/50/90 %)" in out
    assert out.endswith("Rule: docs/audit.md\n")
    assert re.search(r"Expected negative crops: \d+% \(disc\), \d+% \(square\)", out)
    code, out, _ = command("data", "audit", config(), "--json", "--object-size", "9")
    (one,) = json.loads(out)
    assert code == 0
    assert {count["class_"] for count in one["counts"]} == {"disc", "square"}
    assert one["sizes"] == []
    assert one["proposal"]["scale"] == 1


def test_audit_names_a_broken_image(command, config, tmp_path):
    path = config()
    next((tmp_path / "images").iterdir()).write_bytes(b"no image")
    code, _, err = command("data", "audit", path)
    assert code == 1
    assert str(tmp_path / "images") in err


def test_audit_names_all_files_that_do_not_fit(command, config, tmp_path):
    path = config()
    first, second, third, *_ = sorted((tmp_path / "images").iterdir())
    first.write_bytes(b"no image")
    write_png(tmp_path / "masks" / "disc" / second.name, np.zeros((40, 41), bool))
    write_png(tmp_path / "masks" / "square" / second.name, np.zeros((40, 41), bool))
    write_png(third, np.zeros((40, 40, 3), np.uint8))
    code, _, err = command("data", "audit", path)
    err = " ".join(err.split())
    assert code == 1
    assert "3 failed, 3 done" in err
    assert f"{first}: cannot be read" in err
    assert f"{second}: expected an annotation of the image's size (H, W) = (40, 40), got (40, 41)" in err
    assert f"{third}: expected 1 channel" in err


def test_audit_and_check_warn_of_numbered_masks_that_are_taken_for_binary(command, config, tmp_path):
    path = config()
    mask = next((tmp_path / "masks" / "disc").iterdir())
    labels = np.zeros((40, 40), np.uint8)
    labels[3:9, 3:9], labels[20:29, 20:29] = 127, 255
    write_png(mask, labels)
    _, out, _ = command("data", "audit", path)
    _, _, err = command("check", path, "--no-data")
    assert not err
    _, _, err = command("check", path)
    for printed in (" ".join(out.split()), " ".join(err.split())):
        assert "warning: 1 of 6 masks have several values other than 0" in printed
        assert "set mask_kind: instances" in printed


def test_check_opens_the_data_and_builds_the_network(command, config, tmp_path):
    code, out, err = command("check", config())
    assert code == 0
    assert "name: micraframe/pca" in out
    assert "classes disc, square" in err
    (tmp_path / "images").rename(tmp_path / "moved")
    assert command("check", config())[0] == 1
    assert command("check", config(), "--no-data")[0] == 0


def test_audit_and_check_name_the_classes_that_are_left_out(command, tmp_path):
    rows = ["image,class,xmin,ymin,xmax,ymax"]
    for number in range(6):
        write_png(tmp_path / "images" / f"{number}.png", np.full((40, 40), 40 * number, np.uint8))
        rows += [f"{number},{class_},2,2,9,9" for class_ in ("disc", "disk", "other")]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    path = tmp_path / "config.yaml"
    path.write_text(
        "dataset: {name: folder, "
        f"params: {{images: {tmp_path}/images, boxes: {tmp_path}/boxes.csv, classes: [disc]}}}}"
    )
    _, out, _ = command("data", "audit", path)
    _, _, err = command("check", path)
    for printed in (" ".join(out.split()), " ".join(err.split())):
        assert "warning: 6 rows of 'disk' left out" in printed
        assert "ok: 6 rows of 'other' left out" in printed


def test_check_and_train_refuse_layers_that_the_network_lacks(command, config, tmp_path):
    for combiner in (
        "{name: pca, params: {layers: [L1, nine]}}",
        "{name: guided, params: {combiner: {name: select, params: {layers: [nine]}}}}",
    ):
        path = config(combiner)
        for words in (("check", path), ("train", path, "--output", tmp_path / "run")):
            code, _, err = command(*words)
            assert code == 2
            assert "'nine'" in err
        assert not (tmp_path / "run").exists()


def test_audit_calls_crops_that_were_cut_before_crops(command, tmp_path):
    for name in range(6):
        write_png(tmp_path / "images" / f"{name}.png", np.full((32, 32), 40 * name, np.uint8))
    rows = "".join(f"{name}.png,field{name}.png,0,0,field{name},{name % 2}\n" for name in range(6))
    (tmp_path / "labels.csv").write_text(f"image,source,y,x,group,disc\n{rows}")
    params = f"{{images: {tmp_path}/images, labels: {tmp_path}/labels.csv}}"
    path = tmp_path / "config.yaml"
    path.write_text(f"dataset: {{name: folder, params: {params}}}\nmethod: micra-net\n")
    code, out, _ = command("data", "audit", path)
    assert code == 0
    (header,) = [line.split() for line in out.splitlines() if line.startswith("split")]
    assert header == ["split", "class", "crops", "positive", "negative"]
    assert "Crop sizes (H x W): 32 x 32 (6)" in out
