"""The deepest layer alone."""

from __future__ import annotations

import numpy as np
import pytest

from micraframe.combiners.last_layer import LastLayer
from micraframe.combiners.layers import coarse_map
from micraframe.types import Layer, Maps
from micraframe.upsampling import upsample

DEEPEST = np.array([[[1, -2], [0.5, 4]], [[0, 0], [0, 0]], [[-1, 0], [-2, -3]]], np.float32)
MAPS = Maps(
    (9, 8),
    (0, 1, 2),
    (Layer("shallow", 1, 1), Layer("deepest", 1, 4)),
    (np.ones((3, 9, 8), np.float32), DEEPEST),
    np.zeros(3, np.float32),
)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_it_is_rectified_divided_by_its_maximum_and_upsampled(interpolation):
    result = LastLayer(LastLayer.Params(interpolation=interpolation)).combine(MAPS, np.zeros((1, 9, 8), np.float32))
    assert result.status == ("ok", "empty", "negative")
    relative = np.array([[[0.25, 0], [0.125, 1]]], np.float32)
    np.testing.assert_array_equal(result.maps[:1], upsample(relative, (9, 8), 4, interpolation))
    np.testing.assert_array_equal(coarse_map(MAPS)[:1], upsample(relative, (9, 8), 4))
    assert not result.maps[1:].any()
    assert not coarse_map(MAPS)[1:].any()
