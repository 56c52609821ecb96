from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import micraframe.datasets
from micraframe import registry
from micraframe.datasets.annotation import ImageAnnotation, mean_object_areas
from micraframe.datasets.image_dataset import ImageDataset, ImageDatasetParams
from micraframe.datasets.sources import LazySamples, SourceImage
from micraframe.errors import DataError
from micraframe.plugin import Component
from micraframe.testing import check
from micraframe.types import SPLITS, Sample


class Synthetic(ImageDataset["Synthetic.Params"]):
    """Images from a function; what a test changes is in class attributes."""

    changes: ClassVar[dict[int, dict[str, Any]]] = {}
    count: ClassVar[int] = 6

    class Params(ImageDatasetParams):
        pass

    def classes(self) -> tuple[str, ...]:
        return ("a", "b")

    def sources(self) -> list[SourceImage]:
        return [
            SourceImage(
                **{"name": f"image {n}", "read_image": partial(image, n), "labels": (n % 2 == 0, True)}
                | self.changes.get(n, {})
            )
            for n in range(self.count)
        ]


def image(number: int, size: tuple[int, int] = (20, 24)) -> np.ndarray:
    return np.random.default_rng(number).random((1, *size)).astype(np.float32)


def masks(number: int, count: int = 2, size: tuple[int, int] = (20, 24)) -> ImageAnnotation:
    return ImageAnnotation(masks=np.random.default_rng(number).random((count, *size)) < 0.1)


def build(changes: dict[int, dict[str, Any]], count: int = 6, **params: Any) -> Synthetic:
    kind = type("Synthetic", (Synthetic,), {"changes": changes, "count": count})
    return kind(Synthetic.Params(**params))


def samples_of(dataset: Synthetic) -> list[Sample]:
    return [sample for split in SPLITS for sample in dataset.samples(split)]


PLUGIN = [Component("dataset", "wells", "wells_dataset:Wells", "Wells of a plate")]


def test_the_example_in_the_documentation_is_a_whole_dataset(tmp_path: Path, install: Callable[..., None]) -> None:
    for plate in range(5):
        for well in range(2):
            rng = np.random.default_rng([plate, well])
            nuclei = (rng.random((1, 40, 32)) < 0.05).astype(np.int32)
            np.savez(tmp_path / f"plate{plate}-{well}.npz", image=rng.random((2, 40, 32)), nuclei=nuclei)
    _, _, example = (micraframe.datasets.__doc__ or "").partition("read on access:\n")
    code = inspect.cleandoc(example.partition("\nThe parts also")[0])
    assert len(code.splitlines()) <= 40
    install("wells", PLUGIN, wells_dataset="from __future__ import annotations\n" + code)
    for params in ({}, {"crop": 16, "normalisation": {"scope": "train"}, "scale": 0.5}):
        check("dataset", "wells", folder=str(tmp_path), **params)
        dataset = registry.build("dataset", "wells", folder=str(tmp_path), **params)
        assert dataset.info().name == "Wells"
        assert len({sample.group for split in SPLITS for sample in dataset.samples(split)}) == 5


def test_labels_of_whole_images() -> None:
    dataset = build({})
    assert dataset.info() == dataset.info()
    assert len(samples_of(dataset)) == 6
    for sample in samples_of(dataset):
        assert sample.labels.tolist() == [int(sample.id[-1]) % 2 == 0, True]
        assert (sample.group, sample.source) == (sample.id, sample.id)


def test_the_annotation_of_a_split_is_judged_once() -> None:
    read: list[int] = []

    def annotation(number: int) -> ImageAnnotation:
        read.append(number)
        return masks(number)

    changes = {n: {"labels": None, "read_annotation": partial(annotation, n), "split": "train"} for n in range(2)}
    dataset = build(changes, count=2, crop=8)
    first = dataset.samples("train")
    assert sorted(read) == [0, 1]
    assert len(dataset.samples("train")) == len(first)
    assert sorted(read) == [0, 1]


def test_given_splits_are_kept() -> None:
    dataset = build({n: {"split": SPLITS[n % 3], "group": f"g{n % 3}"} for n in range(6)})
    for number, split in enumerate(SPLITS):
        assert [sample.id for sample in dataset.samples(split)] == [f"image {number}", f"image {number + 3}"]


