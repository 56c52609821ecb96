"""The contact class that is made from numbered objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from micraframe import registry
from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.contact import contact_pixels, with_contact
from micraframe.errors import DataError
from micraframe.testing import check
from micraframe.types import SPLITS, Sample


def samples(dataset: Any) -> list[Sample]:
    return [sample for split in SPLITS for sample in dataset.samples(split)]


@given(
    arrays(np.int32, (2, 9, 11), elements=st.sampled_from([0, 0, 0, 1, 2, 70_000])),
    st.sampled_from([1.0, 1.5, 2.0, 3.7]),
)
def test_a_contact_is_near_two_objects_of_one_class(instances: np.ndarray, distance: float) -> None:
    near = np.zeros((9, 11), np.int64)
    found = np.zeros((9, 11), np.bool_)
    for labels in instances:
        near = sum(
            (ndimage.distance_transform_edt(labels != number) <= distance).astype(np.int64)
            for number in np.unique(labels[labels > 0])
        ) + np.zeros((9, 11), np.int64)
        found |= near > 1
    np.testing.assert_array_equal(contact_pixels(instances, distance), found)


@pytest.mark.parametrize(("gap", "touch"), [(0, True), (3, True), (4, False)])
def test_a_gap_is_bridged_from_both_sides(gap: int, touch: bool) -> None:
    labels = np.zeros((1, 8, 20), np.int32)
    labels[0, :, :6], labels[0, :, 6 + gap : 12 + gap] = 1, 2
    assert contact_pixels(labels, 2).any() == touch


def test_the_annotation_gets_one_more_class() -> None:
    labels = np.zeros((1, 8, 20), np.int32)
    labels[0, :, 2:6], labels[0, :, 6:9] = 1, 2
    boxes = (np.array([[0, 2, 8, 6]], np.float32),)
    found = with_contact(ImageAnnotation(instances=labels, boxes=boxes), 2)
    assert found.masks is not None
    assert found.instances is not None
    np.testing.assert_array_equal(found.instances[0], labels[0])
    np.testing.assert_array_equal(found.masks[1], found.instances[1] == 1)
    assert found.masks[1, 0].nonzero()[0].tolist() == [4, 5, 6, 7]
    assert [len(part) for part in found.boxes or ()] == [1, 0]
    assert found.points is None
    with pytest.raises(DataError, match="expected masks with numbered objects"):
        with_contact(ImageAnnotation(masks=labels > 0), 2)


def test_real_nuclei_in_contact() -> None:
    check("dataset", "nuclei-sample", contact_class="contact")
    plain = registry.build("dataset", "nuclei-sample", share=0.3)
    dataset = registry.build("dataset", "nuclei-sample", share=0.3, contact_class="contact")
    assert dataset.info().classes == ("nucleus", "contact")
    assert dataset.info().roles == ("object", "contact")
    without = {sample.id: sample for sample in samples(plain)}
    found = samples(dataset)
    assert [sample.id for sample in found] == list(without)
    for sample in found:
        assert sample.labels is not None
        assert sample.masks is not None
        np.testing.assert_array_equal(sample.masks[0], without[sample.id].masks[0])
        # However little of it there is, and whatever the rule for objects.
        assert sample.labels.tolist() == [without[sample.id].labels[0], sample.masks[1].any()]
    assert 0.05 < np.mean([sample.labels[1] for sample in found]) < 0.5


@pytest.mark.parametrize("rule", [{"positive_rule": "object"}, {"positive_rule": "visible"}, {"scale": 0.5}])
def test_any_rule_and_scale(rule: dict[str, Any]) -> None:
    dataset = registry.build("dataset", "nuclei-sample", contact_class="touch", crop=32, limit=12, **rule)
    found = samples(dataset)
    assert any(sample.labels[1] for sample in found)
    for sample in found:
        assert sample.labels[1] == sample.masks[1].any()


def test_the_distance_is_part_of_the_fingerprint_only_if_contacts_are_made() -> None:
    def fingerprint(**params: Any) -> str:
        return registry.build("dataset", "nuclei-sample", **params).info().fingerprint

    assert fingerprint() == fingerprint(contact_distance=3)
    made = fingerprint(contact_class="contact")
    assert len({fingerprint(), made, fingerprint(contact_class="contact", contact_distance=3)}) == 3


def test_phase_contrast_cells_in_contact(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICRAFRAME_DATA", str(data))
    root = "$MICRAFRAME_DATA/t98g_phase"
    dataset = registry.build(
        "dataset",
        "folder",
        images=f"{root}/images",
        masks=f"{root}/masks",
        mask_kind="instances",
        index=f"{root}/index.csv",
        crop=128,
        limit=4,
        positive_rule="object",
        contact_class="contact",
    )
    assert dataset.info().classes == ("object", "contact")
    labels = np.array([sample.labels for sample in samples(dataset)])
    assert 0.1 < labels[:, 1].mean() < 0.6
