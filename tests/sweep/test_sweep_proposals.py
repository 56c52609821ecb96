from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.sweep.proposals import (
    PROMINENCE,
    Proposal,
    basins,
    in_common,
    propose,
    suppress,
    write_geojson,
    write_table,
)


def tent(shape, y, x, height, side=4):
    """Return what one object leaves in a map: windows that contain it fall off linearly."""
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


def test_touching_objects_are_told_apart_and_noise_is_not():
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
def test_basins_share_out_what_is_above_the_threshold(seed, threshold):
    plane = np.random.default_rng(seed).random((9, 11), np.float32)
    regions = basins(plane, threshold)
    assert np.array_equal(regions > 0, plane >= threshold)
    assert set(np.unique(regions)) - {0} == set(range(1, regions.max() + 1))


@given(st.integers(0, 999), st.floats(0, 1))
def test_suppression_keeps_the_best_of_those_that_overlap(seed, overlap):
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 20, (12, 2))
    boxes = np.concatenate([corners, corners + generator.integers(1, 10, (12, 2))], 1)
    scores = generator.random(12)

    def iou(i, j):
        shared = np.prod(np.maximum(np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2]), 0))
        areas = [np.prod(boxes[n, 2:] - boxes[n, :2]) for n in (i, j)]
        return shared / (sum(areas) - shared)

    kept = suppress(boxes, scores, overlap)
    assert all(iou(i, j) <= overlap for i in kept for j in kept if i != j)
    for lost in set(range(12)) - set(kept):
        assert any(scores[k] >= scores[lost] and iou(k, lost) > overlap for k in kept)


def test_pairs_are_of_one_class_and_near():
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
    write_table(tmp_path / "proposals.csv", proposals)
    with (tmp_path / "proposals.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["rank", "class", "x", "y", "width", "height", "score"]
    assert list(rows[0].values()) == ["1", "disc", "8", "16", "24", "32", "0.912346"]

    write_geojson(tmp_path / "proposals.geojson", proposals, ("disc", "square"))
    told = json.loads((tmp_path / "proposals.geojson").read_text())
    assert told["type"] == "FeatureCollection"
    first, second = told["features"]
    assert first["geometry"]["coordinates"] == [[[8, 16], [32, 16], [32, 48], [8, 48], [8, 16]]]
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["classification"]["name"] == "disc"
    assert first["properties"]["measurements"] == {"rank": 1, "score": 0.91234567}
    assert first["properties"]["classification"]["color"] != second["properties"]["classification"]["color"]
    assert first["id"] != second["id"]
