from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from micraframe_paper.datasets.blood_mosaic import places
from micraframe_paper.datasets.fields import centred_window, draw_unlabelled, unmarked_windows, used_part

from micraframe import registry
from micraframe.datasets.crops import Window
from micraframe.errors import ConfigError, DataError
from micraframe.images import write_png
from micraframe.testing import check, examine
from micraframe.types import SPLITS

SIZES = st.tuples(st.integers(8, 60), st.integers(8, 60))


def build(name: str, **params: Any) -> Any:
    return registry.build("dataset", name, **params)


def keeps_promises(name: str, **params: Any) -> None:
    """Run the conformance kit on crops, and on crops and whole fields, which differ in size from what `info` names."""
    check("dataset", name, **params, whole_images=[])
    assert not examine("dataset", name, params, {"sizes-as-in-info": "whole test fields"}).failures


@given(SIZES, st.integers(8, 70), st.data())
def test_a_used_part_lies_in_its_window_and_shows_the_mark(
    size: tuple[int, int], side: int, data: st.DataObject
) -> None:
    point = np.array([data.draw(st.floats(-0.4, length - 0.6)) for length in size], np.float32)
    window = centred_window(point, size, side)
    part = used_part(window, data.draw(st.integers(1, side)), np.random.default_rng(0), point)
    y, x = np.rint(point)
    for inner, outer in ((part, window), (window, Window(0, 0, *size))):
        assert outer.y <= inner.y <= y < inner.y + inner.height <= outer.y + outer.height
        assert outer.x <= inner.x <= x < inner.x + inner.width <= outer.x + outer.width


def test_a_window_is_centred_where_there_is_room() -> None:
    assert centred_window(np.array([20, 30], np.float32), (60, 60), 16) == Window(12, 22, 16, 16)
    assert centred_window(np.array([2, 59], np.float32), (60, 60), 16) == Window(0, 44, 16, 16)


@given(
    SIZES, st.integers(8, 20), st.integers(0, 5), st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=4)
)
def test_unmarked_windows_are_a_grid_without_those_near_a_mark(
    size: tuple[int, int], side: int, margin: int, points: list[tuple[float, float]]
) -> None:
    found = unmarked_windows(np.array(points, np.float32).reshape(-1, 2), size, side, margin)
    height, width = (min(side, length) for length in size)
    expected = [
        Window(y, x, height, width)
        for y in range(0, size[0] - height + 1, side)
        for x in range(0, size[1] - width + 1, side)
        if not any(
            y - 0.5 - margin <= np.float32(a) < y + height - 0.5 + margin
            and x - 0.5 - margin <= np.float32(b) < x + width - 0.5 + margin
            for a, b in points
        )
    ]
    assert found == expected


@pytest.mark.parametrize(("ratio", "unlabelled"), [("2:1", 5), ("1:1", 10), ("1:2", 20), ("1:5", 50), ("1:16", 90)])
def test_unlabelled_samples_are_drawn_in_the_ratio(ratio: str, unlabelled: int) -> None:
    present = [index % 10 == 0 for index in range(100)]
    kept = draw_unlabelled(present, ratio, 0)
    assert kept[present].all()
    assert kept.sum() == 10 + unlabelled
    np.testing.assert_array_equal(kept, draw_unlabelled(present, ratio, 0))
    if unlabelled < 90:
        assert (kept != draw_unlabelled(present, ratio, 1)).any()


def test_there_may_be_no_positive_or_no_unlabelled_sample() -> None:
    assert not draw_unlabelled([False] * 3, "1:5", 0).any()
    assert draw_unlabelled([True] * 3, "1:5", 0).all()


MARKS = {"a": [(20, 30)], "b": [(70, 5), (41, 41)], "c": [], "d": [(50, 66)], "e": [(9, 9)], "f": [(60, 60)]}
"""The marks (y, x) of six fields of 80 x 96."""


@pytest.fixture
def tiles(tmp_path: Path) -> dict[str, Any]:
    """Write fields of random noise, black at the marks, in the layout of `em-axon`."""
    rng = np.random.default_rng(0)
    markers, index = ["image,x,y"], ["image,split,group"]
    for number, (name, marks) in enumerate(MARKS.items()):
        field = rng.integers(100, 256, (80, 96)).astype(np.uint8)
        for y, x in marks:
            field[y, x] = 0
            markers.append(f"{name},{x},{y}")
        write_png(tmp_path / "images" / f"{name}.png", field)
        index.append(f"{name},{('train', 'train', 'train', 'train', 'valid', 'test')[number]},section{number}")
    (tmp_path / "markers.csv").write_text("\n".join(markers))
    (tmp_path / "index.csv").write_text("\n".join(index))
    return {"root": str(tmp_path), "cut": 16, "crop": 8}


