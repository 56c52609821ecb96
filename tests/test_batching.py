"""A few of many samples."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from micraframe.batching import spread


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_spread_has_equal_distances(count: int, most: int) -> None:
    found = spread(range(count), most)
    assert len(found) == min(count, most)
    assert found == sorted(set(found))
    assert found[:1] == [0][: len(found)]
    steps = [second - first for first, second in itertools.pairwise([*found, count])] if found else [0]
    assert max(steps) - min(steps) <= 1
