"""How images are cut into tiles, and how the scores of the tiles are merged."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from micraframe.interfaces import ScoredTile
from micraframe.tiling import ALIGNMENT, Tiling, lay, stitch
from micraframe.types import Scores

TILINGS = st.tuples(st.integers(64, 300), st.integers(0, 100)).filter(lambda t: t[0] - 2 * t[1] >= ALIGNMENT)


@given(st.integers(1, 2000), TILINGS)
def test_every_pixel_is_used_once_and_no_nearer_to_an_inner_edge_than_the_halo(side, tiling):
    tiling = Tiling(size=tiling[0], halo=tiling[1])
    tiles = lay(side, tiling)
    used = [pixel for _, span in tiles for pixel in range(*span)]
    assert used == list(range(side))
    for (first, last), (start, end) in tiles:
        assert first % ALIGNMENT == 0
        assert last - first < tiling.size + ALIGNMENT
        assert start - first >= tiling.halo or start == first == 0
        assert last - end >= tiling.halo or end == last == side
    assert len(tiles) == 1 or all(last - first >= tiling.size for (first, last), _ in tiles)
    assert tiling.cuts((1, side)) == (len(tiles) > 1)


def tile(column: int, status: str, coarse: bool = True) -> ScoredTile:
    """Return the scores of a tile of 4 x 4 pixels, which has one class of three; presence grows to the right."""
    maps = np.full((1, 4, 4), column / 2, np.float32)
    span = (4 * column, 4 * column + 4)
    presence = np.full(3, (column + 1) / 4, np.float32)
    return ScoredTile((0, 4), span, (0, 4), span, Scores(presence, (2,), maps, (status,), maps if coarse else None))


@pytest.mark.parametrize(
    ("status", "expected"),
    [(("empty", "ok"), "ok"), (("ok", "empty"), "ok"), (("constant", "empty"), "constant")],
)
def test_a_class_is_ok_where_any_tile_is(status, expected):
    merged = stitch([tile(column, one) for column, one in enumerate(status)], (4, 8))
    assert (merged.classes, merged.status) == ((2,), (expected,))
    assert merged.maps[0, 0].tolist() == [0] * 4 + [0.5] * 4
    assert merged.presence.tolist() == [0.5] * 3


def test_there_is_a_coarse_map_if_all_tiles_with_a_class_have_one():
    nothing = dataclasses.replace(tile(1, "ok"), scores=Scores.without_maps(np.zeros(3, np.float32), (4, 4)))
    assert stitch([tile(0, "ok"), tile(1, "ok")], (4, 8)).coarse is not None
    assert stitch([tile(0, "ok"), nothing], (4, 8)).coarse is not None
    assert stitch([tile(0, "ok", coarse=False), nothing], (4, 8)).coarse is None
    assert stitch([tile(0, "ok"), tile(1, "ok", coarse=False)], (4, 8)).coarse is None


@pytest.mark.parametrize("params", [{"size": 31}, {"size": 128, "halo": 49}, {"halo": -1}, {"size": 96, "halos": 3}])
def test_tiles_that_leave_nothing_to_use_are_refused(params):
    with pytest.raises(ValidationError):
        Tiling(**params)


def test_tiles_overlap_by_twice_the_halo():
    spans = [tile for tile, _ in lay(700, Tiling(size=256, halo=32))]
    assert all(one[1] - other[0] >= 64 for one, other in itertools.pairwise(spans))


@given(st.integers(ALIGNMENT, 2000))
def test_tiles_of_any_size_have_a_halo_that_leaves_used_pixels(size):
    tiling = Tiling(size=size)
    assert tiling.step >= ALIGNMENT
    assert tiling.halo == min(64, size // 4) or (size < 64 and tiling.halo == (size - ALIGNMENT) // 2)
    assert Tiling.model_validate(tiling.model_dump()) == tiling