@pytest.mark.parametrize(
    ("changes", "params", "message"),
    [
        ({1: {"name": "image 0"}}, {}, "distinct names of images, got 'image 0'"),
        ({1: {"labels": None}}, {}, "image 1: expected labels or an annotation"),
        ({1: {"labels": (True,)}}, {}, "image 1: expected labels of 2 classes, got 1"),
        ({}, {"crop": 8}, "image 0: labels of a whole image do not hold for its crops"),
        ({1: {"split": "test"}}, {}, "image 0: expected a split"),
        ({n: {"split": SPLITS[n % 2], "group": "g"} for n in range(6)}, {}, "group 'g' is in both train and valid"),
        ({1: {"labels": None, "read_annotation": partial(masks, 1, 3)}}, {}, "image 1: expected masks of 2 classes"),
        (
            {1: {"read_annotation": partial(masks, 1, 2, (20, 25))}},
            {},
            r"image 1: expected an annotation of the image's size \(H, W\) = \(20, 24\), got \(20, 25\)",
        ),
        ({1: {"read_image": partial(np.full, (1, 20, 24), np.nan, np.float32)}}, {}, "image 1: 480 of 480 values"),
        ({1: {"read_image": partial(np.zeros, (1 << 25, 1 << 25))}}, {}, "image 1: too large for memory"),
        (
            {1: {"labels": None, "read_annotation": partial(np.zeros, (1 << 25, 1 << 25))}},
            {},
            "image 1: too large for memory",
        ),
    ],
)
def test_wrong_sources_are_named(changes: dict[int, dict[str, Any]], params: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        samples_of(build(changes, **params))


def test_a_dataset_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="expected a dataset with images"):
        build({}, count=0).info()


def test_the_fingerprint_follows_what_is_known_of_each_image(tmp_path: Path) -> None:
    for name in "xy":
        (tmp_path / name).write_text(name)
    files = [(tmp_path / "x",), (tmp_path / "y",), (tmp_path / "x", tmp_path / "y")]
    changes = [{}, {1: {"labels": (True, True)}}, {1: {"group": "g"}}, *({1: {"files": some}} for some in files)]
    prints = {build(change).info().fingerprint for change in changes}
    assert len(prints) == len(changes)


def test_masks_follow_from_instances_and_areas_from_objects() -> None:
    instances = np.zeros((2, 6, 9), np.int32)
    instances[0, :2, :3], instances[0, 4:, :1] = 4, 2
    annotation = ImageAnnotation(instances=instances)
    np.testing.assert_array_equal(annotation.masks, instances > 0)
    assert annotation.size == (6, 9)
    areas = mean_object_areas([annotation, ImageAnnotation(masks=instances > 0)], 2)
    assert areas[0] == 4
    assert np.isnan(areas[1])
    boxes = (np.array([[0, 0, 2, 3], [0, 0, 4, 1]], np.float32), np.zeros((0, 4), np.float32))
    assert mean_object_areas([ImageAnnotation(boxes=boxes)], 2)[0] == 5


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_the_scale_of_a_dataset_is_positive(scale: float) -> None:
    with pytest.raises(DataError, match="expected a positive scale"):
        dataclasses.replace(build({}).info(), scale=scale)


def test_lazy_samples_make_what_is_asked_for() -> None:
    made: list[int] = []

    def make(key: int) -> Sample:
        made.append(key)
        return Sample(str(key), image(key))

    samples = LazySamples([4, 5, 6], make)
    assert len(samples) == 3
    assert (samples[-1].id, [sample.id for sample in samples[:2]]) == ("6", ["4", "5"])
    assert made == [6, 4, 5]
    with pytest.raises(IndexError):
        samples[3]


def test_images_of_some_splits_stay_whole() -> None:
    changes = {number: {"labels": None, "read_annotation": partial(masks, number)} for number in range(6)}
    params = {"crop": 10, "ambiguous_train_crops": "negative"}
    cut, whole = build(changes, **params), build(changes, **params, whole_images=("test",))
    assert {sample.image.shape for sample in whole.samples("test")} == {(1, 20, 24)}
    for sample in whole.samples("test"):
        assert sample.masks is not None
        assert sample.labels.tolist() == sample.masks.any((1, 2)).tolist()
    for split in ("train", "valid"):
        pairs = zip(cut.samples(split), whole.samples(split), strict=True)
        assert all(one.id == other.id and one.image.shape == other.image.shape for one, other in pairs)
    assert whole.info().image_size == (10, 10)
    assert whole.info().fingerprint != cut.info().fingerprint
    assert cut.info().fingerprint == build(changes, **params, whole_images=()).info().fingerprint
