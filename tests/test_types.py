from __future__ import annotations

import dataclasses

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.errors import DataError
from micraframe.types import (
    Annotation,
    DatasetInfo,
    DetectedObjects,
    Layer,
    Maps,
    Normalisation,
    Prediction,
    Sample,
    Scores,
    Work,
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
        ({"image": IMAGE.astype(np.float64)}, "got float64"),
        ({"image": IMAGE[0]}, r"float32 of shape \(channels, height, width\), got float32 of shape \(4, 6\)"),
        ({"image": IMAGE[:, :0]}, "the image is empty"),
        ({"image": np.where(IMAGE == 3, np.nan, IMAGE)}, "1 of 24 values are NaN or infinite"),
        ({"image": None}, "image to be an array, .*, got NoneType"),
        ({"labels": np.array([1, 0])}, "labels to be bool.*, got int64"),
        ({"masks": MASKS[:, :3]}, r"masks to be bool.* of shape \(any, 4, 6\), got bool of shape \(2, 3, 6\)"),
        ({"instances": MASKS}, "instances to be int32"),
        ({"ignore": MASKS}, "ignore"),
        ({"points": (np.zeros((1, 3), np.float32),)}, "points"),
        ({"labels": np.array([True])}, "disagree on the number of classes"),
    ],
)
def test_an_invalid_sample_says_what_is_wrong(changes, message):
    given_fields = {"image": IMAGE, "masks": MASKS, **changes}
    with pytest.raises(DataError, match=message):
        Sample("a", **given_fields)


@given(st.sets(st.sampled_from(list(Annotation))))
def test_keep_removes_all_other_annotation(kept):
    sample = full_sample().keep(kept)
    for kind in Annotation:
        assert (getattr(sample, kind.value) is not None) == (kind in kept)
    assert (sample.ignore is not None) == bool(kept & {Annotation.MASKS, Annotation.INSTANCES})
    assert bool(sample.source) == (kept == set(Annotation))
    np.testing.assert_array_equal(sample.image, IMAGE)
    # What is kept must not lead to what was removed, such as masks in the same memory.
    assert np.shares_memory(sample.image, IMAGE) == (kept == set(Annotation))


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


def test_pixels_that_are_not_ignored_are_counted():
    sample, ignore = full_sample(), np.zeros((4, 6), bool)
    assert dataclasses.replace(sample, ignore=None).counted.tolist() == [[True] * 6] * 4
    ignore[0, 1] = True
    assert np.array_equal(dataclasses.replace(sample, ignore=ignore).counted, ~ignore)


