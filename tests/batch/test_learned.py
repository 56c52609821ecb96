"""Whether a training has learned more than a constant answer."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from micraframe.batch.learned import complaints, judge
from micraframe.batch.splits import SampleLabels, class_balance, sample_labels, write_splits
from micraframe.testing import full_samples
from micraframe.types import Annotation

LABELS = np.arange(40) % 2 == 0


@given(arrays(bool, 12), arrays(np.float32, 12, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])))
def test_numbers_are_those_of_scikit_learn(labels, presence):
    found = judge("a", labels, presence, presence >= 0.5)
    if labels.all() or not labels.any():
        assert math.isnan(found.balanced_accuracy)
        assert math.isnan(found.auc)
        (said,) = complaints([found])
        assert "cannot be judged" in said
        return
    np.testing.assert_allclose(found.auc, roc_auc_score(labels, presence))
    np.testing.assert_allclose(found.balanced_accuracy, balanced_accuracy_score(labels, presence >= 0.5))


def test_a_constant_answer_has_not_learned_whatever_the_share_of_positives():
    for labels in (LABELS, np.arange(40) < 2, np.arange(40) < 38):
        for answer in (True, False):
            presence = np.full(40, 0.9 if answer else 0.1, np.float32)
            (said,) = complaints([judge("a", labels, presence, np.full(40, answer))])
            assert "has not learned it" in said


def test_guesses_within_a_standard_error_have_not_learned():
    # 20 with and 20 without: a standard error of sqrt(1/20 + 1/20) / 4 = 0.079.
    for correct, decides in ((21, False), (23, False), (24, True)):
        present = LABELS.copy()
        present[correct:] ^= True
        found = judge("a", LABELS, present.astype(np.float32), present)
        assert found.decides is decides


def test_good_ranks_with_a_bad_threshold_are_told_apart():
    presence = np.where(LABELS, 0.3, 0.1).astype(np.float32)
    (said,) = complaints([judge("a", LABELS, presence, presence >= 0.5)])
    assert "presence_threshold" in said
    assert complaints([judge("a", LABELS, presence, presence >= 0.2)]) == []


def test_labels_come_from_whatever_annotation_there_is(tmp_path):
    samples = full_samples(6, (40, 40))
    expected = [tuple(sample.labels.tolist()) for sample in samples]
    for kind in Annotation:
        known = sample_labels([sample.keep({kind}) for sample in samples if getattr(sample, kind) is not None])
        assert [one.labels for one in known] in (expected, [])
    known = sample_labels(samples)
    balance = class_balance({"train": known, "valid": ()}, ("disc", "square"))
    assert [(one.split, one.class_, one.samples) for one in balance] == [("train", "disc", 6), ("train", "square", 6)]
    assert [one.positive for one in balance] == np.sum(expected, axis=0).tolist()
    write_splits(tmp_path / "splits.csv", {"test": [SampleLabels("a", "slide", None)]}, ("disc", "square"))
    assert (tmp_path / "splits.csv").read_text() == "image,split,group,disc,square\na,test,slide,,\n"
