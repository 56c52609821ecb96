"""What is pasted into an image agrees with an obvious version."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.erasing import paste, repeated


@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
def test_pasting_agrees_with_an_obvious_version(seed, channels, height, width):
    rng = np.random.default_rng(seed)
    image = rng.random((channels, height, width), np.float32)
    other = repeated(rng.random((channels, 3, 4), np.float32), (height, width))
    mask = rng.random((height, width)) < rng.random()
    pasted = paste(image, other, mask)
    assert pasted.dtype == np.float32
    outside = [place for place in np.ndindex(height, width) if not mask[place]]
    for channel, before, donor in zip(pasted, image, other, strict=True):
        shift = sum(before[place] - donor[place] for place in outside) / max(len(outside), 1)
        for y, x in np.ndindex(height, width):
            assert donor[y, x] == donor[y % 3, x % 4]
            assert channel[y, x] == pytest.approx(donor[y, x] + shift if mask[y, x] else before[y, x], abs=1e-5)
