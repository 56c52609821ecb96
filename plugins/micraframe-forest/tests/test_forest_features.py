from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micraframe_forest.features import FILTERS, SIGMAS, bands, features, kernel, names, reach
from scipy import ndimage


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def oracle(plane, sigma):
    """Return the eight responses by scipy.ndimage's own Gaussian filters, in double precision."""
    plane = plane.astype(np.float64)

    def gaussian(image, sigma, order=0):
        return ndimage.gaussian_filter(image, sigma, order, mode="mirror", truncate=6)

    y, x = gaussian(plane, sigma, (1, 0)), gaussian(plane, sigma, (0, 1))
    hessian = [gaussian(plane, sigma, order) for order in ((2, 0), (1, 1), (1, 1), (0, 2))]
    tensor = [gaussian(product, sigma / 2) for product in (y * y, y * x, y * x, x * x)]
    eigen = [
        np.linalg.eigvalsh(np.stack(one, axis=-1).reshape(*plane.shape, 2, 2))[..., ::-1] for one in (tensor, hessian)
    ]
    return [
        gaussian(plane, sigma),
        ndimage.gaussian_laplace(plane, sigma, mode="mirror", truncate=6),
        np.hypot(y, x),
        gaussian(plane, sigma) - gaussian(plane, 0.66 * sigma),
        *(one[..., index] for one in eigen for index in (0, 1)),
    ]


@pytest.mark.parametrize("sigma", [1.0, 1.6, 3.5, 5.0])
def test_features_are_scipys(sigma):
    # Slightly smoothed, as microscopy images are: on white noise, scipy's own kernels are poor derivatives.
    plane = ndimage.gaussian_filter(noise(90, 77), 1.0)
    found = features(plane[None], [sigma])
    for name, one, expected in zip(FILTERS, found, oracle(plane, sigma), strict=True):
        np.testing.assert_allclose(one, expected, atol=0.03 * np.ptp(expected), rtol=0, err_msg=name)
        assert np.corrcoef(one.ravel(), expected.ravel())[0, 1] > 0.999, name


@pytest.mark.parametrize("sigma", SIGMAS)
def test_polynomials_give_exact_derivatives(sigma):
    y, x = np.mgrid[-90:91, -90:91].astype(np.float32)
    middle = (90, 90)

    def at(image):
        return dict(
            zip(FILTERS, features(image[None].astype(np.float32), [sigma])[(slice(None), *middle)], strict=True)
        )

    ramp = at(3 * y + 4 * x)
    assert ramp["gradient-magnitude"] == pytest.approx(5, rel=1e-4)
    assert ramp["structure-tensor-1"] == pytest.approx(25, rel=1e-4)
    assert ramp["structure-tensor-2"] == pytest.approx(0, abs=1e-3)
    assert ramp["laplacian"] == pytest.approx(0, abs=1e-3)
    bowl = at(1.5 * y**2 + x**2)
    assert bowl["laplacian"] == pytest.approx(5, rel=1e-3)
    assert (bowl["hessian-1"], bowl["hessian-2"]) == pytest.approx((3, 2), rel=2e-3)
    assert bowl["gradient-magnitude"] == pytest.approx(0, abs=1e-2)


@given(st.floats(0.2, 12), st.integers(0, 2))
def test_kernels_have_the_moments_of_derivatives(sigma, order):
    values = kernel(sigma, order).astype(np.float64)
    x = np.arange(len(values)) - len(values) // 2
    factorial = (1, 1, 2)[order]
    for power in range(order):
        assert (values * x**power).sum() == pytest.approx(0, abs=1e-4)
    assert (values * x**order).sum() == pytest.approx(factorial, rel=1e-4)


def test_a_flat_image_has_no_edges():
    found = features(np.full((1, 33, 20), 1000, np.float32))
    for name, one in zip(names(1), found, strict=True):
        np.testing.assert_allclose(one, 1000 if name.startswith("gaussian") else 0, atol=2e-3, err_msg=name)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3))
def test_any_size_turned_is_its_features_turned(height, width, channels):
    image = noise(channels, height, width)
    found = features(image)
    assert found.shape == (len(names(channels)), height, width)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(features(image.transpose(0, 2, 1)), found.transpose(0, 2, 1), atol=1e-5)
    for channel in range(channels):
        assert features(image[[channel]]).tobytes() == np.split(found, channels)[channel].tobytes()


@pytest.mark.parametrize("values", [1, 1_000_000])
def test_bands_are_the_whole(values):
    image = noise(2, 301, 45)
    parts = list(bands(image, SIGMAS, values))
    assert len(parts) > 1
    assert np.concatenate(parts, axis=1).tobytes() == features(image).tobytes()


@pytest.mark.parametrize("sigma", SIGMAS)
def test_reach(sigma):
    image = np.zeros((1, 1, 151), np.float32)
    image[..., 75] = 1
    touched = np.flatnonzero(features(image, [sigma]).any(axis=(0, 1)))
    assert np.ptp(touched) // 2 <= reach([sigma])
    assert reach([sigma]) < 75


def test_names():
    assert names(1)[:2] == ("gaussian 0.3", "laplacian 0.3")
    assert len(set(names(1))) == 56
    assert names(2, [1.6])[9] == "channel 1: laplacian 1.6"
