from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.runtime.tables import write_csv
from micraframe.sweep.proposals import (
    PROMINENCE,
    Proposal,
    basins,
    in_common,
    propose,
    write_geojson,
)


def tent(shape, y, x, height, side=4):
    """Return the map of one object, which decreases linearly, like the number of windows that contain it."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    fall = np.maximum(1 - np.abs(rows - y) / side, 0) * np.maximum(1 - np.abs(columns - x) / side, 0)
    return (height * fall).astype(np.float32)


def test_objects_are_ranked_by_their_peaks():
    plane = tent((30, 40), 5, 6, 0.7) + tent((30, 40), 20, 30, 0.95)
    other = tent((30, 40), 12, 12, 0.8)
    found = propose(np.stack([plane, other]), ("a", "b"), 8, (236, 320), threshold=0.5)
    assert [(one.rank, one.class_) for one in found] == [(1, "a"), (2, "b"), (3, "a")]
    assert [round(one.score, 2) for one in found] == [0.95, 0.8, 0.7]
    best = found[0]
    assert best.x <= 30 * 8 < best.x + best.width
    assert best.y <= 20 * 8 < best.y + best.height


def test_touching_objects_are_separated_and_noise_is_not():
    plane = np.maximum(tent((30, 40), 15, 10, 1, 9), tent((30, 40), 15, 21, 0.9, 9))
    assert plane[15, 10:22].min() > 0.35
    assert basins(plane, 0.35).max() == 2
    noisy = np.clip(plane + np.random.default_rng(0).uniform(0, 0.9 * PROMINENCE, plane.shape), 0, 1)
    assert basins(noisy.astype(np.float32), 0.35).max() == 2


@pytest.mark.parametrize(("level", "count"), [(0.0, 0), (0.5, 1), (0.51, 1), (1.0, 1)])
def test_a_flat_map_is_one_proposal_or_none(level, count):
    found = propose(np.full((1, 6, 5), level, np.float32), ("a",), 10, (57, 50), threshold=0.5)
    assert len(found) == count
    assert all((one.x, one.y, one.width, one.height) == (0, 0, 50, 57) for one in found)


@given(st.integers(0, 999), st.floats(0.1, 1))
def test_basins_partition_the_region_above_the_threshold(seed, threshold):
    plane = np.random.default_rng(seed).random((9, 11), np.float32)
    regions = basins(plane, threshold)
    assert np.array_equal(regions > 0, plane >= threshold)
    assert set(np.unique(regions)) - {0} == set(range(1, regions.max() + 1))


def test_of_boxes_that_overlap_much_the_better_one_is_kept():
    # A wide ring around a peak: the box of the ring holds that of the peak.
    plane = np.full((21, 21), 0.6, np.float32)
    plane[1:-1, 1:-1] = 0
    plane[2:-2, 2:-2] = tent((17, 17), 8, 8, 0.9, 40)
    assert [round(one.score, 2) for one in propose(plane[None], ("a",), 4, (84, 84), threshold=0.5)] == [0.9]
    both = propose(plane[None], ("a",), 4, (84, 84), threshold=0.5, nms_iou=0.9)
    assert [round(one.score, 2) for one in both] == [0.9, 0.6]


def test_each_class_may_have_its_own_threshold():
    planes = np.stack([tent((30, 40), 5, 6, 0.7), tent((30, 40), 20, 30, 0.7)])
    found = propose(planes, ("a", "b"), 8, (240, 320), threshold=(0.8, 0.6))
    assert [one.class_ for one in found] == ["b"]


def test_pairs_have_one_class_and_are_near():
    one = [
        Proposal(1, "a", 0, 0, 10, 10, 1.0),
        Proposal(2, "a", 50, 50, 10, 10, 0.9),
        Proposal(3, "b", 0, 0, 9, 9, 0.8),
    ]
    other = [
        Proposal(1, "a", 4, 0, 10, 10, 1.0),
        Proposal(2, "a", 0, 4, 10, 10, 1.0),
        Proposal(3, "c", 0, 0, 9, 9, 0.8),
    ]
    assert in_common(one, other, 5) == 1
    assert in_common(one, other, 1) == 0
    assert in_common(one, one, 0) == 3
    assert in_common(one, [], 5) == 0


def test_files(tmp_path):
    proposals = [Proposal(1, "disc", 8, 16, 24, 32, 0.91234567), Proposal(2, "square", 0, 0, 8, 8, 0.6)]
    write_csv(tmp_path / "proposals.csv", proposals, Proposal)
    with (tmp_path / "proposals.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["rank", "class", "x", "y", "width", "height", "score"]
    assert list(rows[0].values()) == ["1", "disc", "8", "16", "24", "32", "0.91234567"]

    write_geojson(tmp_path / "proposals.geojson", proposals, ("disc", "square"))
    content = json.loads((tmp_path / "proposals.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    first, second = content["features"]
    assert first["geometry"]["coordinates"] == [[[8, 16], [32, 16], [32, 48], [8, 48], [8, 16]]]
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["classification"]["name"] == "disc"
    assert first["properties"]["measurements"] == {"rank": 1, "score": 0.91234567}
    assert first["properties"]["classification"]["color"] != second["properties"]["classification"]["color"]
    assert first["id"] != second["id"]
