from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from micraframe.sweep.intensities import fix, mean_and_deviation, passes, percentiles
from micraframe.types import Normalisation

values = nps.arrays(
    np.float32, st.tuples(st.integers(1, 2), st.integers(1, 40)), elements=st.floats(-1e6, 1e6, width=32)
)


def halves(image):
    """Return a function that passes over an image (C, H, W) in four parts."""
    y, x = image.shape[1] // 2, image.shape[2] // 3

    def parts():
        for rows in (slice(None, y), slice(y, None)):
            for columns in (slice(None, x), slice(x, None)):
                part = image[:, rows, columns]
                if part.size:
                    yield part

    return parts


@given(values, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_are_numpys(array, low, high):
    found = percentiles(lambda: iter(np.array_split(array, min(3, array.shape[1]), axis=1)), (low, high))
    np.testing.assert_allclose(found, np.percentile(array.astype(np.float64), (low, high), axis=1), atol=1e-6)


@given(values)
def test_moments_are_numpys(array):
    mean, deviation = mean_and_deviation(iter(np.array_split(array, min(3, array.shape[1]), axis=1)))
    np.testing.assert_allclose(mean, array.mean(1, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(deviation, array.std(1, dtype=np.float64), atol=1e-5)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("kind", ["none", "min-max", "percentile", "mean-sd", "fixed"])
def test_fixed_normalisation_of_parts_equals_that_of_the_whole(kind, clip, per_channel):
    image = np.random.default_rng(0).gamma(2, 300, (2, 33, 50)).round().astype(np.float32)
    image[1] += 1000
    normalisation = Normalisation(kind, per_channel, 2, 97, (5.0,), (300.0,), clip)
    fixed = fix(normalisation, halves(image))
    assert fixed.kind in ("fixed", "none")
    np.testing.assert_allclose(fixed.apply(image), normalisation.apply(image), atol=1e-6)


@pytest.mark.parametrize("kind", ["min-max", "percentile", "mean-sd"])
def test_a_constant_image_becomes_zero(kind):
    image = np.full((1, 8, 9), 7, np.float32)
    fixed = fix(Normalisation(kind), halves(image))
    np.testing.assert_allclose(fixed.apply(image), 0, atol=1e-12)


@pytest.mark.parametrize("kind", ["none", "min-max", "percentile", "mean-sd", "fixed"])
def test_the_number_of_passes_is_as_announced(kind):
    started = []
    parts = halves(np.ones((1, 8, 9), np.float32))
    fix(Normalisation(kind), lambda: started.append(kind) or parts())
    assert len(started) == passes(Normalisation(kind))
