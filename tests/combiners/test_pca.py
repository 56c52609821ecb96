"""The PCA combiner against scikit-learn's PCA of the stack that it never builds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from micraframe.combiners.pca import Pca
from micraframe.errors import ConfigError
from micraframe.types import Layer, Maps
from micraframe.upsampling import upsample


def make(size=(37, 51), strides=(1, 1, 2, 2, 4, 4, 8, 8), classes=2, seed=0, ceil=False) -> Maps:
    generator = np.random.default_rng(seed)
    layers = tuple(Layer(f"L{index + 1}", 4, stride) for index, stride in enumerate(strides))
    arrays = tuple(
        generator.normal(size=(classes, *(-(-n // s) if ceil else max(n // s, 1) for n in size))).astype(np.float32)
        for s in strides
    )
    return Maps(size, tuple(range(classes)), layers, arrays, np.zeros(classes, np.float32))


def change(maps: Maps, arrays) -> Maps:
    return Maps(maps.size, maps.classes, maps.layers, tuple(arrays), maps.presence)


def combine(maps: Maps, **params):
    return Pca(Pca.Params(**params)).combine(maps, np.zeros((1, *maps.size), np.float32))


def stack(maps: Maps, number: int, scale: str) -> np.ndarray:
    """Return the stack of all layers but the deepest, upsampled, float64 (pixels, L)."""
    columns = []
    for layer, array in list(zip(maps.layers, maps.maps, strict=True))[:-1]:
        column = upsample(array[number : number + 1], maps.size, layer.stride)[0].astype(np.float64).ravel()
        if scale == "min-max":
            column = (column - column.min()) / (np.ptp(column) or 1)
        columns.append(column)
    return np.stack(columns, 1)


def slow(maps: Maps, number: int, scale: str) -> tuple[np.ndarray, PCA]:
    """Return scikit-learn's first component (H, W), of either sign."""
    found = PCA(svd_solver="full").fit(stack(maps, number, scale))
    return found.transform(stack(maps, number, scale))[:, 0].reshape(maps.size), found


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(6, 41), st.integers(6, 41)),
    st.lists(st.integers(1, 9), min_size=3, max_size=7),
    st.booleans(),
    st.sampled_from(["min-max", "none"]),
    st.integers(0, 1000),
)
def test_it_is_scikit_learns_up_to_the_sign(size, strides, ceil, scale, seed):
    maps = make(size, strides, 1, seed, ceil)
    assume(any(np.ptp(layer) > 0 for layer in maps.maps[:-1]))  # without variance scikit-learn divides by zero
    expected, found = slow(maps, 0, scale)
    variances = found.explained_variance_
    assume(variances[0] - variances[1] > 0.02 * variances[0])  # else which is first is a matter of rounding
    result = combine(maps, scale=scale, sign="largest-score")
    ratio = variances[0] / variances.sum()
    assert result.notes[0]["explained"] == pytest.approx(ratio, rel=1e-6)
    assert result.status == ("ok",)
    expected = (expected - expected.min()) / np.ptp(expected)
    values = result.maps[0]
    assert min(np.abs(values - expected).max(), np.abs(values - (1 - expected)).max()) < 1e-6


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sign", ["deepest-weighted", "largest-score", "largest-loading"])
def test_sign_policies(sign, seed):
    maps = make(seed=seed)
    result = combine(maps, sign=sign)
    for number in range(2):
        scores, found = slow(maps, number, "min-max")
        if sign == "deepest-weighted":
            weights = upsample(np.maximum(maps.maps[-1][number : number + 1], 0), maps.size, 8)[0]
            positive = (scores * weights).sum() > 0
        elif sign == "largest-score":
            positive = scores.flat[np.abs(scores).argmax()] > 0
        else:
            positive = found.components_[0][np.abs(found.components_[0]).argmax()] > 0
        scores = scores if positive else -scores
        np.testing.assert_allclose(result.maps[number], (scores - scores.min()) / np.ptp(scores), atol=1e-6)
        note = result.notes[number]
        loadings = found.components_[0] * (1 if positive else -1)
        np.testing.assert_allclose(list(note["loadings"].values()), loadings, atol=1e-6)
        assert list(note["loadings"]) == [f"L{index}" for index in range(1, 8)]
        assert note["sign"] == sign
        assert note["inverted"] == (loadings[np.abs(loadings).argmax()] < 0)


