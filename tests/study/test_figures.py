"""Where a figure writes the numbers of methods."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from micraframe.study.report.figures import Box, place_labels

FRAME = Box(60, 50, 490, 350)


def placed(points: npt.ArrayLike, names: dict[int, str] | None = None) -> list[Box]:
    given, names = np.asarray(points, np.float64), names or {}
    texts = [f"{number}  {names.get(number, '')}".rstrip() for number in range(len(given))]
    return place_labels(given, texts, [number in names for number in range(len(given))], FRAME)


def overlapping(boxes: list[Box]) -> list[tuple[Box, Box]]:
    return [pair for pair in itertools.combinations(boxes, 2) if pair[0].covered([pair[1]]) > 1e-6]


# Near an edge, there is room for one column.
@pytest.mark.parametrize(("x", "count"), [(70, 20), (250, 25), (480, 20)])
@pytest.mark.parametrize(("low", "high"), [(180, 220), (345, 345), (60, 340)])
def test_numbers_of_many_methods_above_each_other_can_be_read(x, count, low, high):
    heights = np.linspace(low, high, count)
    points = np.stack([x + np.arange(count) % 3, heights], axis=1)
    boxes = placed(points)
    points_covered = [box.covered([Box(x - 4, y - 4, x + 4, y + 4) for x, y in points.tolist()]) for box in boxes]
    assert sum(points_covered) == 0
    assert not [box for box in boxes if box.outside(FRAME) > 1e-6]
    for side in (-1, 1):
        mine = [(box, height) for box, height in zip(boxes, heights, strict=True) if (box.left > x) == (side > 0)]
        assert not overlapping([box for box, _ in mine])
        # In the order of their points, so that no line crosses another.
        ordered = sorted(mine, key=lambda pair: -pair[0].top)
        assert [height for _, height in ordered] == sorted((height for _, height in mine), reverse=True)
    assert placed(points) == boxes


def test_names_are_not_covered_by_the_numbers_of_a_crowd():
    points = [*((200.0, 200.0 + number) for number in range(20)), (230.0, 210.0)]
    boxes = placed(points, {3: "best from labels", 20: "U-Net"})
    assert not overlapping(boxes)
    assert sum(box.outside(FRAME) for box in boxes) == pytest.approx(0)


def test_the_number_of_a_lone_method_is_beside_its_point():
    (box,) = placed([(250.0, 200.0)])
    assert max(abs(box.left - 250), abs(box.bottom - 200)) < 20


def test_more_numbers_than_fit_stay_inside():
    assert sum(box.outside(FRAME) for box in placed([(250.0, 200.0)] * 80)) == pytest.approx(0)
