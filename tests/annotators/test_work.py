"""What annotation of several samples costs together: empty images, objects cut by crops, crops dropped after a look."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from micraframe import registry
from micraframe.annotators.annotate import annotate_samples
from micraframe.config import Study, read
from micraframe.datasets.crops import Window, crop_sample, grid
from micraframe.images import write_png
from micraframe.objects import bounding_boxes, components, count
from micraframe.pricing import Cost, Prices, price
from micraframe.types import Annotation, ImagePart, Sample, Work

DRAWN = ("points", "scribbles", "boxes", "polygons", "altered", "dilated", "full")
STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"


def sample(instances: np.ndarray, name: str = "whole") -> Sample:
    masks = instances > 0
    image = np.zeros((1, *instances.shape[1:]), np.float32)
    return Sample(name, image, labels=masks.any((1, 2)), masks=masks, instances=instances)


def work_of(annotator: str, *samples: Sample, **params: Any) -> dict[str, Work]:
    built = registry.build("annotator", annotator, **params)
    return {work.task: work for work in annotate_samples(samples, built, frozenset(Annotation), 0)[1]}


def seconds(annotator: str, *samples: Sample, preset: str = "micranet2022", **params: Any) -> float:
    prices = Prices.model_validate({"preset": preset})
    works = work_of(annotator, *samples, **params).values()
    return sum((price(work, prices) for work in works), Cost()).seconds


@functools.cache
def two_classes() -> np.ndarray:
    """Objects of two classes in 50 x 70 pixels, some of them larger than a crop."""
    noise = np.random.default_rng(3).normal(size=(2, 50, 70))
    smooth = np.stack([plane.cumsum(0).cumsum(1) for plane in noise])
    return components(np.abs(smooth) % 60 > 30)


@pytest.mark.parametrize("annotator", DRAWN)
def test_an_empty_image_is_judged_and_nothing_is_drawn(annotator: str) -> None:
    empty = sample(np.zeros((1, 30, 30), np.int32))
    assert seconds(annotator, empty) == 2  # scribbles: 23 = 2 + 3 strokes of 7, before
    assert work_of(annotator, empty) == {"image-level": Work("image-level", 1, 0, 1, 1)}
    # Bearman's 239.7 s are for an image full of objects.
    assert seconds(annotator, empty, preset="bearman2016") == 20


def test_scribbles_on_a_background_are_paid_for_only_beside_objects() -> None:
    one = np.zeros((1, 30, 30), np.int32)
    one[0, 5:12, 5:12] = 1
    assert seconds("scribbles", sample(one)) == 2 + (1 + 3) * 7
    weaker, _ = registry.build("annotator", "scribbles").annotate(sample(np.zeros_like(one)), 0)
    assert not weaker.ignore.any()
    assert not weaker.masks.any()


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("stride", [7, 16])
def test_crops_cost_as_many_objects_as_the_whole_image(numbered: bool, stride: int) -> None:
    objects = two_classes()
    whole = sample(objects)
    if not numbered:  # masks only: parts of one object in a crop are objects of the crop
        whole = whole.keep({Annotation.MASKS})
    crops = [crop_sample(whole, window, objects) for window in grid((50, 70), 16, stride)]
    pieces = sum(count(crop.instances if numbered else components(crop.masks)) for crop in crops)
    assert pieces > 2 * count(objects)
    for annotator in ("full", "boxes", "points"):
        (task,) = {work.task for work in work_of(annotator, whole).values()}
        assert work_of(annotator, *crops)[task].objects == pytest.approx(count(objects))
        assert work_of(annotator, whole)[task].objects == count(objects)


@pytest.mark.parametrize("stride", [7, 16])
def test_crops_cost_as_many_boxes_as_the_whole_image(stride: int) -> None:
    numbered = sample(two_classes())
    whole = replace(numbered.keep({Annotation.LABELS}), boxes=bounding_boxes(numbered.instances))
    crops = [crop_sample(whole, window) for window in grid((50, 70), 16, stride)]
    crops = [replace(crop, labels=np.array([len(part) > 0 for part in crop.boxes])) for crop in crops]
    drawn = count(numbered.instances)
    assert sum(len(part) for crop in crops for part in crop.boxes) > 2 * drawn
    assert work_of("boxes", *crops)["box"].objects == pytest.approx(drawn)
    assert work_of("boxes", whole)["box"].objects == drawn


def test_objects_are_shared_among_the_crops_that_are_annotated_only() -> None:
    objects = np.zeros((1, 20, 40), np.int32)
    objects[0, 5:10, 2:38], objects[0, 12:18, 2:6] = 1, 2  # one through four crops, one in the first
    crops = [crop_sample(sample(objects), Window(0, x, 20, 10), objects) for x in (0, 10, 20, 30)]
    assert work_of("full", *crops)["outline"].objects == 2
    assert work_of("full", *crops[1:])["outline"].objects == 1
    other = crop_sample(sample(objects, "another"), Window(0, 0, 20, 10), objects)
    assert work_of("full", *crops, other)["outline"].objects == 4
    # A whole image is drawn as it is, whatever crops are beside it.
    assert work_of("full", *crops, sample(objects, "third"))["outline"].objects == 4


def test_strokes_are_shared_as_the_objects_are() -> None:
    objects = np.zeros((1, 20, 40), np.int32)
    objects[0, 5:10, :] = 1
    crops = [crop_sample(sample(objects), Window(0, x, 20, 10), objects) for x in (0, 10, 20, 30)]
    assert work_of("scribbles", *crops)["scribble"].objects == (4 * (1 + 3)) * 1 / 4


def test_what_is_priced_reaches_no_method() -> None:
    objects = two_classes()
    crop = replace(crop_sample(sample(objects), Window(0, 0, 16, 16), objects), labels=np.array([True, True]))
    assert crop.part.image == "whole"
    assert {number for index, number in crop.part.objects if index == 0} == set(np.unique(crop.instances[0])) - {0}
    for annotator in (*DRAWN, "image-level"):
        (kept,), _ = annotate_samples([crop], registry.build("annotator", annotator), frozenset(Annotation), 0)
        assert kept.part == ImagePart()


def test_ten_classes_cost_two_seconds_or_ten_times_two() -> None:
    ten = np.zeros((10, 30, 30), np.int32)
    ten[4, 5:12, 5:12] = 1
    assert seconds("image-level", sample(ten)) == 2
    assert seconds("image-level", sample(ten), preset="per-class") == 20
    # Whoever outlines says of nine classes that they are not there, too.
    assert seconds("full", sample(ten), preset="per-class") == 20 + 14
    one = sample(ten[4:5])
    for annotator in (*DRAWN, "image-level"):
        assert seconds(annotator, one, preset="per-class") == seconds(annotator, one)


@pytest.fixture
def spots(tmp_path: Path) -> dict[str, Any]:
    """Six images of 32 x 32; every second has an object of 8 x 8 that reaches one pixel into three other crops."""
    splits = ("train", "train", "train", "valid", "valid", "test")
    lines = "".join(f"{number},{split}\n" for number, split in enumerate(splits))
    (tmp_path / "index.csv").write_text("image,split\n" + lines)
    for number in range(6):
        mask = np.zeros((32, 32), np.uint8)
        mask[9:17, 9:17] = number % 2
        write_png(tmp_path / "images" / f"{number}.png", mask * 100 + np.arange(32, dtype=np.uint8))
        write_png(tmp_path / "masks" / f"{number}.png", mask)
    return {
        "images": str(tmp_path / "images"),
        "masks": str(tmp_path / "masks"),
        "index": str(tmp_path / "index.csv"),
        "split": "split",
    }


def test_a_look_at_a_crop_that_is_dropped_is_paid_for(spots: dict[str, Any]) -> None:
    every = registry.build("dataset", "folder", **spots, crop=16, share=0.1, ambiguous_train_crops="negative")
    kept = registry.build("dataset", "folder", **spots, crop=16, share=0.1)
    for split in ("train", "valid"):
        dropped = len(every.samples(split)) - len(kept.samples(split))
        assert dropped > 0
        assert work_of("image-level", *every.samples(split)) == work_of("image-level", *kept.samples(split))
        objects = work_of("full", *kept.samples(split))["outline"].objects
        assert seconds("full", *kept.samples(split)) == 2 * len(every.samples(split)) + 14 * objects
    # The paper's rule empties the test of what is hard; by default it is kept and counts as present, as its mask says.
    assert len(kept.samples("test")) == 4
    assert all(one.labels.any() == one.masks.any() for one in kept.samples("test"))


def test_a_look_at_an_image_of_which_nothing_is_left_is_paid_for(spots: dict[str, Any]) -> None:
    dataset = registry.build("dataset", "folder", **spots, share=0.1)
    for split, total, left in (("train", 3, 2), ("valid", 2, 1)):
        samples = dataset.samples(split)
        assert len(samples) == left
        assert work_of("image-level", *samples) == {"image-level": Work("image-level", total, 0, total, total)}


@pytest.mark.parametrize(("name", "times"), [("t98g_phase", 2.0), ("pfc_neurons", 70 / 6)])
def test_objects_of_real_images_are_drawn_once(
    name: str, times: float, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICRAFRAME_DATA", str(data))
    params = read(STUDIES / name / "study.yaml", Study).datasets[0].params
    few = {"limit": 10, "max_crops_per_image": None, "share": 0}
    samples = registry.build("dataset", "folder", **params | few).samples("train")
    wholes = registry.build("dataset", "folder", **params | few | {"crop": None}).samples("train")
    outlines = registry.build("annotator", "full")
    apart = sum(outlines.annotate(one, 0)[1].objects for one in samples)
    objects = work_of("full", *wholes)["outline"].objects
    assert work_of("full", *samples)["outline"].objects == pytest.approx(objects)
    assert math.isclose(apart / objects, times, rel_tol=0.15)


def test_crops_of_a_whole_image_share_it() -> None:
    instances = np.zeros((1, 40, 40), np.int32)
    instances[0, 2:8, 2:8] = 1
    whole = [sample(instances, "a"), sample(instances, "b"), sample(np.zeros_like(instances), "c")]
    crops = [
        replace(cut, labels=cut.instances.any((1, 2)))
        for each in whole
        for y in (0, 20)
        for cut in [crop_sample(each, Window(y, 0, 20, 40), each.instances)]
    ]
    assert {task: work.whole_images for task, work in work_of("image-level", *crops).items()} == {"image-level": 3}
    # The lower halves of a and b are judged, too, but it is not for them that somebody opened the images.
    found = {task: (work.images, work.whole_images) for task, work in work_of("full", *crops).items()}
    assert found == {"outline": (2, 2), "image-level": (4, 1)}
    assert work_of("full", *whole)["outline"].whole_images == 2
