"""Maps that follow the image."""

from __future__ import annotations

import numpy as np
import pytest

from micraframe import registry
from micraframe.combiners.guided import Guided, guided_filter
from micraframe.combiners.layers import coarse_map
from micraframe.errors import UnknownComponent
from micraframe.types import Layer, Maps

SIZE = (41, 56)
TRUTH = np.zeros(SIZE, bool)
TRUTH[10:25, 12:20] = True
TRUTH[19:25, 20:34] = True


def scene(dark: bool = False, noise: float = 0.05):
    """Return an image with a bright or dark object, and maps that know roughly where it is; a second class is empty."""
    generator = np.random.default_rng(0)
    image = np.where(TRUTH ^ dark, 0.8, 0.2) + generator.normal(0, noise, SIZE)
    layers = (Layer("shallow", 1, 1), Layer("middle", 1, 2), Layer("deepest", 1, 8))
    arrays = []
    for layer in layers:
        rows, columns = SIZE[0] // layer.stride, SIZE[1] // layer.stride
        s = layer.stride
        known = TRUTH[: rows * s, : columns * s].reshape(rows, s, columns, s).mean((1, 3))
        rough = known + generator.normal(0, 0.2, known.shape)
        arrays.append(np.stack([rough, np.zeros_like(rough)]).astype(np.float32))
    maps = Maps(SIZE, (0, 1), layers, tuple(arrays), np.zeros(2, np.float32))
    return maps, image.astype(np.float32)[None]


def combine(maps: Maps, image: np.ndarray, **params):
    return registry.build("combiner", "guided", **params).combine(maps, image)


def overlap(values: np.ndarray) -> float:
    mask = values > 0.5 * values.max()
    return (mask & TRUTH).sum() / (mask | TRUTH).sum()


@pytest.mark.parametrize("dark", [False, True])
def test_it_finds_the_polarity_and_follows_the_object(dark):
    maps, image = scene(dark)
    result = combine(maps, image)
    assert [note["dark"] for note in result.notes] == [dark, False]
    assert overlap(result.maps[0]) > 0.9 > 0.5 > overlap(coarse_map(maps)[0])
    asked = combine(maps, image, polarity="dark" if dark else "bright")
    np.testing.assert_array_equal(asked.maps, result.maps)
    assert overlap(combine(maps, image, polarity="bright" if dark else "dark").maps[0]) < 0.1


@pytest.mark.parametrize("mode", ["intensity", "filter"])
def test_statuses_and_notes_of_the_other_combiner_stay(mode):
    maps, image = scene()
    result = combine(maps, image, mode=mode, combiner="pca")
    assert result.status == ("ok", "empty")
    assert not result.maps[1].any()
    assert result.notes[0]["sign"] == "deepest-weighted"
    assert (result.maps[0].min(), result.maps[0].max()) == (0, 1)


def test_an_image_without_contrast_guides_nothing():
    maps, image = scene()
    plain = registry.build("combiner", "last-layer").combine(maps, image)
    np.testing.assert_array_equal(combine(maps, np.ones_like(image), combiner="last-layer").maps, plain.maps)


def test_an_unknown_combiner_is_an_error_at_once():
    with pytest.raises(UnknownComponent, match="pcaa"):
        Guided(Guided.Params(combiner="pcaa"))


def test_the_guided_filter_is_its_formula():
    generator = np.random.default_rng(0)
    values, guide = generator.random((2, 9, 11), np.float32)
    radius, epsilon = 2, 0.01
    padded = [np.pad(each.astype(np.float64), 2 * radius, mode="symmetric") for each in (values, guide)]
    windows = [np.lib.stride_tricks.sliding_window_view(each, (5, 5)) for each in padded]
    means = [each.mean((2, 3)) for each in windows]
    covariance = (windows[0] * windows[1]).mean((2, 3)) - means[0] * means[1]
    slope = covariance / (windows[1].var((2, 3)) + epsilon)
    offset = means[0] - slope * means[1]
    smooth = [np.lib.stride_tricks.sliding_window_view(each, (5, 5)).mean((2, 3)) for each in (slope, offset)]
    np.testing.assert_allclose(guided_filter(values, guide, radius, epsilon), smooth[0] * guide + smooth[1], atol=1e-5)


def test_the_guided_filter_sharpens_an_edge():
    guide = np.zeros((30, 40), np.float32)
    guide[:, 20:] = 1
    blurred = np.clip((np.arange(40) - 10) / 20, 0, 1).astype(np.float32)[None].repeat(30, 0)
    sharp = guided_filter(blurred, guide, 4, 1e-4)
    assert np.diff(sharp[15])[19] > 4 * np.diff(blurred[15])[19]
