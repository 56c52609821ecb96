from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from micraframe.datasets.crops import BETWEEN, NEGATIVE, POSITIVE, grid, judge


@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    crop=st.integers(1, 30),
    data=st.data(),
)
def test_crops_cover_every_pixel_and_none_beyond(size: tuple[int, int], crop: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, crop))
    windows = grid(size, crop, stride)
    covered = np.zeros(size, int)
    for window in windows:
        part = covered[window.place]
        assert part.shape == (min(crop, size[0]), min(crop, size[1])) == (window.height, window.width)
        part += 1
    assert covered.min() == 1 or stride < crop
    assert covered.all()
    assert len(set(windows)) == len(windows)


def test_a_grid_that_fits_is_plain() -> None:
    assert [(w.y, w.x) for w in grid((4, 6), 2, 2)] == [(0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4)]
    assert [(w.y, w.x) for w in grid((5, 2), 2, 2)] == [(0, 0), (2, 0), (3, 0)]


@given(
    masks=hnp.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))),
    least=st.floats(0, 40),
)
def test_the_rule_for_labels(masks: np.ndarray, least: float) -> None:
    for mask, answer in zip(masks, judge(masks, [least] * len(masks)), strict=True):
        pixels = sum(int(value) for row in mask.tolist() for value in row)
        if pixels == 0:
            assert answer == NEGATIVE
        else:
            assert answer == (POSITIVE if pixels >= least else BETWEEN)