def test_turning_all_maps_round_turns_the_score_round():
    maps = make(classes=1)
    turned = change(maps, [*(-array for array in maps.maps[:-1]), maps.maps[-1]])
    one, other = (combine(each, scale="none") for each in (maps, turned))
    np.testing.assert_array_equal(one.maps, other.maps)
    assert one.notes[0]["inverted"] != other.notes[0]["inverted"]


def test_classes_do_not_influence_each_other():
    maps = make(classes=3)
    whole = combine(maps)
    for number in range(3):
        alone = combine(
            Maps(maps.size, (number,), maps.layers, tuple(a[number : number + 1] for a in maps.maps), maps.presence)
        )
        np.testing.assert_allclose(alone.maps[0], whole.maps[number], atol=1e-6)
        assert alone.status[0] == whole.status[number]


def test_constant_layers_take_no_part():
    maps = make(classes=1)
    constant = change(maps, [np.full_like(maps.maps[0], 0.3), *maps.maps[1:]])
    result = combine(constant)
    assert result.status == ("ok",)
    assert result.notes[0]["loadings"]["L1"] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(result.maps, combine(maps, layers=("L2", "L3", "L4", "L5", "L6", "L7")).maps, atol=1e-6)


@pytest.mark.parametrize(
    ("shallow", "deepest", "sign", "status"),
    [
        (np.zeros_like, np.zeros_like, "deepest-weighted", "empty"),
        (np.zeros_like, np.abs, "deepest-weighted", "empty"),
        (np.ones_like, np.abs, "deepest-weighted", "constant"),
        (np.ones_like, np.abs, "largest-score", "constant"),
        (np.negative, np.zeros_like, "deepest-weighted", "empty"),
        (np.negative, lambda a: -np.abs(a), "deepest-weighted", "negative"),
        (np.negative, np.zeros_like, "largest-loading", "ok"),
    ],
)
@pytest.mark.parametrize("scale", ["min-max", "none"])
@pytest.mark.parametrize("weight", ["none", "coarse"])
def test_what_cannot_be_scored_is_zero_and_says_why(shallow, deepest, sign, status, scale, weight):
    maps = make(classes=2)
    arrays = [array.copy() for array in maps.maps]
    for index, array in enumerate(arrays):
        array[1] = (deepest if index == 7 else shallow)(array[1])
    result = combine(change(maps, arrays), sign=sign, scale=scale, weight=weight)
    assert result.status == ("ok", status)
    assert result.maps[0].any()
    if status != "ok":
        assert not result.maps[1].any()
    assert np.isfinite([*result.notes[1]["loadings"].values(), result.notes[1]["explained"]]).all()


def test_weight_multiplies_by_the_interpolated_coarse_map():
    maps = make()
    coarse = np.maximum(maps.maps[-1], 0)
    coarse = upsample(coarse / coarse.max((1, 2), keepdims=True), maps.size, 8, "bilinear")
    np.testing.assert_allclose(combine(maps, weight="coarse").maps, combine(maps).maps * coarse, rtol=1e-6)


def test_layers_that_are_not_there_are_an_error():
    with pytest.raises(ConfigError, match="expected layers from L1, L2.*got 'L9'"):
        combine(make(), layers=("L1", "L9"))
    with pytest.raises(ConfigError, match="write layers: all"):
        combine(make(strides=(4,)))
    assert combine(make(strides=(4,)), layers="all").status == ("ok", "ok")
