"""Erasing agrees with obvious versions, and finds the threshold of a model that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.erasing import LEVELS, erasing_threshold, paste, repeated
from micraframe.interfaces import ClassRule, Model, every_class
from micraframe.types import FloatArray, Sample, Scores

SIDE = 16


class Slope(Model):
    """Its map is the image; presence is the mean of what exceeds 0.4, so that only what is above 0.4 need be erased."""

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        for image in images:
            presence = np.clip(np.where(image > 0.4, image, 0).mean(axis=(1, 2)) * 8, 0, 1).astype(np.float32)
            explained = list(rule(presence))
            yield Scores(presence, tuple(explained), image[explained])

    def state(self) -> Mapping[str, Any]:
        raise NotImplementedError


def threshold_by_erasing(samples: list[Sample], **changes: Any) -> float | None:
    with_maps, without = (
        erasing_threshold(Slope().score, samples, list(Slope().score([one.image for one in samples], rule)), **changes)
        for rule in (every_class, lambda presence: ())
    )
    assert with_maps == without
    return with_maps


def slope(name: str) -> Sample:
    """Return an image whose left half rises from 0.2 to 1; the rest is 0.2."""
    image = np.full((1, SIDE, SIDE), 0.2, np.float32)
    image[0, :, : SIDE // 2] = np.linspace(0.2, 1, SIDE // 2, dtype=np.float32)
    return Sample(name, image, labels=np.array([True]))


def flat(name: str) -> Sample:
    return Sample(name, np.full((1, SIDE, SIDE), 0.2, np.float32), labels=np.array([False]))


def test_the_threshold_by_erasing_is_the_highest_that_leaves_nothing():
    samples = [slope("a"), slope("b"), flat("c"), flat("d")]
    # Undilated, everything above 0.4 must be in the mask: the highest candidate below it.
    assert threshold_by_erasing(samples, dilation=0, slack=0) == max(level for level in LEVELS if level < 0.43)
    # Dilated by 3 px, the mask may begin higher up.
    found = threshold_by_erasing(samples, dilation=3, slack=0)
    assert found is not None
    assert found > 0.5


def test_without_either_kind_of_image_there_is_no_threshold_by_erasing():
    assert threshold_by_erasing([slope("a"), slope("b")]) is None
    assert threshold_by_erasing([flat("c"), flat("d")]) is None
    assert threshold_by_erasing([dataclasses.replace(slope("a"), labels=None), flat("c")]) is None


@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
def test_pasting_agrees_with_an_obvious_version(seed, channels, height, width):
    rng = np.random.default_rng(seed)
    image = rng.random((channels, height, width), np.float32)
    other = repeated(rng.random((channels, 3, 4), np.float32), (height, width))
    mask = rng.random((height, width)) < rng.random()
    pasted = paste(image, other, mask)
    assert pasted.dtype == np.float32
    outside = [place for place in np.ndindex(height, width) if not mask[place]]
    for channel, before, donor in zip(pasted, image, other, strict=True):
        shift = sum(before[place] - donor[place] for place in outside) / max(len(outside), 1)
        for y, x in np.ndindex(height, width):
            assert donor[y, x] == donor[y % 3, x % 4]
            assert channel[y, x] == pytest.approx(donor[y, x] + shift if mask[y, x] else before[y, x], abs=1e-5)
