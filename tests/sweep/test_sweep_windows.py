from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.errors import ConfigError
from micraframe.sweep.windows import lay_windows, probability_map, reduce_spans

layouts = st.builds(
    lay_windows,
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    stride=st.sampled_from([1, 2, 4]),
    window=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    overlap=st.floats(0, 0.9),
    tile=st.integers(1, 50),
)


@given(layouts)
def test_windows_cover_everything_and_the_last_is_flush(layout):
    for axis in layout:
        assert axis.stride * (axis.cells - 1) < axis.pixels <= axis.stride * axis.cells
        assert axis.windows[0, 0] == 0
        assert axis.windows[-1, 1] == axis.cells
        assert (np.diff(axis.windows[:, 0]) > 0).all()
        assert (np.diff(axis.windows[:, 0]) <= axis.step).all()
        assert (axis.windows[1:, 0] <= axis.windows[:-1, 1]).all()
        assert (np.diff(axis.windows, axis=1) == axis.window).all()
        assert axis.tiles[0, 0] == 0
        assert (axis.tiles[1:, 0] == axis.tiles[:-1, 1]).all()
        assert sum(len(axis.starting_in(tile)) for tile in range(len(axis.tiles))) == len(axis.windows)


@given(layouts)
def test_windows_and_tiles_consist_of_whole_segments(layout):
    for axis in layout:
        for spans in (axis.windows, axis.tiles):
            assert np.array_equal(axis.cuts[axis.segments(spans)], spans)


@given(layouts, st.integers(0, 2**32 - 1))
def test_map_is_the_mean_over_windows_that_contain_a_pixel(layout, seed):
    rows, columns = layout
    generator = np.random.default_rng(seed)
    probabilities = generator.random((len(rows.windows), len(columns.windows), 2), np.float32)
    total = np.zeros((2, rows.cells, columns.cells))
    count = np.zeros((rows.cells, columns.cells))
    for i, (top, bottom) in enumerate(rows.windows):
        for j, (left, right) in enumerate(columns.windows):
            total[:, top:bottom, left:right] += probabilities[i, j, :, None, None]
            count[top:bottom, left:right] += 1
    mean = total / count
    expected = [
        [mean[:, y : y + rows.step, x : x + columns.step].mean((1, 2)) for x in range(0, columns.cells, columns.step)]
        for y in range(0, rows.cells, rows.step)
    ]
    np.testing.assert_allclose(
        probability_map(probabilities, rows, columns), np.moveaxis(np.array(expected), -1, 0), atol=1e-6
    )


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), min_size=1), st.integers(0, 99))
def test_each_range_is_reduced_by_itself(spans, seed):
    values = np.random.default_rng(seed).normal(size=(17, 3)).astype(np.float32)
    runs = np.array([(first, first + length) for first, length in spans])
    maxima = reduce_spans(values, runs, np.maximum)
    assert np.array_equal(maxima, np.stack([values[a:b].max(0) for a, b in runs]))
    sums = reduce_spans(values, runs, np.add)
    np.testing.assert_allclose(sums, np.stack([values[a:b].sum(0) for a, b in runs]), atol=1e-5)


def test_paper_layout():
    rows, columns = lay_windows((1024, 700), 8, (256, 256), 0.75, 512)
    assert rows.step * 8 == 64
    assert len(rows.windows) == (1024 - 256) // 64 + 1
    assert columns.cells == 88
    assert columns.windows[-1].tolist() == [56, 88]


@pytest.mark.parametrize(("window", "overlap", "tile"), [((0, 8), 0.5, 8), ((8, 8), 1.0, 8), ((8, 8), 0.5, 0)])
def test_impossible_layouts_are_rejected(window, overlap, tile):
    with pytest.raises(ConfigError, match="expected a window and a tile"):
        lay_windows((64, 64), 8, window, overlap, tile)