def test_normalisations_do_what_they_say():
    image = np.array([[[0, 1], [2, 5]], [[10, 10], [10, 10]]], np.float32)
    np.testing.assert_allclose(Normalisation("min-max").apply(image)[0], [[0, 0.1], [0.2, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(Normalisation("min-max", per_channel=True).apply(image)[1], 0)
    standard = Normalisation("mean-sd", per_channel=True).apply(image)
    np.testing.assert_allclose([standard[0].mean(), standard[0].std()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(Normalisation("fixed", offset=(1, 10), scale=(2, 5)).apply(image)[0, 1], [0.5, 2])
    clipped = Normalisation("percentile", low=25, high=75, clip=True).apply(image)
    assert (clipped.min(), clipped.max()) == (0, 1)


def test_a_normalisation_for_other_channels_is_an_error():
    with pytest.raises(DataError, match="each of the image's 1 channel, got 2 and 1"):
        Normalisation("fixed", offset=(0, 0)).apply(IMAGE)
    with pytest.raises(DataError, match="each of the image's 3 channels, got 2 and 3"):
        Normalisation("fixed", offset=(0, 0), scale=(1, 1, 1)).apply(np.zeros((3, 2, 2), np.float32))
    with pytest.raises(DataError, match="non-zero scales"):
        Normalisation("fixed", scale=(0.0,))


def test_maps_check_lengths_names_and_values():
    layers = (Layer("L1", 8, 1), Layer("L2", 8, 2))
    arrays = (np.zeros((1, 4, 6), np.float32), np.zeros((1, 2, 3), np.float32))
    presence = np.array([0.5, 0.2], np.float32)
    assert Maps((4, 6), (1,), layers, arrays, presence).maps[1].shape == (1, 2, 3)
    with pytest.raises(DataError, match="one array for each of 2 layers, got 1"):
        Maps((4, 6), (1,), layers, arrays[:1], presence)
    with pytest.raises(DataError, match="distinct layer names"):
        Maps((4, 6), (1,), (layers[0], layers[0]), arrays, presence)
    with pytest.raises(DataError, match=r"expected L1 to be float32 of shape \(2, any, any\)"):
        Maps((4, 6), (0, 1), layers, arrays, presence)
    with pytest.raises(DataError, match="'L2' has values that are not finite"):
        Maps((4, 6), (1,), layers, (arrays[0], arrays[1] + np.float32(np.inf)), presence)
    with pytest.raises(DataError, match="class indices below 2"):
        Maps((4, 6), (2,), layers, arrays, presence)


PRESENCE = np.array([0.5, 0.2, 0.9], np.float32)
VALUES = np.zeros((1, 4, 6), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": VALUES + 2}, r"maps in \[0, 1\], got 2.0 to 2.0"),
        ({"maps": VALUES + np.float32(np.nan)}, r"maps in \[0, 1\], got nan"),
        ({"coarse": VALUES - 1}, r"coarse in \[0, 1\]"),
        ({"coarse": VALUES[:, :2]}, "coarse"),
        ({"presence": PRESENCE * 2}, r"presence in \[0, 1\]"),
        ({"classes": (3,)}, "class indices below 3"),
        ({"classes": (1, 2)}, "maps"),
        ({"status": ("ok", "ok")}, "status of length 1, got 2"),
        ({"objects": ()}, "objects of length 3, got 0"),
    ],
)
def test_scores_check_ranges_and_lengths(changes, message):
    with pytest.raises(DataError, match=message):
        Scores(**{"presence": PRESENCE, "classes": (1,), "maps": VALUES, **changes})


def test_scores_find_the_map_of_a_class_and_say_why_one_is_of_no_use():
    ramp = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    scores = Scores(PRESENCE, (2, 0, 1), np.stack([ramp, 0 * ramp, 0 * ramp + 1]))
    assert scores.status == ("ok", "empty", "constant")
    assert [scores.row(index) for index in range(3)] == [1, 2, 0]
    assert scores.size == (4, 6)
    nothing = Scores.without_maps(PRESENCE, (4, 6))
    assert (nothing.size, nothing.status) == ((4, 6), ())
    with pytest.raises(DataError, match=r"expected a map of class 0, got maps of \[\]"):
        nothing.row(0)


def test_detected_objects_agree_on_their_number():
    objects = DetectedObjects(np.zeros((3, 4), np.float32), PRESENCE, np.zeros((3, 2, 2), np.float32))
    assert objects.select(PRESENCE > 0.4).scores.tolist() == PRESENCE[[0, 2]].tolist()
    with pytest.raises(DataError, match=r"boxes to be float32 of shape \(3, 4\)"):
        DetectedObjects(np.zeros((2, 4), np.float32), PRESENCE, np.zeros((3, 2, 2), np.float32))


def test_predictions_are_of_every_class():
    scores = Scores.without_maps(PRESENCE, (4, 6))
    present = PRESENCE > 0.4
    with pytest.raises(DataError, match="masks"):
        Prediction(scores, present, MASKS)
    with pytest.raises(DataError, match="status of 3 classes, got 2"):
        Prediction(scores, present, status=("ok", "ok"))
    with pytest.raises(DataError, match="present"):
        Prediction(scores, present[:2])


def test_arrays_are_read_only_and_not_copied():
    image, masks = IMAGE.copy(), np.zeros((2, 4, 6), bool)
    sample = Sample("a", image, masks=masks, points=(np.zeros((1, 2), np.float32), np.zeros((0, 2), np.float32)))
    scores = Scores(PRESENCE.copy(), (1,), VALUES.copy(), coarse=VALUES.copy())
    prediction = Prediction(scores, PRESENCE > 0.4, np.zeros((3, 4, 6), bool))
    for array in (sample.image, sample.masks, sample.points[0], scores.maps, scores.coarse, prediction.masks):
        with pytest.raises(ValueError, match="read-only"):
            array += array.dtype.type(1)
    assert np.shares_memory(sample.image, image)
    assert masks.flags.writeable


def test_class_names_are_distinct_and_at_most_one_class_is_the_contact():
    with pytest.raises(DataError, match="distinct classes"):
        DatasetInfo("d", ("a", "a"), 1, Normalisation(), "f")
    assert DatasetInfo("d", ("a", "b"), 1, Normalisation(), "f").roles == ("object", "object")
    with pytest.raises(DataError, match="at most one contact class"):
        DatasetInfo("d", ("a", "b"), 1, Normalisation(), "f", roles=("contact", "contact"))


def test_work_of_one_task_adds_up():
    assert Work("outline", 1, 3, 40) + Work("outline", 1, 0, 2) == Work("outline", 2, 3, 42)
    with pytest.raises(DataError, match="expected work of task 'outline', got 'point'"):
        Work("outline") + Work("point")
    with pytest.raises(DataError, match="not negative"):
        Work("point", objects=-1)
