from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.errors import DataError
from micraframe.types import (
    Annotation,
    Cost,
    DatasetInfo,
    Layer,
    Maps,
    Normalisation,
    Prediction,
    Sample,
    ScoreMap,
)

IMAGE = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
MASKS = np.zeros((2, 4, 6), bool)


def full_sample() -> Sample:
    return Sample(
        "a",
        IMAGE,
        labels=np.array([True, False]),
        points=(np.zeros((1, 2), np.float32), np.zeros((0, 2), np.float32)),
        boxes=(np.zeros((1, 4), np.float32), np.zeros((0, 4), np.float32)),
        masks=MASKS,
        instances=MASKS.astype(np.int32),
        ignore=MASKS[0],
        source="somewhere/a.png",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": IMAGE.astype(np.float64)}, "image is float64"),
        ({"image": IMAGE[0]}, r"shape \(4, 6\)"),
        ({"image": IMAGE[:, :0]}, "the image is empty"),
        ({"image": np.where(IMAGE == 3, np.nan, IMAGE)}, "1 of 24 values of the image are NaN or infinite"),
        ({"image": None}, "image is a NoneType"),
        ({"labels": np.array([1, 0])}, "labels is int64"),
        ({"masks": MASKS[:, :3]}, r"masks is bool of shape \(2, 3, 6\); bool of shape \(any, 4, 6\) is wanted"),
        ({"instances": MASKS}, "instances is bool"),
        ({"ignore": MASKS}, "ignore"),
        ({"points": (np.zeros((1, 3), np.float32),)}, "points"),
        ({"labels": np.array([True])}, "disagree on the number of classes"),
    ],
)
def test_a_sample_that_is_not_in_order_says_so(changes, message):
    given_fields = {"image": IMAGE, "masks": MASKS, **changes}
    with pytest.raises(DataError, match=message):
        Sample("a", **given_fields)


@given(st.sets(st.sampled_from(list(Annotation))))
def test_keep_leaves_nothing_but_what_is_named(kept):
    sample = full_sample().keep(kept)
    for kind in Annotation:
        assert (getattr(sample, kind.value) is not None) == (kind in kept)
    assert (sample.ignore is not None) == bool(kept & {Annotation.MASKS, Annotation.INSTANCES})
    assert bool(sample.source) == (kept == set(Annotation))
    assert sample.image is IMAGE


images = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    elements=st.floats(-1e4, 1e4, width=32),
)
kinds = st.sampled_from(["none", "min-max", "percentile", "mean-sd", "fixed"])


@given(images, kinds, st.booleans(), st.booleans())
def test_normalised_images_are_finite_and_of_the_same_shape(image, kind, per_channel, clip):
    result = Normalisation(kind, per_channel=per_channel, clip=clip).apply(image)
    assert result.dtype == np.float32
    assert result.shape == image.shape
    assert np.isfinite(result).all()
    if kind == "min-max":
        assert result.min() >= 0
        assert result.max() <= 1


def test_normalisations_do_what_they_say():
    image = np.array([[[0, 1], [2, 5]], [[10, 10], [10, 10]]], np.float32)
    np.testing.assert_allclose(Normalisation("min-max").apply(image)[0], [[0, 0.1], [0.2, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(Normalisation("min-max", per_channel=True).apply(image)[1], 0)
    standard = Normalisation("mean-sd", per_channel=True).apply(image)
    np.testing.assert_allclose([standard[0].mean(), standard[0].std()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(Normalisation("fixed", offset=(1, 10), scale=(2, 5)).apply(image)[0, 1], [0.5, 2])
    clipped = Normalisation("percentile", low=25, high=75, clip=True).apply(image)
    assert (clipped.min(), clipped.max()) == (0, 1)


def test_a_normalisation_for_other_channels_is_refused():
    with pytest.raises(DataError, match="for 2 channels, the image has 1"):
        Normalisation("fixed", offset=(0, 0), scale=(1, 1)).apply(IMAGE)
    with pytest.raises(DataError, match="scale not 0"):
        Normalisation("fixed", scale=(0.0,))


def test_maps_check_lengths_names_and_values():
    layers = (Layer("L1", 8, 1), Layer("L2", 8, 2))
    arrays = (np.zeros((1, 4, 6), np.float32), np.zeros((1, 2, 3), np.float32))
    scores = np.array([0.5, 0.2], np.float32)
    assert Maps((4, 6), (1,), layers, arrays, scores).maps[1].shape == (1, 2, 3)
    with pytest.raises(DataError, match="2 layers"):
        Maps((4, 6), (1,), layers, arrays[:1], scores)
    with pytest.raises(DataError, match="different names"):
        Maps((4, 6), (1,), (layers[0], layers[0]), arrays, scores)
    with pytest.raises(DataError, match="L1 is float32"):
        Maps((4, 6), (0, 1), layers, arrays, scores)
    with pytest.raises(DataError, match="'L2' has values that are not finite"):
        Maps((4, 6), (1,), layers, (arrays[0], arrays[1] + np.float32(np.inf)), scores)
    with pytest.raises(DataError, match="with 2 classes"):
        Maps((4, 6), (2,), layers, arrays, scores)


def test_score_maps_and_predictions_stay_in_their_range():
    values = np.zeros((1, 4, 6), np.float32)
    with pytest.raises(DataError, match=r"\[0, 1\] is wanted"):
        ScoreMap((0,), values + 2, values, ("ok",))
    with pytest.raises(DataError, match=r"\[0, 1\] is wanted"):
        ScoreMap((0,), values + np.float32(np.nan), values, ("ok",))
    with pytest.raises(DataError, match="not in"):
        Prediction(np.array([1.5], np.float32), np.array([True]))
    with pytest.raises(DataError, match="masks"):
        Prediction(np.array([0.5], np.float32), np.array([True]), MASKS)
    with pytest.raises(DataError, match="status of 2"):
        Prediction(np.array([0.5], np.float32), np.array([True]), status=("ok", "ok"))


def test_classes_have_different_names():
    with pytest.raises(DataError, match="each once"):
        DatasetInfo("d", ("a", "a"), 1, Normalisation(), "f")


def test_costs_add_up_and_are_ordered():
    assert Cost(1, 2, 1, 3) + Cost(2, 3, 3, 3) == Cost(3, 5, 4, 6)
    with pytest.raises(DataError, match="low <= seconds <= high"):
        Cost(1, 2, 3, 4)
