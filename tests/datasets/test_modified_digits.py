from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.datasets import load_digits

from micraframe import registry
from micraframe.datasets.modified_digits import ModifiedDigits, digits, sources
from micraframe.testing import check
from micraframe.types import SPLITS

SMALL = ModifiedDigits.Params(size=96, counts=(1, 2, 3, 4, 5), train=4, valid=3, test=2)


def test_it_keeps_a_datasets_promises() -> None:
    check("dataset", "modified-digits", size=64, train=3, valid=2, test=2)


def test_no_digit_is_in_two_splits_and_none_is_lost() -> None:
    indices = sources()
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(indices[one]) & set(indices[other])
    assert sorted(itertools.chain(*indices.values())) == list(range(1797))
    for split in SPLITS:
        assert len(digits(split).glyphs) == len(indices[split])
        np.testing.assert_array_equal(digits(split).labels, load_digits().target[list(indices[split])])
        assert np.bincount(digits(split).labels).min() >= 30


def test_glyphs_look_as_mnists_do() -> None:
    small, large = load_digits().images / 16, digits("train").glyphs
    assert large.shape == (1078, 28, 28)
    assert large.min() == 0
    assert large.max() == 1
    # The digit is in the middle and as wide and high as in MNIST, with an empty margin for turning.
    assert not large[:, :3].any()
    assert not large[:, :, -3:].any()
    # Seen from afar it is the same digit.
    for glyph, source in zip(large[:50], small[:50], strict=True):
        body = glyph[4:24, 4:24]
        coarse = np.add.reduceat(np.add.reduceat(body, range(0, 20, 5), 0), range(0, 20, 5), 1)
        expected = source.reshape(4, 2, 4, 2).sum((1, 3))
        assert np.corrcoef(coarse.ravel(), expected.ravel())[0, 1] > 0.95


def test_samples_are_fully_annotated() -> None:
    for sample in ModifiedDigits(SMALL).samples("train"):
        assert sample.image.shape == (1, 96, 96)
        np.testing.assert_array_equal(sample.labels, sample.masks.any((1, 2)))
        np.testing.assert_array_equal(sample.masks, sample.instances > 0)
        for labels, points, boxes in zip(sample.instances, sample.points, sample.boxes, strict=True):
            assert len(points) == len(boxes) == labels.max()
            assert (points >= boxes[:, :2]).all()
            assert (points < boxes[:, 2:]).all()
        assert 1 <= sum(map(len, sample.points)) <= 5


def test_splits_have_the_wanted_length_and_differ() -> None:
    dataset = ModifiedDigits(SMALL)
    assert [len(dataset.samples(split)) for split in SPLITS] == [4, 3, 2]
    assert dataset.samples("train")[0].image.tobytes() != dataset.samples("valid")[0].image.tobytes()


def test_the_fingerprint_follows_the_parameters() -> None:
    fingerprint = ModifiedDigits(SMALL).info().fingerprint
    assert fingerprint == ModifiedDigits(SMALL).info().fingerprint
    for change in ({"train": 5}, {"seed": 1}, {"noise": 0}):
        assert ModifiedDigits(SMALL.model_copy(update=change)).info().fingerprint != fingerprint


def test_parameters_come_from_configurations() -> None:
    dataset = registry.build("dataset", "modified-digits", counts=[2, "max"], size=64)
    assert dataset.params.counts == (2, "max")
    with pytest.raises(Exception, match="counts"):
        registry.build("dataset", "modified-digits", counts=["many"])
