"""Whether a training has learned more than a constant answer."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from micraframe.batch.learned import complaints, contact_complaints, f1_without_contact, judge
from micraframe.batch.splits import SampleLabels, class_balance, sample_labels, write_splits
from micraframe.config import Choice
from micraframe.interfaces import Model
from micraframe.pipeline import Pipeline
from micraframe.registry import build
from micraframe.testing import full_samples
from micraframe.types import Annotation, DatasetInfo, Normalisation, Sample, Scores

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


def test_classes_with_the_same_complaint_share_a_sentence():
    good = np.where(LABELS, 0.9, 0.1).astype(np.float32)
    answers = {"a": good * 0, "b": good, "c": good * 0 + 1, "d": good / 3}
    said = complaints([judge(name, LABELS, values, values >= 0.5) for name, values in answers.items()])
    assert [sentence.partition(":")[0] for sentence in said] == ["class 'd'", "classes 'a', 'c'"]
    nowhere = complaints([judge(name, LABELS & False, good, good >= 0.5) for name in "ab"])
    assert nowhere[0].startswith("classes 'a', 'b' are in none of the 40 validation samples")
    assert len(nowhere) == 1


class Maps(Model):
    """Returns the channels of an image as the maps of its classes, all of them present."""

    def score(self, images, rule):
        for image in images:
            yield Scores(np.ones(len(image), np.float32), tuple(range(len(image))), image)

    def state(self):
        return {}


def touching(contact: np.ndarray, head: str = "instance", numbered: bool = True, **params):
    """Return a pipeline, and a sample of two squares that touch, with this map of contact."""
    squares = np.zeros((2, 20, 40), np.int32)
    squares[0, 4:16, 4:20], squares[0, 4:16, 20:36] = 1, 2
    info = DatasetInfo("cells", ("cell", "touch"), 2, Normalisation(), "0" * 64, roles=("object", "contact"))
    image = np.stack([squares[0] > 0, contact]).astype(np.float32)
    fixed = {"name": "fixed", "value": 0.5}
    built = build("head", head, mask_threshold=fixed, **params)
    sample = Sample("a", image, labels=np.array([True, True]), instances=squares if numbered else None)
    return Pipeline(Choice(name="test/maps"), Maps(), f"micraframe/{head}", built, info), sample


def between() -> np.ndarray:
    contact = np.zeros((20, 40), np.float32)
    contact[:, 19:21] = 1
    return contact


def test_a_contact_map_that_separates_objects_does_good():
    pipeline, sample = touching(between())
    # Uncut, both squares are one object, whose IoU with one of them is 0.5: one hit of one predicted and two true ones.
    assert f1_without_contact(pipeline, [sample] * 3) == pytest.approx((1, 2 / 3, 3))
    assert list(contact_complaints(pipeline, [], [sample])) == []


def test_a_contact_map_that_cuts_through_objects_does_harm():
    elsewhere = np.roll(between(), 8, axis=1) + np.roll(between(), -8, axis=1)
    both = np.maximum(between(), elsewhere)
    pipeline, sample = touching(both)
    single = dataclasses.replace(sample, instances=(sample.instances > 0).astype(np.int32))
    assert f1_without_contact(pipeline, [single]) == (0.0, 1.0, 1)
    (said,) = contact_complaints(pipeline, [], [single])
    assert "'touch'" in said
    assert "from 1.000 to 0.000" in said
    assert "contact_map=none" in said


def test_without_numbered_objects_the_accuracy_of_the_contact_class_decides():
    pipeline, sample = touching(between(), numbered=False)
    poor, good = (judge("touch", LABELS, answer, answer >= 0.5) for answer in (LABELS * 0 + 0.9, LABELS * 0.9))
    assert len(list(contact_complaints(pipeline, [poor], [sample]))) == 1
    assert list(contact_complaints(pipeline, [good], [sample])) == []


@pytest.mark.parametrize("labels", [LABELS & False, LABELS | True])
def test_a_class_of_no_sample_or_of_all_cannot_be_judged(labels):
    pipeline, sample = touching(between(), numbered=False)
    unknown = judge("touch", labels, np.full(40, 0.9, np.float32), LABELS | True)
    assert (unknown.decides, unknown.ranks) == (False, False)
    assert len(list(contact_complaints(pipeline, [unknown], [sample]))) == 1


@pytest.mark.parametrize(("head", "params"), [("semantic", {}), ("instance", {"contact_map": "none"})])
def test_where_nothing_is_subtracted_there_is_no_complaint(head, params):
    pipeline, sample = touching(between(), head, **params)
    assert f1_without_contact(pipeline, [sample]) is None
    assert list(contact_complaints(pipeline, [judge("touch", LABELS, LABELS * 0 + 0.9, LABELS | True)], [])) == []


def test_labels_come_from_whatever_annotation_there_is(tmp_path):
    samples = full_samples(6, (40, 40))
    expected = [tuple(sample.labels.tolist()) for sample in samples]
    for kind in Annotation:
        known = sample_labels([sample.keep({kind}) for sample in samples if getattr(sample, kind) is not None])
        assert [one.labels for one in known] in (expected, [])
    known = sample_labels(samples)
    balance = class_balance({"train": known, "valid": ()}, ("disc", "square"))
    disc, square = np.sum(expected, axis=0)
    assert balance == [{"class": "disc", "train": f"{disc} of 6"}, {"class": "square", "train": f"{square} of 6"}]
    write_splits(tmp_path / "splits.csv", {"test": [SampleLabels("a", "slide", None)]}, ("disc", "square"))
    assert (tmp_path / "splits.csv").read_text() == "image,split,group,disc,square\na,test,slide,,\n"
