from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micraframe_paper.metrics.lattice_fft import lost_share, period_band
from micraframe_paper.metrics.low_intensity import share_of

from micraframe import registry
from micraframe.errors import ConfigError, DataError
from micraframe.testing import check
from micraframe.types import Normalisation, Prediction, Sample, Scores

PIXEL = 0.02


def stripes(period_px, size=(96, 120)):
    """Return a lattice of that period in the left half, and a constant of the same brightness in the right half."""
    x = np.arange(size[1])
    row = np.where(x < size[1] // 2, 1 + np.cos(2 * np.pi * x / period_px), 1)
    return np.broadcast_to(row, size)[None].astype(np.float32)


def halves(size=(96, 120)):
    left = np.zeros((2, *size), bool)
    left[0, :, : size[1] // 2] = True
    left[1] = ~left[0]
    return left


def pair(image, true, predicted, **changes):
    labels = true.any(axis=(1, 2))
    truth = Sample("a", image, labels=labels, masks=true, pixel_size_um=PIXEL)
    presence = labels.astype(np.float32)
    prediction = Prediction(Scores(presence, (), np.zeros((0, *image.shape[1:]), np.float32)), labels, predicted)
    return prediction, dataclasses.replace(truth, **changes)


def measure(name, *args, params=None, **changes):
    return registry.build("metric", name, **(params or {})).measure(*pair(*args, **changes))


@pytest.mark.parametrize("name", ["lattice-fft", "low-intensity-share"])
def test_conformance(name):
    check("metric", name)


def test_conformance_with_a_band_that_small_images_have():
    check("metric", "lattice-fft", shortest_nm=1.0, longest_nm=1e9)
    check("metric", "low-intensity-share", threshold=0.5)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(4, 9), st.integers(4, 9))
def test_the_band_and_the_share_are_those_of_a_slow_fourier_transform(seed, height, width):
    generator = np.random.default_rng(seed)
    image = generator.random((2, height, width), np.float32)
    mask = generator.random((height, width)) < 0.5
    y, x = np.mgrid[:height, :width]

    def amplitude(values):
        total = 0.0
        for v in range(height):
            for u in range(width):
                # Frequencies in cycles per nanometre, the negative ones too.
                fy, fx = (((k + n // 2) % n - n // 2) / n / 20 for k, n in ((v, height), (u, width)))
                if fy == fx == 0 or not 60 <= 1 / math.hypot(fy, fx) <= 150:
                    continue
                wave = np.exp(-2j * np.pi * (v * y / height + u * x / width))
                total += sum(abs((plane * wave).sum()) for plane in values)
        return total

    whole, masked = amplitude(image.astype(np.float64)), amplitude((image * mask).astype(np.float64))
    found = lost_share(image, mask, period_band((height, width), 20.0, 60.0, 150.0))
    if whole == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx((whole - masked) / whole, abs=1e-9)


def test_a_mask_of_the_lattice_keeps_it_and_a_mask_beside_it_loses_it():
    image = stripes(0.185 / PIXEL)
    everything, left, right = np.ones((2, *image.shape[1:]), bool), halves()[[0, 0]], halves()[[1, 1]]
    assert measure("lattice-fft", image, everything, everything)["lattice_fft"] == pytest.approx([0, 0], abs=1e-6)
    assert (measure("lattice-fft", image, everything, left)["lattice_fft"] < 0.1).all()
    assert (measure("lattice-fft", image, everything, right)["lattice_fft"] > 0.8).all()
    nothing = np.zeros_like(everything)
    assert measure("lattice-fft", image, everything, nothing)["lattice_fft"] == pytest.approx([1, 1])


def test_the_error_compares_with_the_true_mask():
    image, masks = stripes(0.185 / PIXEL), halves()
    assert measure("lattice-fft", image, masks, masks)["lattice_fft_error"].tolist() == [0, 0]
    swapped = measure("lattice-fft", image, masks, masks[::-1])
    exact = measure("lattice-fft", image, masks, masks)["lattice_fft"]
    np.testing.assert_allclose(swapped["lattice_fft_error"], np.abs(exact[::-1] - exact), rtol=1e-5)
    assert (swapped["lattice_fft_error"] > 0.5).all()


def test_the_lattice_is_undefined_without_class_pixel_size_or_frequency():
    image, masks = stripes(0.185 / PIXEL), halves()
    absent = masks & np.array([True, False])[:, None, None]
    assert np.isnan(measure("lattice-fft", image, absent, masks)["lattice_fft"]).tolist() == [False, True]
    for changes in ({"pixel_size_um": None}, {"pixel_size_um": 0.2}, {"masks": None, "labels": masks.any((1, 2))}):
        found = measure("lattice-fft", image, masks, masks, **changes)
        assert np.isnan([found["lattice_fft"], found["lattice_fft_error"]]).all()


def test_ignored_pixels_do_not_change_the_lattice():
    image, masks = stripes(0.185 / PIXEL), halves()
    ignore = np.zeros(image.shape[1:], bool)
    ignore[60:] = True
    noisy = image + ignore * np.random.default_rng(0).random(image.shape, np.float32)
    more = masks | ignore
    one, other = (measure("lattice-fft", *args, ignore=ignore) for args in ((image, masks, masks), (noisy, more, more)))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_band_without_width_is_refused():
    with pytest.raises(ConfigError, match="expected shortest_nm < longest_nm"):
        registry.build("metric", "lattice-fft", shortest_nm=200, longest_nm=170)


@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.floats(0.1, 1000), st.floats(-100, 100))
def test_low_intensities_are_counted_in_units_of_the_files(seed, threshold, scale, offset):
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 31, (1, 9, 7)).astype(np.float32)
    true, predicted = generator.random((2, 2, 9, 7)) < 0.3
    ignore = generator.random((9, 7)) < 0.2
    image = Normalisation("fixed", offset=(offset,), scale=(scale,)).apply(counts)
    params = {"threshold": threshold, "offset": offset, "scale": scale}
    found = measure("low-intensity-share", image, true, predicted, params=params, ignore=ignore)
    for index in range(2):
        pixels = {
            name: [counts[0][place] for place in zip(*np.nonzero(mask[index] & ~ignore), strict=True)]
            for name, mask in (("true", true), ("predicted", predicted))
        }
        share = {
            name: sum(value <= threshold for value in values) / len(values) if values else math.nan
            for name, values in pixels.items()
        }
        if not pixels["true"]:
            share = dict.fromkeys(share, math.nan)
        np.testing.assert_allclose(found["low_intensity_share"][index], share["predicted"], rtol=1e-6)
        expected = abs(share["predicted"] - share["true"])
        np.testing.assert_allclose(found["low_intensity_error"][index], expected, rtol=1e-5, atol=1e-7)


def test_a_coarse_mask_covers_more_dark_pixels():
    image = np.full((1, 20, 20), 3, np.float32)
    image[0, 8:10] = 50
    true, coarse = np.zeros((2, 1, 20, 20), bool)
    true[0, 8:10] = True
    coarse[0, 6:12] = True
    found = measure("low-intensity-share", image, true, coarse)
    assert found["low_intensity_share"][0] == pytest.approx(4 / 6)
    assert found["low_intensity_error"][0] == pytest.approx(4 / 6)
    assert math.isnan(share_of(image[0] < 9, np.zeros((20, 20), bool)))


def test_the_threshold_is_converted_as_the_dataset_normalised_its_images():
    counts = np.arange(20, dtype=np.float32).reshape(1, 4, 5)
    masks = np.ones((1, 4, 5), bool)
    scaling = Normalisation("fixed", offset=(2.0,), scale=(40.0,))
    image = scaling.apply(counts)
    found = measure("low-intensity-share", image, masks, masks, normalisation=scaling)
    assert found["low_intensity_share"] == [0.5]  # 0 to 9 of 0 to 19
    given = {"offset": 7, "scale": 40}
    assert measure("low-intensity-share", image, masks, masks, params=given)["low_intensity_share"] == [0.25]
    for other in (
        Normalisation("min-max"),
        Normalisation("fixed", offset=(255.0,), scale=(-255.0,)),
        Normalisation("fixed", offset=(1.0, 2.0)),
    ):
        with pytest.raises(DataError, match="expected a normalisation of kind none, or fixed .* set offset and scale"):
            measure("low-intensity-share", image, masks, masks, params={"offset": 7}, normalisation=other)
        measure("low-intensity-share", image, masks, masks, params=given, normalisation=other)


@pytest.mark.parametrize("name", ["lattice-fft", "low-intensity-share"])
def test_another_size_is_an_error(name):
    image, masks = stripes(9), halves()
    prediction, truth = pair(image, masks, masks)
    _, other = pair(image[:, :50], masks[:, :50], masks[:, :50])
    with pytest.raises(DataError, match="a: expected a prediction of shape"):
        registry.build("metric", name).measure(prediction, other)
    assert len(registry.build("metric", name).measure(prediction, truth)) == 2


@pytest.mark.parametrize("name", ["lattice-fft", "low-intensity-share"])
def test_columns_say_what_they_are(name):
    for column in registry.build("metric", name).columns():
        assert column.is_mean
        assert not column.higher_is_better
        assert "in images that contain the class" in column.definition or "if either is empty" in column.definition
