"""Upsampling that keeps a cell over the pixels it saw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from micraframe import registry
from micraframe.classifier import create_classifier
from micraframe.upsampling import cells, upsample


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.booleans())
def test_nearest_is_the_value_of_the_pixels_cell(height, width, stride, ceil):
    rows, columns = ((-(-n // stride) if ceil else max(n // stride, 1)) for n in (height, width))
    maps = np.random.default_rng(0).random((2, rows, columns), np.float32)
    expected = np.empty((2, height, width), np.float32)
    for y in range(height):
        for x in range(width):
            expected[:, y, x] = maps[:, min(y // stride, rows - 1), min(x // stride, columns - 1)]
    found = upsample(maps, (height, width), stride)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_what_is_left_over_belongs_to_the_last_cell_and_shifts_nothing():
    assert cells(7, 3, 2).tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert cells(5, 4, 2).tolist() == [0, 0, 1, 1, 2]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 8))
def test_bilinear_keeps_a_plane_between_the_outermost_middles(height, width, stride):
    rows, columns = max(height // stride, 1), max(width // stride, 1)

    def middles(count: int) -> np.ndarray:
        return np.arange(count) * stride + (stride - 1) / 2

    maps = (2 * middles(rows)[:, None] + 3 * middles(columns)).astype(np.float32)[None]
    y, x = (np.clip(np.arange(n), middles(m)[0], middles(m)[-1]) for n, m in ((height, rows), (width, columns)))
    found = upsample(maps, (height, width), stride, "bilinear")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], 2 * y[:, None] + 3 * x, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("backbone", [("unet-encoder", {"widths": [2, 2, 2, 2]}), ("timm", {"model": "resnet10t"})])
def test_an_impulse_stays_where_it_is(backbone):
    name, params = backbone
    classifier = create_classifier(registry.build("backbone", name, **params), 1, 1)
    for module in classifier.modules():  # filters that are flat and positive, so that responses are symmetric
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    explain = registry.build("extractor", "grad-cam").prepare(classifier)
    size = (187, 170)
    for y, x in np.random.default_rng(0).integers(70, 100, (8, 2)):
        image = np.zeros((1, 1, *size), np.float32)
        image[0, 0, y, x] = 1
        maps = explain(image, lambda presence: (0,))[0]
        for layer, values in zip(maps.layers, maps.maps, strict=True):
            for interpolation in ("nearest", "bilinear"):
                pixels = upsample(values, size, layer.stride, interpolation)[0].astype(np.float64)
                centre = [
                    np.average(np.arange(n), weights=pixels.sum(axis)) for n, axis in zip(size, (1, 0), strict=True)
                ]
                assert np.abs(np.subtract(centre, (y, x))).max() <= layer.stride / 2
