from __future__ import annotations

import numpy as np
import pytest

from micraframe.sweep.tiles import SweepMeasurements, TileStore, forget_others
from micraframe.types import Normalisation

VALUES = np.random.default_rng(0).random((5, 7, 3), np.float32)


def test_kept_tiles_are_loaded(tmp_path):
    tiles = TileStore(tmp_path / "tiles")
    assert tiles.load("dense", 0, 1) is None
    assert tiles.measured() == SweepMeasurements()
    tiles.keep("dense", 0, 1, VALUES, 1.5)
    values, seconds = tiles.load("dense", 0, 1)
    assert np.array_equal(values, VALUES)
    assert seconds == 1.5
    measured = SweepMeasurements(Normalisation("fixed", offset=(0.1,), scale=(1 / 3,), clip=True), 7, 0.25)
    tiles.keep_measured(measured)
    assert tiles.measured() == measured


@pytest.mark.parametrize("keep", [0, 1, 30, 100, 300, -1])
def test_a_file_cut_short_is_deleted(tmp_path, keep):
    tiles = TileStore(tmp_path)
    tiles.keep("exact", 2, 3, VALUES, 1)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:keep])
    assert tiles.load("exact", 2, 3) is None
    assert not list(tmp_path.iterdir())


def test_a_file_with_a_wrong_byte_is_deleted(tmp_path):
    tiles = TileStore(tmp_path)
    tiles.keep("exact", 2, 3, VALUES, 1)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    assert tiles.load("exact", 2, 3) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"reach": "far"}'])
def test_damaged_measurements_are_made_again(tmp_path, content):
    (tmp_path / "measured.json").write_text(content)
    assert TileStore(tmp_path).measured() == SweepMeasurements()


def test_only_files_of_a_sweep_are_forgotten(tmp_path):
    kept, other, shared = (TileStore(tmp_path / (letter * 16)) for letter in "abc")
    for tiles in (kept, other, shared):
        tiles.keep("dense", 0, 0, VALUES, 1)
        tiles.keep_measured(SweepMeasurements())
    (other.folder / ".dense-0-1.x1y_2z.npz").touch()
    (shared.folder / "notes.txt").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dense-0-0.npz").touch()
    forget_others(kept.folder)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    a, c = "a" * 16, "c" * 16
    assert left == [f"{a}/dense-0-0.npz", f"{a}/measured.json", f"{c}/notes.txt", "mine/dense-0-0.npz"]
    assert not other.folder.exists()
