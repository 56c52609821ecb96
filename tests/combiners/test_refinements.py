"""Maps that are refined against the image: by a random walker, and by averaging among similar neighbours."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import logit

from micraframe import registry
from micraframe.combiners.pamr import affinities, average
from micraframe.combiners.random_walker import RandomWalker, random_walk
from micraframe.types import FloatArray, Layer, Maps, Scores

SIZE = (21, 30)
TRUTH = np.zeros(SIZE, bool)
TRUTH[5:14, 8:20] = True
COMBINERS = ["random-walker", "pamr"]


def scene(channels: int = 1) -> tuple[Maps, FloatArray]:
    """Return an image of a bright object, and probabilities that are sure inside and outside, but not at its edge."""
    generator = np.random.default_rng(0)
    image = np.where(TRUTH, 0.8, 0.2) + generator.normal(0, 0.02, (channels, *SIZE))
    known = np.full(SIZE, 0.5, np.float32)
    known[7:12, 11:17], known[:3], known[16:] = 0.9, 0.1, 0.1
    return probabilities(np.stack([known, np.full(SIZE, 0.1, np.float32)])), image.astype(np.float32)


def probabilities(maps: FloatArray) -> Maps:
    """Return maps that combiner `evidence` makes these probabilities of."""
    size, classes = maps.shape[1:], tuple(range(len(maps)))
    return Maps(size, classes, (Layer("last", 1, 1),), (logit(maps),), np.zeros(len(maps), np.float32))


def combine(name: str, maps: Maps, image: FloatArray, **params: Any) -> Scores:
    return registry.build("combiner", name, **params).combine(maps, image)


def overlap(mask: Any) -> float:
    return float((mask & TRUTH).sum() / (mask | TRUTH).sum())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", COMBINERS)
def test_the_object_is_found_where_the_map_does_not_know(name: str, channels: int) -> None:
    maps, image = scene(channels)
    plain, refined = combine("evidence", maps, image), combine(name, maps, image)
    best = [max(overlap(scores.maps[0] > value) for value in np.arange(0, 1, 0.02)) for scores in (plain, refined)]
    assert best[1] > (0.99 if name == "random-walker" else best[0])
    assert refined.status == plain.status == ("ok", "negative")


@pytest.mark.parametrize("name", COMBINERS)
def test_an_image_without_contrast_changes_nothing(name: str) -> None:
    maps, image = scene()
    plain = combine("last-layer", maps, image)
    np.testing.assert_array_equal(combine(name, maps, np.ones_like(image), combiner="last-layer").maps, plain.maps)


@pytest.mark.parametrize("name", COMBINERS)
def test_notes_of_the_other_combiner_stay(name: str) -> None:
    maps, image = scene()
    inner = {"name": "pca", "params": {"layers": "all"}}
    assert combine(name, maps, image, combiner=inner).notes[0]["sign"] == "deepest-weighted"


@pytest.mark.parametrize("name", COMBINERS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (2, 2), (9, 4)])
def test_any_size_will_do(name: str, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    maps = probabilities(generator.uniform(0.01, 0.99, (2, *size)).astype(np.float32))
    assert combine(name, maps, generator.random((2, *size), np.float32)).size == size


def test_a_class_without_seeds_of_both_kinds_keeps_its_map() -> None:
    maps, image = scene()
    plain, refined = combine("evidence", maps, image), combine("random-walker", maps, image)
    np.testing.assert_array_equal(refined.maps[1], plain.maps[1])
    assert [note["seeds"] for note in refined.notes] == [[8 * 30, 5 * 6], [21 * 30, 0]]
    certain = probabilities(np.where(TRUTH, 0.9, 0.1).astype(np.float32)[None])
    np.testing.assert_array_equal(combine("random-walker", certain, image).maps[0], TRUTH)


@settings(deadline=None, max_examples=30)
@given(st.tuples(st.integers(2, 5), st.integers(2, 5)), st.integers(1, 2), st.floats(0, 300), st.integers(0, 99))
def test_the_walk_is_its_definition(size: tuple[int, int], channels: int, beta: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    image = generator.random((channels, *size), np.float32)
    seeds = generator.integers(0, 3, size).astype(np.int32)
    seeds[0, 0], seeds[-1, -1] = 1, 2
    scale, count = beta / (10 * image.std(dtype=np.float64) * np.sqrt(channels)), seeds.size
    system, known = np.eye(count), (seeds == 2).ravel().astype(float)
    for place in np.flatnonzero(seeds.ravel() == 0):
        row, column = divmod(place, size[1])
        system[place, place] = 0
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            r, c = row + down, column + right
            if 0 <= r < size[0] and 0 <= c < size[1]:
                difference = image[:, r, c].astype(np.float64) - image[:, row, column]
                weight = np.exp(-scale * (difference**2).sum()) + 1e-10
                system[place, place] += weight
                system[place, r * size[1] + c] -= weight
    expected = np.linalg.solve(system, known).reshape(size)
    np.testing.assert_allclose(random_walk(seeds, image, beta), expected, atol=0.02)


def test_low_must_be_below_high() -> None:
    with pytest.raises(ValidationError, match="expected low below high, got low 0.8 and high 0.5"):
        RandomWalker.Params(low=0.8, high=0.5)


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.lists(st.integers(1, 8), min_size=1, max_size=2, unique=True),
    st.integers(1, 2),
    st.sampled_from([1.0, 1000.0]),
)
def test_affinities_and_averages_are_their_formulas(
    size: tuple[int, int], dilations: list[int], channels: int, scale: float
) -> None:
    generator = np.random.default_rng(0)
    image = (scale * generator.integers(0, 4, (channels, *size))).astype(np.float32)
    values = generator.random((2, *size), np.float32)
    offsets = [(a * d, b * d) for d in dilations for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
    weights = affinities(image, dilations)
    found = average(values, weights, dilations)
    for row, column in np.ndindex(size):
        places = [
            (min(max(row + down, 0), size[0] - 1), min(max(column + right, 0), size[1] - 1)) for down, right in offsets
        ]
        exponents = np.zeros(len(places))
        for plane in image.astype(np.float64):
            seen = np.array([plane[place] for place in places])
            deviation = np.std([*seen, plane[row, column]])
            exponents -= np.abs(seen - plane[row, column]) / (0.1 * deviation + 1e-8) / channels
        expected = np.exp(exponents) / np.exp(exponents).sum()
        np.testing.assert_allclose(weights[:, row, column], expected, atol=1e-4)
        mean = [sum(w * plane[place] for w, place in zip(expected, places, strict=True)) for plane in values]
        np.testing.assert_allclose(found[:, row, column], mean, atol=1e-4)


def test_more_iterations_average_more() -> None:
    maps, image = scene()
    once, often = (combine("pamr", maps, image, iterations=count, dilations=[1, 2]) for count in (1, 30))
    assert np.abs(np.diff(often.maps[0])).sum() < np.abs(np.diff(once.maps[0])).sum()


def test_nothing_warns_however_strong_the_edges() -> None:
    maps, image = scene()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refined = combine("random-walker", maps, image, beta=1e6)
    assert 0 <= refined.maps.min() <= refined.maps.max() <= 1
