from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_files import rows_of

from micraframe.runtime.tables import write_csv
from micraframe.sweep.proposals import PROMINENCE, Proposal, in_common, propose, write_geojson


def tent(shape, y, x, height, side=4):
    """Return the map of one object, which decreases linearly, like the number of windows that contain it."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    fall = np.maximum(1 - np.abs(rows - y) / side, 0) * np.maximum(1 - np.abs(columns - x) / side, 0)
    return (height * fall).astype(np.float32)


def boxes_of(found):
    return np.array([(one.y, one.x, one.y + one.height, one.x + one.width) for one in found]).reshape(-1, 4)


def test_objects_are_ranked_by_the_mean_of_the_map_around_them():
    plane = tent((30, 40), 5, 6, 0.7) + tent((30, 40), 20, 30, 0.95)
    other = tent((30, 40), 12, 12, 0.8)
    found = propose(np.stack([plane, other]), ("a", "b"), 8, (236, 320), (24, 24), threshold=0.5)
    assert [(one.rank, one.class_) for one in found] == [(1, "a"), (2, "b"), (3, "a")]
    # Along either axis, the tent is 1 in the middle and 3/4 on both sides.
    assert [one.score for one in found] == pytest.approx([peak * (5 / 6) ** 2 for peak in (0.95, 0.8, 0.7)])
    assert boxes_of(found).tolist()[0] == [19 * 8, 29 * 8, 22 * 8, 32 * 8]


@pytest.mark.parametrize(("level", "count"), [(0.0, 0), (0.5, 6), (0.51, 6), (1.0, 6)])
def test_a_flat_map_is_covered_by_boxes_or_has_none(level, count):
    found = propose(np.full((1, 6, 4), level, np.float32), ("a",), 10, (57, 40), (20, 20), threshold=0.5)
    assert len(found) == count
    covered = np.zeros((57, 40), int)
    for top, left, bottom, right in boxes_of(found):
        covered[top:bottom, left:right] += 1
    assert (covered == (count > 0)).all()


def test_a_window_larger_than_the_image_gives_one_box():
    found = propose(np.full((1, 6, 5), 0.8, np.float32), ("a",), 10, (57, 50), (100, 100))
    assert boxes_of(found).tolist() == [[0, 0, 57, 50]]


def slow(plane, block, size, window, threshold):
    """Take the best box that is left, one after another."""
    height, width = (min(-(-side // block), cells) for side, cells in zip(window, plane.shape, strict=True))
    candidates = {}
    for row, column in np.argwhere(plane >= threshold).tolist():
        top = min(max(row - height // 2, 0), plane.shape[0] - height)
        left = min(max(column - width // 2, 0), plane.shape[1] - width)
        near = plane[
            max(0, row - height // 2) : row + height // 2 + 1, max(0, column - width // 2) : column + width // 2 + 1
        ]
        if plane[row, column] < near.max() - PROMINENCE:
            continue
        mean = plane[top : top + height, left : left + width].mean(dtype=np.float64)
        candidates[top, left] = (mean, max(plane[row, column], candidates.get((top, left), (0, 0))[1]))
    taken = []
    while candidates:
        top, left = max(candidates, key=lambda place: candidates[place])
        taken.append([top * block, left * block, (top + height) * block, (left + width) * block])
        for y, x in list(candidates):
            if abs(y - top) < height and abs(x - left) < width:
                del candidates[y, x]
    return np.minimum(np.array(taken).reshape(-1, 4), [*size, *size])


@given(st.integers(0, 999), st.floats(0, 1), st.tuples(st.integers(1, 60), st.integers(1, 60)), st.integers(1, 12))
def test_boxes_are_taken_greedily_and_never_overlap(seed, threshold, window, rows):
    plane = np.random.default_rng(seed).random((rows, 11), np.float32)
    size = (rows * 10 - 3, 110)
    boxes = boxes_of(propose(plane[None], ("a",), 10, size, window, threshold))
    assert sorted(boxes.tolist()) == sorted(slow(plane, 10, size, window, np.float32(threshold)).tolist())
    covered = np.zeros(size, int)
    for top, left, bottom, right in boxes:
        covered[top:bottom, left:right] += 1
    assert covered.max() <= 1


def test_the_flank_of_an_object_is_no_proposal():
    found = propose(tent((30, 40), 1, 9, 1, 8)[None], ("a",), 8, (240, 320), (32, 32), threshold=0.2)
    assert boxes_of(found).tolist() == [[0, 56, 32, 88]]


def test_an_object_larger_than_a_window_has_one_box_and_a_section_many():
    plane = np.zeros((1, 30, 60), np.float32)
    plane[0, 2:9, 3:12] = 0.9  # 7 x 9 blocks, where a window has 3 x 3
    plane[0, 20:22, 40:42] = 0.8  # smaller than a window
    size, window = (240, 480), (24, 24)
    several = propose(plane, ("a",), 8, size, window)
    assert len(several) > 2
    first, second = propose(plane, ("a",), 8, size, window, largest=3)
    assert boxes_of([first]).tolist() == [[2 * 8, 3 * 8, 9 * 8, 12 * 8]]
    assert first.score == pytest.approx(0.9)
    assert second == dataclasses.replace(several[-1], rank=2)
    assert propose(plane, ("a",), 8, size, window, largest=2.9) == several
    section = np.full((1, 30, 60), 0.9, np.float32)
    assert propose(section, ("a",), 8, size, window, largest=3) == propose(section, ("a",), 8, size, window)


def test_a_narrow_object_gets_a_box_at_least_as_wide_as_a_window():
    plane = np.zeros((1, 12, 12), np.float32)
    plane[0, 0, 2:10] = 0.9
    found = propose(plane, ("a",), 10, (120, 120), (40, 40), largest=3)
    assert boxes_of(found).tolist() == [[0, 20, 40, 100]]


def test_each_class_may_have_its_own_threshold():
    planes = np.stack([tent((30, 40), 5, 6, 0.7), tent((30, 40), 20, 30, 0.7)])
    found = propose(planes, ("a", "b"), 8, (240, 320), (24, 24), threshold=(0.8, 0.6))
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
    rows = rows_of(tmp_path / "proposals.csv")
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
