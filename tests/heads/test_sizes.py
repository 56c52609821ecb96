"""Minimum size in pixels of the file, and `auto` for it and for smoothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from micraframe.errors import ConfigError
from micraframe.heads.sizes import has_auto, with_sizes, with_values, without_auto
from micraframe.registry import build
from micraframe.types import DatasetInfo, Normalisation, Sample, Scores

FIXED = {"name": "fixed", "value": 0.5}
INFO = DatasetInfo("cells", ("cell", "touch"), 1, Normalisation(), "0" * 64, roles=("object", "contact"))
AUTO = {"smoothing": "auto", "minimum_size": "auto", "mask_threshold": FIXED}


@pytest.mark.parametrize("head", ["semantic", "instance", "detection"])
@pytest.mark.parametrize(("scale", "area"), [(1.0, 16), (0.5, 64), (2.0, 4)])
def test_minimum_size_counts_pixels_of_the_file(decide, head, scale, area):
    values = np.zeros((12, 14))
    values[2:6, 3:7] = 0.9
    for minimum, pixels in ((area, 16), (area * 1.01, 0)):
        found = decide(head, [values], [0.9], mask_threshold=FIXED, minimum_size=minimum, scale=scale)
        assert found.masks.sum() == pixels


def test_overlapping_masks_are_cleared_of_pieces_by_the_same_size(decide):
    values = np.zeros((2, 12, 14))
    values[0, 2:6, 3:7] = 0.8
    values[1, 2:6, 4:9] = 0.9
    params = {"mask_threshold": FIXED, "overlap": "argmax", "scale": 0.5}
    assert decide("semantic", values, [0.9, 0.9], minimum_size=16, **params).masks.sum() == 4 + 20
    assert decide("semantic", values, [0.9, 0.9], minimum_size=17, **params).masks.sum() == 20


@pytest.mark.parametrize("name", ["smoothing", "minimum_size"])
def test_a_head_with_auto_does_not_decide(decide, name):
    with pytest.raises(ConfigError, match=f"{name}: expected a number, got auto"):
        decide("instance", np.ones((1, 5, 5)), [0.9], **{name: "auto"})


def squares(*sides: int) -> np.ndarray:
    """Return numbered squares in a row, int32 (H, W)."""
    labels = np.zeros((40, 40 * len(sides)), np.int32)
    for number, side in enumerate(sides):
        labels[2 : 2 + side, 40 * number : 40 * number + side] = number + 1
    return labels


def no_scores(images, rule):
    raise AssertionError("objects are known")


def numbers(head):
    return head.params.smoothing, head.params.minimum_size


@pytest.mark.parametrize("kind", ["instances", "masks", "boxes"])
def test_sizes_follow_from_the_median_of_known_objects(kind):
    contact = np.zeros_like(squares(10, 20, 30))
    contact[35, 3:90] = 1
    instances = np.stack([squares(10, 20, 30), contact])
    boxes = (
        np.array([[2, 0, 12, 10], [2, 40, 22, 60], [2, 80, 32, 110]], np.float32),
        np.array([[35, 3, 36, 90]], np.float32),
    )
    given = {"instances": instances, "masks": instances > 0, "boxes": boxes}[kind]
    sample = Sample("a", np.zeros((1, *contact.shape), np.float32), **{kind: given})
    area = 400 * (np.pi / 4 if kind == "boxes" else 1)
    info = dataclasses.replace(INFO, scale=0.5)
    found = with_sizes(build("head", "instance", **AUTO), [sample] * 3, no_scores, info)
    assert numbers(found) == pytest.approx((0.1 * np.sqrt(4 * area / np.pi), area), abs=0.05)


def by_intensity(images, rule):
    """Yield scores whose map of both classes is the image."""
    for image in images:
        presence = np.array([0.1, 0.1], np.float32)
        classes = tuple(rule(presence))
        yield Scores(presence, classes, np.repeat(image, len(classes), axis=0))


@pytest.mark.parametrize("noise", [3, 30])
def test_from_labels_alone_they_follow_from_what_the_head_finds_where_the_class_is(noise):
    positive, negative = squares(1, 1, 1, 20) > 0, squares(1, noise, 1, 1) > 0
    samples = [
        Sample(str(here), mask[None].astype(np.float32), labels=np.array([here, False]))
        for mask, here in ((positive, True), (negative, False))
    ]
    unknown = Sample("unknown", np.ones((1, 40, 160), np.float32))
    found = with_sizes(build("head", "instance", **AUTO), [*samples, unknown], by_intensity, INFO)
    # Specks do not count as objects.
    assert numbers(found) == pytest.approx((0.1 * np.sqrt(4 * 400 / np.pi), 100), abs=0.05)


def test_without_any_object_both_are_zero():
    blank = Sample("a", np.zeros((1, 9, 9), np.float32), labels=np.array([True, False]))
    assert numbers(with_sizes(build("head", "semantic", **AUTO), [blank], by_intensity, INFO)) == (0, 0)
    assert numbers(with_sizes(build("head", "semantic", **AUTO), [], by_intensity, INFO)) == (0, 0)


def test_numbers_that_were_given_stay():
    head = build("head", "instance", smoothing=3, minimum_size="auto")
    assert has_auto(head)
    assert numbers(with_values(head, {"smoothing": 7, "minimum_size": 9})) == (3, 9)
    assert numbers(without_auto(head)) == (3, 0)
    for other in (build("head", "instance"), build("head", "classification")):
        assert not has_auto(other)
        assert with_sizes(other, [], no_scores, INFO) is other
