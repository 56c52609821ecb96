"""Crops with a table of labels: what is written, and that the dataset `folder` reads it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table_files import rows_of

from micraframe import registry
from micraframe.batch.cut import cut_files
from micraframe.cli import app
from micraframe.config import parse
from micraframe.datasets.crops import grid
from micraframe.errors import BatchError, ConfigError, DataError
from micraframe.images import read_image, write_png, write_tiff
from micraframe.parameters import Parameters
from micraframe.types import SPLITS

RNG = np.random.default_rng(0)


class Written(Parameters):
    dataset: dict[str, Any]


FILES = {
    "grey.png": RNG.integers(0, 1 << 16, (20, 33)).astype(np.uint16),
    "colour.png": RNG.integers(0, 256, (9, 16, 3)).astype(np.uint8),
    "floats.tif": RNG.random((2, 17, 8)).astype(np.float32),
}


def write(path: Path, array: np.ndarray) -> None:
    (write_png if path.suffix == ".png" else write_tiff)(path, array)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "fields"
    for number, size in enumerate([(20, 33), (9, 16), (17, 8)]):
        write_png(folder / f"{number}.png", RNG.integers(0, 1 << 16, size).astype(np.uint16))
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    return rows_of(folder / "labels.csv")


def fill_in(folder: Path, answer: Any) -> None:
    rows = table(folder)
    for number, row in enumerate(rows):
        row |= answer(number, row)
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read(folder: Path, **params: Any) -> Any:
    return registry.build("dataset", "folder", images=str(folder / "images"), labels=f"{folder}/labels.csv", **params)


@pytest.mark.parametrize("name", FILES)
def test_crops_are_parts_of_their_image(tmp_path: Path, name: str) -> None:
    images = tmp_path / "fields"
    images.mkdir()
    write(images / name, FILES[name])
    cut = cut_files(images, tmp_path / "crops", 8, 6, ["ring", "fiber"])
    rows = table(tmp_path / "crops")
    assert (cut.crops, cut.images, cut.failures) == (len(rows), 1, {})
    assert list(rows[0]) == ["image", "source", "y", "x", "group", "ring", "fiber"]
    whole = read_image(images / name)
    for row in rows:
        y, x = int(row["y"]), int(row["x"])
        np.testing.assert_array_equal(
            read_image(tmp_path / "crops" / "images" / row["image"]), whole[:, y : y + 8, x : x + 8]
        )
        assert (row["source"], row["group"]) == (name, Path(name).stem)
        assert row["ring"] == row["fiber"] == ""
    windows = grid((whole.shape[1], whole.shape[2]), 8, 6)
    assert [(int(row["y"]), int(row["x"])) for row in rows] == [(window.y, window.x) for window in windows]
    assert {path.suffix for path in (tmp_path / "crops" / "images").iterdir()} == {Path(name).suffix}


def test_images_with_different_channels_are_refused(tmp_path: Path) -> None:
    for name, array in FILES.items():
        (tmp_path / "fields").mkdir(exist_ok=True)
        write(tmp_path / "fields" / name, array)
    with pytest.raises(DataError, match=r"floats\.tif: expected 3 channels, as in .*colour\.png, got 2; save all"):
        cut_files(tmp_path / "fields", tmp_path / "crops", 8, None, ["ring"])
    assert not (tmp_path / "crops").exists()


def test_small_images_and_skipped_files_are_mentioned(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "stack.czi").write_bytes(b"")
    words = ["crops", images, "--size", "16", "--classes", "ring", "--output", tmp_path / "crops"]
    app([str(word) for word in words], standalone_mode=False)
    printed = " ".join(capsys.readouterr().err.split())
    assert "note: 2 of 3 images smaller than a crop of 16 px" in printed
    assert "note: 1 file skipped, not ending in .tif, .tiff, .png, .jpg, .jpeg: stack.czi" in printed


def test_with_a_scale_crops_are_as_much_larger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    field = RNG.integers(0, 256, (70, 96)).astype(np.uint8)
    write_png(tmp_path / "fields" / "a.png", field)
    words = ["--classes", "ring", "--size", "8", "--stride", "6", "--scale", "0.25"]
    app(["crops", str(tmp_path / "fields"), *words, "--output", str(tmp_path / "crops")], standalone_mode=False)
    rows = table(tmp_path / "crops")
    assert [(int(row["y"]), int(row["x"])) for row in rows] == [(w.y, w.x) for w in grid((70, 96), 32, 24)]
    first = read_image(tmp_path / "crops" / "images" / rows[1]["image"])
    np.testing.assert_array_equal(first[0], field[:32, 24:56])
    fill_in(tmp_path / "crops", lambda number, row: {"ring": str(number % 2)})
    printed = capsys.readouterr().out
    written = parse(printed[printed.index("dataset:") :], Written, "printed").dataset
    dataset = registry.build("dataset", written["name"], **written["params"], valid=0, test=0)
    assert dataset.info().scale == 0.25
    samples = [sample for split in SPLITS for sample in dataset.samples(split)]
    assert {sample.image.shape for sample in samples} == {(1, 8, 8)}
    with pytest.raises(ConfigError, match="expected a scale above 0, got 0"):
        cut_files(tmp_path / "fields", tmp_path / "other", 8, None, ["ring"], scale=0)


def test_a_bad_image_does_not_end_the_batch(images: Path, tmp_path: Path) -> None:
    (images / "broken.png").write_bytes(b"no picture")
    cut = cut_files(images, tmp_path / "crops", 8, None, ["ring"])
    assert (cut.images, list(cut.failures)) == (3, [str(images / "broken.png")])
    assert cut.crops == len(list((tmp_path / "crops" / "images").iterdir()))
    for path in images.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(BatchError, match="4 failed, 0 done"):
        cut_files(images, tmp_path / "others", 8, None, ["ring"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "fields"]


def test_a_folder_with_files_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    cut_files(images, tmp_path / "crops", 8, None, ["ring"])
    before = (tmp_path / "crops" / "labels.csv").read_bytes()
    with pytest.raises(ConfigError, match="never replaced; choose another --output"):
        cut_files(images, tmp_path / "crops", 16, None, ["ring"])
    assert (tmp_path / "crops" / "labels.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("stride", "classes"), [(9, ["a"]), (None, []), (None, ["a", "a"]), (None, ["group"]), (None, ["a", ""])]
)
def test_wrong_wishes(images: Path, tmp_path: Path, stride: int | None, classes: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        cut_files(images, tmp_path / "crops", 8, stride, classes)
    assert not (tmp_path / "crops").exists()


def test_the_dataset_reads_what_was_filled_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        write_png(tmp_path / "fields" / f"field{number}.png", RNG.integers(0, 256, (16, 24)).astype(np.uint8))
    crops = tmp_path / "crops"
    words = ["crops", tmp_path / "fields", "--size", "8", "--classes", "ring, fiber", "--output", crops]
    app([str(word) for word in words], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "Wrote 36 crops of 6 images" in printed
    choice = parse(printed[printed.index("dataset:") :], Written).dataset
    assert choice["params"] | {"images": "", "labels": ""} == {
        "images": "",
        "labels": "",
        "normalisation": {"kind": "percentile", "scope": "train"},
        "unlabelled": "skip",
    }
    with pytest.raises(
        DataError, match=r"none of 36: field0@y0x0\.png \(\S+labels.csv:2: 'ring' is empty\), .* \.\.\.; annotate"
    ):
        read(crops).info()
    fill_in(crops, lambda number, row: {"ring": str(number % 2), "fiber": "" if number % 6 == 5 else "0"})
    with pytest.raises(DataError, match=r"none of 6: field0@y8x16\.png \(\S+labels.csv:7: 'fiber' is empty\)"):
        read(crops).info()
    dataset = registry.build("dataset", choice["name"], **choice["params"])
    assert dataset.info().classes == ("ring", "fiber")
    samples = [sample for split in SPLITS for sample in dataset.samples(split)]
    assert len(samples) == 30
    assert {sample.group for sample in samples} == {f"field{number}" for number in range(6)}
    negative = read(crops, unlabelled="negative")
    every = [sample for split in SPLITS for sample in negative.samples(split)]
    assert len(every) == 36
    for sample in every:
        assert sample.labels[0] == (sample.id.endswith(("y0x8", "y8x0", "y8x16")))
        assert not sample.labels[1]


def test_blood_smears_are_cut_and_labelled_from_their_boxes(data: Path, tmp_path: Path) -> None:
    source = data / "bccd_blood"
    images = tmp_path / "fields"
    images.mkdir()
    for path in sorted((source / "images").iterdir())[:5]:
        (images / path.name).symlink_to(path)
    crops = tmp_path / "crops"
    cut_files(images, crops, 160, 120, ["WBC"])
    boxes = [row for row in rows_of(source / "boxes.csv") if row["class"] == "WBC"]

    def answer(number: int, row: dict[str, str]) -> dict[str, str]:
        y, x = int(row["y"]), int(row["x"])
        inside = [
            int(box["xmin"]) < x + 160 and int(box["xmax"]) > x and int(box["ymin"]) < y + 160 and int(box["ymax"]) > y
            for box in boxes
            if box["image"] == row["group"]
        ]
        return {"WBC": str(int(any(inside)))}

    fill_in(crops, answer)
    dataset = read(crops)
    samples = [sample for split in SPLITS for sample in dataset.samples(split)]
    assert {sample.image.shape for sample in samples} == {(3, 160, 160)}
    direct = registry.build(
        "dataset",
        "folder",
        images=str(images),
        boxes=str(boxes_of(source, images, tmp_path)),
        classes=["WBC"],
        unlabelled="negative",
        crop=160,
        stride=120,
    )
    labels = {sample.id: sample.labels[0] for split in SPLITS for sample in direct.samples(split)}
    assert {sample.id: sample.labels[0] for sample in samples} == labels
    assert 0.05 < np.mean(list(labels.values())) < 0.7


def boxes_of(source: Path, images: Path, folder: Path) -> Path:
    """Write a table of the white cells of some images."""
    names = {path.stem for path in images.iterdir()}
    header, *lines = (source / "boxes.csv").read_text().splitlines()
    kept = [line for line in lines if line.split(",")[0] in names and line.split(",")[1] == "WBC"]
    (folder / "boxes.csv").write_text("\n".join([header, *kept]))
    return folder / "boxes.csv"
