"""Nested grids against the stack of upsampled layers that they stand for."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from micraframe.combiners.pyramid import pixels, pyramid, sum_runs, visible
from micraframe.types import Layer, Maps
from micraframe.upsampling import upsample


@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.booleans(),
)
def test_each_level_is_its_layers_at_every_pixel(size, strides, ceil):
    generator = np.random.default_rng(0)
    layers = tuple(Layer(str(index), 1, stride) for index, stride in enumerate(strides))
    arrays = tuple(
        generator.random((2, *(-(-n // stride) + 1 if ceil else max(n // stride, 1) for n in size)), np.float32)
        for stride in strides
    )
    maps = Maps(size, (0, 1), layers, arrays, np.zeros(2, np.float32))
    levels = pyramid(layers, [visible(maps, index) for index in range(len(layers))], size)
    expanded = np.concatenate([grid.spread(values, pixels(size)) for grid, values in levels], axis=1)
    for index, (layer, array) in enumerate(zip(layers, arrays, strict=True)):
        np.testing.assert_array_equal(expanded[:, index], upsample(array, size, layer.stride))
    for (grid, values), (deeper, _) in itertools.pairwise(levels):
        areas = np.multiply.outer(grid.heights, grid.widths)
        sums = grid.sums(values.astype(np.float64) * areas, deeper)
        whole = grid.spread(values, pixels(size)).astype(np.float64)
        expected = np.add.reduceat(np.add.reduceat(whole, deeper.rows, axis=-2), deeper.columns, axis=-1)
        np.testing.assert_allclose(sums, expected)


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, max(n - 1, 1))))))
def test_runs_are_summed(case):
    length, inner = case
    starts = np.array([0, *sorted(start for start in inner if start < length)])
    values = np.random.default_rng(0).random((2, length))
    np.testing.assert_allclose(sum_runs(values, starts), np.add.reduceat(values, starts, axis=-1))
