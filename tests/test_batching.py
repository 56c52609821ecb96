"""Images with their results, and a few of many samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.batching import spread, with_images
from micraframe.errors import InterfaceError


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_spread_has_equal_distances(count: int, most: int) -> None:
    found = spread(range(count), most)
    assert len(found) == min(count, most)
    assert found == sorted(set(found))
    assert found[:1] == [0][: len(found)]
    steps = [second - first for first, second in itertools.pairwise([*found, count])] if found else [0]
    assert max(steps) - min(steps) <= 1


IMAGES = [np.full((1, 2, 2), number, np.float32) for number in range(5)]


def test_results_come_with_their_images_whatever_was_read_ahead() -> None:
    found = list(with_images(IMAGES, lambda images: iter([image.sum() for image in images]), "sums"))
    assert [(image is given, result) for given, (image, result) in zip(IMAGES, found, strict=True)] == [
        (True, 4.0 * number) for number in range(5)
    ]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (3, "sums: expected results for all images, got none for the last 2 images that it read"),
        (6, "sums: expected one result for each image, got more"),
    ],
)
def test_a_computation_with_too_few_or_too_many_results_is_named(results: int, message: str) -> None:
    with pytest.raises(InterfaceError, match=message):
        list(with_images(IMAGES, lambda images: iter(range(results * bool(list(images)))), "sums"))