def test_micrographs_keep_a_datasets_promises(tiles: dict[str, Any]) -> None:
    keeps_promises("em-axon", **tiles)


def test_without_tiles_it_is_said_who_has_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder images in .*corresponding author"):
        build("em-axon", root=str(tmp_path)).samples("train")


def test_a_crop_is_positive_if_and_only_if_it_shows_a_mark(tiles: dict[str, Any]) -> None:
    dataset = build("em-axon", **tiles, pu_ratio=None)
    info = dataset.info()
    assert (info.name, info.classes, info.channels, info.image_size) == ("em-axon", ("axon DAB",), 1, (8, 8))
    samples = list(dataset.samples("train"))
    for sample in samples:
        assert sample.image.shape == (1, 8, 8)
        # The micrograph is inverted: a mark is 1.
        assert sample.labels.tolist() == [bool((sample.image == 1).any())] == [len(sample.points[0]) > 0]
        for y, x in sample.points[0].astype(int):
            assert sample.image[0, y, x] == 1
    assert sum(sample.labels[0] for sample in samples) == 4
    # Of the 5 x 6 cells of each grid, those with a mark are no unlabelled crop.
    assert len(samples) == 4 + 4 * 30 - 4
    assert [sample.labels[0] for sample in dataset.samples("valid")].count(False) == 29


def test_a_test_sample_is_a_whole_field_with_its_marks(tiles: dict[str, Any]) -> None:
    dataset = build("em-axon", **tiles, whole_images=["valid", "test"])
    (valid,), (test,) = dataset.samples("valid"), dataset.samples("test")
    assert (valid.id, test.id) == ("e", "f")
    assert test.image.shape == (1, 80, 96)
    assert test.points[0].tolist() == [[60, 60]]
    assert (test.labels.tolist(), test.group) == ([True], "section5")
    assert test.normalisation == dataset.info().normalisation
    assert test.image.max() == 1
    np.testing.assert_allclose(test.image.min(), 0, atol=0.01)


def test_crops_follow_the_seed_and_only_training_is_drawn(tiles: dict[str, Any]) -> None:
    def ids(split: str, **params: Any) -> list[str]:
        return [sample.id for sample in build("em-axon", **tiles, **params).samples(split)]

    assert len(ids("train", pu_ratio="1:5")) == 4 + 20
    assert len(ids("train", pu_ratio="2:1")) == 4 + 2
    assert ids("train") == ids("train")
    assert ids("train") != ids("train", seed=1)
    assert ids("valid", pu_ratio="2:1") == ids("valid", pu_ratio=None)
    assert len({build("em-axon", **tiles, pu_ratio=ratio).info().fingerprint for ratio in ("2:1", "1:5", None)}) == 3


def test_a_margin_keeps_unlabelled_crops_away_from_marks(tiles: dict[str, Any]) -> None:
    near, far = (
        sum(not sample.labels[0] for sample in build("em-axon", **tiles, pu_ratio=None, margin=margin).samples("train"))
        for margin in (0, 8)
    )
    assert far < near


def test_outlines_of_test_tiles_are_read(tiles: dict[str, Any]) -> None:
    mask = np.zeros((80, 96), np.uint8)
    mask[58:63, 58:63] = 255
    write_png(Path(tiles["root"]) / "masks" / "f.png", mask)
    dataset = build("em-axon", **tiles)
    assert dataset.samples("test")[0].masks.sum() == 25
    assert dataset.samples("train")[0].masks is None
    # A tile with outlines need not have a mark.
    markers = Path(tiles["root"]) / "markers.csv"
    markers.write_text("\n".join(line for line in markers.read_text().splitlines() if not line.startswith("f,")))
    assert len(build("em-axon", **tiles).samples("test")) == 1


def test_wrong_fields_are_named(tiles: dict[str, Any]) -> None:
    root = Path(tiles["root"])
    with pytest.raises(ConfigError, match="expected a crop of at most the 16 px that are cut, got 32"):
        build("em-axon", **(tiles | {"crop": 32}))
    (root / "index.csv").write_text("image,split\na,train\n")
    with pytest.raises(DataError, match="index.csv: expected a row for image 'b', found none"):
        build("em-axon", **tiles).info()


