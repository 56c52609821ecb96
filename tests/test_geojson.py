from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from micraframe.geojson import feature, outlines, write_features


def area(ring) -> float:
    x, y = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2


def crossings(ring, shape):
    """Return how many edges of a ring lie to the left of each pixel's centre: odd is inside."""
    inside = np.zeros(shape, int)
    for (x0, y0), (x1, y1) in itertools.pairwise(ring):
        if x0 == x1:
            inside[min(y0, y1) : max(y0, y1), x0:] += 1
    return inside % 2 == 1


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_polygons_cover_exactly_the_mask_with_simple_rings(mask):
    polygons = outlines(mask)
    covered = np.zeros(mask.shape, bool)
    for outer, *holes in polygons:
        polygon = crossings(outer, mask.shape)
        for hole in holes:
            polygon &= ~crossings(hole, mask.shape)
            assert area(hole) < 0
        assert area(outer) > 0
        assert not (covered & polygon).any()
        covered |= polygon
        for ring in (outer, *holes):
            assert ring[0] == ring[-1]
            assert len(set(ring)) == len(ring) - 1, "a ring does not touch itself"
            steps = np.diff(np.array([*ring, ring[1]]), axis=0) != 0
            assert (steps.sum(axis=1) == 1).all()
            assert (steps[1:] != steps[:-1]).all(), "only corners are listed"
    assert np.array_equal(covered, mask)
    assert len(polygons) == ndimage.label(mask)[1]


def test_a_window_of_an_image_has_the_images_coordinates():
    ((ring,),) = outlines(np.ones((1, 2), bool), (10, 20))
    assert set(ring) == {(20, 10), (22, 10), (22, 11), (20, 11)}


def test_a_file_has_a_class_a_colour_and_measurements_for_each_object(tmp_path):
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    two = np.zeros((5, 5), bool)
    two[0, 0] = two[4, 4] = True
    features = [
        feature(outlines(ring), "ring 1", (0, "ring"), {"area": 24, "score": float("nan")}),
        feature(outlines(two), "ring 2", (1, "dots"), {"area": 2.0}),
    ]
    write_features(tmp_path / "a.geojson", features)
    read = json.loads((tmp_path / "a.geojson").read_text())
    first, second = read["features"]
    assert first["geometry"]["type"] == "Polygon"
    assert len(first["geometry"]["coordinates"]) == 2
    assert first["properties"]["measurements"] == {"area": 24}
    assert first["properties"]["classification"] == {"name": "ring", "color": [230, 159, 0]}
    assert second["geometry"]["type"] == "MultiPolygon"
    assert first["id"] != second["id"]
    write_features(tmp_path / "none.geojson", [])
    assert json.loads((tmp_path / "none.geojson").read_text())["features"] == []
    assert outlines(np.zeros((3, 3), bool)) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_a_full_mask_is_one_rectangle(size):
    ((ring,),) = outlines(np.ones(size, bool))
    assert area(ring) == size[0] * size[1]
    assert len(ring) == 5
