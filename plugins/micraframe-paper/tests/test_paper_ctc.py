from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from micraframe_paper.datasets.ctc import LINES, annotated_frames, read_tracks

from micraframe import registry
from micraframe.errors import DataError
from micraframe.images import write_tiff
from micraframe.testing import check
from micraframe.types import SPLITS, Sample

RNG = np.random.default_rng(0)

HELA, PSC = "Fluo-N2DL-HeLa", "PhC-C2DL-PSC"


def build(**params: Any) -> Any:
    return registry.build("dataset", "ctc", **params)


def every_sample(dataset: Any) -> list[Sample]:
    return [sample for split in SPLITS for sample in dataset.samples(split)]


def write_line(folder: Path, size: tuple[int, int] = (40, 48), gold: tuple[int, ...] = (0, 2)) -> None:
    """Write a cell line: two sequences of 6 frames, with two cells that touch in frames with an even number.

    Silver truth shows both cells of every frame, gold truth those of frame 0 but only one of the second frame in it.
    """
    for sequence in ("01", "02"):
        for number in range(6):
            cells = np.zeros(size, np.uint16)
            cells[4:12, 4:12] = 7
            cells[4:12, (12 if number % 2 == 0 else 30) :][:, :8] = 9
            name = f"{number:03}.tif"
            write_tiff(
                folder / sequence / f"t{name}", (1000 + 100 * cells + RNG.integers(0, 90, size)).astype(np.uint16)
            )
            write_tiff(folder / f"{sequence}_ST" / "SEG" / f"man_seg{name}", cells)
            if number in gold:
                shown = cells if number == 0 else np.where(cells == 7, cells, 0).astype(np.uint16)
                write_tiff(folder / f"{sequence}_GT" / "SEG" / f"man_seg{name}", shown)
        tracks = folder / f"{sequence}_GT" / "TRA" / "man_track.txt"
        tracks.parent.mkdir(exist_ok=True)
        tracks.write_text("7 0 5 0\n9 0 5 7\n12 8 9 0\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for line in (HELA, PSC):
        write_line(tmp_path / line)
    return tmp_path


def test_it_keeps_a_datasets_promises(root: Path) -> None:
    check("dataset", "ctc", root=str(root), lines=[HELA, PSC], scales={HELA: 1, PSC: 0.5}, crop=16, stride=12)
    check("dataset", "ctc", root=str(root), lines=[HELA], crop=None, stride=None)


def test_images_have_cells_contacts_and_the_range_0_to_1(root: Path) -> None:
    dataset = build(root=str(root), lines=[HELA], scales={HELA: 1}, crop=None, stride=None)
    info = dataset.info()
    assert (info.name, info.classes, info.roles) == ("ctc", ("cell", "contact"), ("object", "contact"))
    assert info.normalisation.kind == "min-max"
    samples = {sample.id: sample for sample in every_sample(dataset)}
    assert sorted(samples) == [f"{HELA}-{sequence}-t{number:03}" for sequence in ("01", "02") for number in range(6)]
    for name, sample in samples.items():
        assert (sample.image.min(), sample.image.max()) == (0, 1)
        assert set(np.unique(sample.instances[0])) == {0, 7, 9}
        assert sample.labels.tolist() == [True, int(name[-1]) % 2 == 0]


def test_splits_are_apart_in_time(root: Path) -> None:
    dataset = build(root=str(root), lines=[HELA, PSC], crop=None, stride=None)
    for split, frames in (("train", ("01", range(6))), ("valid", ("02", range(3))), ("test", ("02", range(3, 6)))):
        sequence, numbers = frames
        expected = [f"{line}-{sequence}-t{number:03}" for line in (HELA, PSC) for number in numbers]
        assert [sample.id for sample in dataset.samples(split)] == expected


def test_each_line_has_its_scale(root: Path) -> None:
    whole = {"root": str(root), "crop": None, "stride": None}
    sizes = {
        sample.id.rpartition("-01-")[0]: sample.image.shape[1:]
        for sample in build(**whole, lines=[HELA, PSC]).samples("train")
    }
    assert sizes == {HELA: (52, 62), PSC: (128, 154)}  # of 40 x 48, by 0.645 / 0.5 and 1.6 / 0.5
    single = build(**whole, lines=[PSC])
    assert single.info().scale == 3.2
    np.testing.assert_array_equal(
        single.samples("train")[0].image, build(**whole, lines=[PSC, HELA]).samples("train")[0].image
    )
    assert build(**whole, lines=[PSC], scales={PSC: 0.5}).samples("train")[0].image.shape == (1, 20, 24)


def test_a_crop_is_positive_from_the_area_of_the_mean_cell(root: Path) -> None:
    dataset = build(root=str(root), lines=[HELA], scales={HELA: 1}, crop=16, stride=12)
    labels = {True: 0, False: 0}
    for sample in every_sample(dataset):
        assert sample.labels[0] == (sample.masks[0].sum() >= 64)
        assert sample.labels[1] == sample.masks[1].any()
        labels[bool(sample.masks[0].any() and not sample.labels[0])] += 1
    assert labels[True], "some crops have less than a cell, and count as negative"


def test_incomplete_outlines_give_way_to_complete_ones(root: Path) -> None:
    line = root / HELA
    gold, silver = (line / f"01_{corpus}" / "SEG" for corpus in ("GT", "ST"))
    frames = annotated_frames(line, "01", ("GT", "ST"), 0.9)
    assert [frame.number for frame in frames] == list(range(6))
    assert [frame.cells.parent for frame in frames] == [gold, *[silver] * 5]
    assert [frame.number for frame in annotated_frames(line, "01", ("GT",), 0.9)] == [0]
    assert [frame.number for frame in annotated_frames(line, "01", ("GT",), 0.5)] == [0, 2]
    (line / "01_GT" / "TRA" / "man_track.txt").unlink()
    assert [frame.number for frame in annotated_frames(line, "01", ("GT",), 0)] == [0, 2]
    with pytest.raises(DataError, match=r"man_track.txt: cannot be read .*set completeness: 0"):
        annotated_frames(line, "01", ("GT",), 0.9)


def test_tracks(tmp_path: Path) -> None:
    path = tmp_path / "man_track.txt"
    path.write_text("1 0 91 0\n\n23 4 17 1\n")
    assert read_tracks(path) == {1: (0, 91), 23: (4, 17)}
    for wrong in ("1 2 3", "1 5 4 0", "a 0 1 0"):
        path.write_text(f"1 0 9 0\n{wrong}\n")
        with pytest.raises(
            DataError, match=f"man_track.txt:2: expected 'cell first-frame last-frame parent', got '{wrong}'"
        ):
            read_tracks(path)


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no PhC-C2DH-U373.*get the data from https://celltrackingchallenge"):
        build(root=str(root), lines=["PhC-C2DH-U373", HELA]).info()
    for path in (root / HELA / "01").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"01: expected the frames t000.tif, t001.tif, ..., found none"):
        build(root=str(root), lines=[HELA]).info()
    for path in (root / PSC / "01_ST" / "SEG").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="expected frames with outlined cells in 01_ST, got none of 6"):
        build(root=str(root), lines=[PSC], corpora=["ST"]).info()


def test_the_papers_six_lines_are_the_default() -> None:
    assert build().params.lines == tuple(LINES)
    assert len(LINES) == 6
    assert all(len(line.sha256) == 64 for line in LINES.values())