def test_places_are_those_of_an_exhaustive_search() -> None:
    boxes = np.array([[3, 4, 9.5, 8], [15, 1, 18, 6]], np.float32)

    def free(y: int, x: int, box: list[float]) -> bool:
        return y + 7 <= box[0] or y >= box[2] or x + 7 <= box[1] or x >= box[3]

    def holds(y: int, x: int, box: list[float]) -> bool:
        return y <= box[0] and x <= box[1] and y + 7 >= box[2] and x + 7 >= box[3]

    every = [[y, x] for y in range(20 - 7 + 1) for x in range(17 - 7 + 1)]
    first, second = boxes.tolist()
    assert places((20, 17), 7, boxes).tolist() == [at for at in every if free(*at, first) and free(*at, second)]
    assert places((20, 17), 7, boxes, 0).tolist() == [at for at in every if holds(*at, first) and free(*at, second)]
    assert places((5, 30), 7, boxes).tolist() == []


@pytest.fixture
def smears(tmp_path: Path) -> dict[str, Any]:
    """Write smears of 48 x 64 in the layout of BCCD, each grey and with one white square, its cell, of 10 x 10."""
    rows = ["image,class,xmin,ymin,xmax,ymax"]
    for number in range(15):
        image = np.full((48, 64, 3), 20 + 10 * number, np.uint8)
        y, x = 2 + 2 * number, 50 - 3 * number
        image[y : y + 10, x : x + 10] = 255
        write_png(tmp_path / "images" / f"smear{number:02}.png", image)
        rows += [f"smear{number:02},WBC,{x},{y},{x + 10},{y + 10}", f"smear{number:02},RBC,0,0,5,5"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    return {"root": str(tmp_path), "scale": 1, "piece": 16, "pieces": 6, "cut": 24, "crop": 12, "margin": 6}


def test_a_mosaic_keeps_a_datasets_promises(smears: dict[str, Any]) -> None:
    keeps_promises("blood-mosaic", **smears)
    keeps_promises("blood-mosaic", **smears | {"scale": 0.5, "piece": 10})


def test_every_cell_is_in_one_field_and_nowhere_else(smears: dict[str, Any]) -> None:
    dataset = build("blood-mosaic", **smears, whole_images=list(SPLITS))
    greys: dict[str, set[int]] = {}
    for split, cells in zip(SPLITS, (9, 3, 3), strict=True):
        samples = list(dataset.samples(split))
        assert sum(len(sample.boxes[0]) for sample in samples) == cells
        shown = np.rint(255 * np.concatenate([np.unique(sample.image) for sample in samples])).astype(int)
        greys[split] = set(shown) - {255}
        for sample in samples:
            assert sample.image.shape == (3, 96, 96)
            assert 1 <= len(sample.boxes[0]) <= 10
            white = np.zeros((96, 96), bool)
            for (y0, x0, y1, x1), point in zip(sample.boxes[0].astype(int), sample.points[0], strict=True):
                white[y0:y1, x0:x1] = True
                assert point.tolist() == [(y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2]
                assert (y0 // 16, x0 // 16) == ((y1 - 1) // 16, (x1 - 1) // 16)  # whole, in one piece
            np.testing.assert_array_equal(sample.image[0] == 1, white)
    assert not greys["train"] & greys["test"]
    assert not greys["train"] & greys["valid"]
    assert not greys["valid"] & greys["test"]


def test_crops_of_a_mosaic(smears: dict[str, Any]) -> None:
    for sample in build("blood-mosaic", **smears, pu_ratio=None).samples("train"):
        assert sample.image.shape == (3, 12, 12)
        assert bool((sample.image == 1).any()) == sample.labels[0]


def test_shares_of_a_mosaic(smears: dict[str, Any]) -> None:
    dataset = build("blood-mosaic", **smears, valid=0)
    assert [len(dataset.samples(split)) > 0 for split in SPLITS] == [True, False, True]
    with pytest.raises(ConfigError, match="valid 0.6 and test 0.4 leave nothing for training"):
        build("blood-mosaic", **smears, valid=0.6, test=0.4)


def test_pieces_that_are_too_small_or_too_large_are_refused(smears: dict[str, Any]) -> None:
    for piece in (8, 60):
        with pytest.raises(DataError, match="set another size of pieces, or another scale"):
            build("blood-mosaic", **smears | {"piece": piece}).info()


def test_a_mosaic_of_real_smears(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICRAFRAME_DATA", str(data))
    dataset = build("blood-mosaic", pieces=8, pu_ratio="1:2")
    crops = len(dataset.samples("train"))
    assert crops % 3 == 0
    assert crops > 300
    test = dataset.samples("test")
    assert 10 < len(test) < 25
    assert test[0].image.shape == (3, 512, 512)
    assert 1 <= len(test[0].points[0]) <= 10
