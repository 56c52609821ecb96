"""Layers chosen and joined by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from micraframe.combiners.select import Select
from micraframe.errors import ConfigError
from micraframe.types import Layer, Maps
from micraframe.upsampling import upsample

NAMES = ("a", "b", "c", "d")


def make(size=(21, 30), strides=(1, 2, 2, 8)) -> Maps:
    generator = np.random.default_rng(0)
    arrays = tuple(
        generator.normal(size=(2, *(max(n // stride, 1) for n in size))).astype(np.float32) for stride in strides
    )
    layers = tuple(Layer(name, 1, stride) for name, stride in zip(NAMES, strides, strict=True))
    return Maps(size, (0, 1), layers, arrays, np.zeros(2, np.float32))


def combine(maps: Maps, **params):
    return Select(Select.Params(**params)).combine(maps, np.zeros((1, *maps.size), np.float32))


def stretch(values: np.ndarray) -> np.ndarray:
    low, high = (reduce(values, axis=(-2, -1), keepdims=True) for reduce in (np.min, np.max))
    return (values - low) / (high - low)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(17, 40), st.integers(17, 40)),
    st.tuples(*[st.integers(1, 8)] * 4),
    st.sets(st.sampled_from(NAMES), min_size=1),
    st.sampled_from(["mean", "sum", "product", "max", "weights"]),
    st.booleans(),
    st.sampled_from(["min-max", "none"]),
)
def test_joins_are_those_of_the_upsampled_layers(size, strides, names, join, rectify, scale):
    maps = make(size, strides)
    chosen = [name for name in NAMES if name in names]
    weights = {name: 0.5 - NAMES.index(name) for name in chosen} if join == "weights" else {}
    stack = []
    for name in chosen:
        layer, values = maps.layers[NAMES.index(name)], maps.maps[NAMES.index(name)].astype(np.float64)
        values = np.maximum(values, 0) if rectify else values
        assume((np.ptp(values, (1, 2)) > 0).all())  # few cells may all be negative: the statuses have their own test
        values = stretch(values) if scale == "min-max" else values
        values = values * weights.get(name, 1)
        stack.append(upsample(values, size, layer.stride))
    joined = {"mean": np.mean, "product": np.prod, "max": np.max}.get(join, np.sum)(stack, axis=0)
    assume((np.ptp(joined, (1, 2)) > 0).all())
    result = combine(maps, layers=tuple(chosen), join=join, weights=weights, rectify=rectify, scale=scale)
    assert result.status == ("ok", "ok")
    np.testing.assert_allclose(result.maps, stretch(joined), atol=1e-5)


def test_selections():
    maps = make()
    np.testing.assert_array_equal(combine(maps).maps, combine(maps, layers=NAMES).maps)
    np.testing.assert_array_equal(
        combine(maps, layers="all-but-deepest").maps, combine(maps, layers=("c", "a", "b")).maps
    )


def test_statuses():
    maps = make()
    changed = {"empty": np.zeros_like, "negative": lambda a: -np.abs(a), "constant": lambda a: np.full_like(a, 2)}
    for status, function in changed.items():
        arrays = tuple(np.stack([array[0], function(array[1])]) for array in maps.maps)
        result = combine(Maps(maps.size, maps.classes, maps.layers, arrays, maps.presence), scale="none")
        assert result.status == ("ok", status)
        assert result.maps[0].any()
        assert not result.maps[1].any()


def test_wrong_parameters_are_errors():
    with pytest.raises(ConfigError, match="expected layers from a, b, c, d, got 'e'"):
        combine(make(), layers=("e",))
    with pytest.raises(ConfigError, match="got 'e'"):
        combine(make(), join="weights", weights={"e": 1.0})
    with pytest.raises(ConfigError, match="distinct layers"):
        combine(make(), layers=("a", "a"))
    for wrong in ({"join": "weights"}, {"weights": {"a": 1.0}}, {"join": "weights", "weights": {"a": float("nan")}}):
        with pytest.raises(ValidationError):
            Select.Params(**wrong)
