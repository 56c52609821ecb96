"""What `auto` stands for in a head: smoothing and minimum size, from the objects of some images.

With A the area of the median object and d = sqrt(4 A / pi) its diameter, both in pixels of the images,

    smoothing = `SMOOTHED` d,    minimum size = `SMALLEST` A

Objects are known from masks, numbered objects or boxes. From labels alone they are the components that the head itself
finds in images with the class, without those smaller than `SPECK` of the largest one in their image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from micraframe.batching import spread
from micraframe.interfaces import Head, Score, Thresholds
from micraframe.objects import components, objects_of
from micraframe.types import DatasetInfo, IntArray, Sample

SMOOTHED: Final = 0.1
SMALLEST: Final = 0.25
SPECK: Final = 0.1

MOST_IMAGES: Final = 100
"""Largest number of images that are looked at, evenly chosen."""

_AUTO: Final = ("smoothing", "minimum_size")


def has_auto(head: Head[Any]) -> bool:
    """Return whether a value of the head is still to be found."""
    return any(getattr(head.params, name, None) == "auto" for name in _AUTO)


def with_values(head: Head[Any], values: dict[str, Any]) -> Head[Any]:
    """Return the head with the values in place of those of its parameters that are `auto`."""
    found = {name: value for name, value in values.items() if getattr(head.params, name, None) == "auto"}
    return type(head)(type(head.params).model_validate(head.params.model_dump() | found))


def without_auto(head: Head[Any]) -> Head[Any]:
    """Return the head that neither smooths nor removes components where it says `auto`."""
    return with_values(head, dict.fromkeys(_AUTO, 0.0))


def with_sizes(head: Head[Any], samples: Sequence[Sample], score: Score, info: DatasetInfo) -> Head[Any]:
    """Return the head with numbers in place of `auto`; 0 where there is no object.

    Args:
        head: It makes masks, if anything of it is `auto`.
        samples: Up to `MOST_IMAGES` of them are used, with all annotation that they have.
        score: Scores images, if there is nothing but labels.
        info: Metadata of the dataset that the model learned from.
    """
    if not has_auto(head):
        return head
    chosen = spread(samples, MOST_IMAGES)
    objects = [index for index, role in enumerate(info.roles) if role == "object"]
    known = np.concatenate([np.zeros(0), *(_known_areas(sample, objects) for sample in chosen)])
    areas = known if known.size else _found_areas(head, chosen, score, info, objects)
    area = float(np.median(areas)) if areas.size else 0.0
    smoothing, minimum = SMOOTHED * np.sqrt(4 * area / np.pi), SMALLEST * area / info.scale**2
    return with_values(head, {"smoothing": round(float(smoothing), 2), "minimum_size": round(minimum, 1)})


def _known_areas(sample: Sample, classes: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the areas of a sample's objects, of these classes; an object fills pi / 4 of its box, as an ellipse."""
    if sample.instances is not None or sample.masks is not None:
        found = objects_of(sample)
        return np.concatenate([_areas(found[index]) for index in classes])
    if sample.boxes is None:
        return np.zeros(0)
    sides = np.concatenate([sample.boxes[index][:, 2:] - sample.boxes[index][:, :2] for index in classes])
    return np.asarray(np.pi / 4 * sides.prod(axis=1, dtype=np.float64))


def _found_areas(
    head: Head[Any], samples: Sequence[Sample], score: Score, info: DatasetInfo, classes: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Return the areas of the components of these classes that the head finds in images with the class."""
    labelled = [(sample.image, sample.labels) for sample in samples if sample.labels is not None]
    # At a threshold of 0, a class counts as present; contact is subtracted only where the head would.
    own = np.broadcast_to(head.params.presence_threshold, len(info.classes)).tolist()
    presence = tuple(0.0 if role == "object" else each for role, each in zip(info.roles, own, strict=True))
    forced = without_auto(head).with_thresholds(Thresholds(presence))
    every = score((image for image, _ in labelled), forced.classes_to_explain)
    found: list[npt.NDArray[np.float64]] = [np.zeros(0)]
    for (image, labels), scores in zip(labelled, every, strict=True):
        prediction = forced.decide(scores, image, info)
        assert prediction.masks is not None
        instances = components(prediction.masks) if prediction.instances is None else prediction.instances
        for index in classes:
            if labels[index]:
                areas = _areas(instances[index])
                found.append(areas[areas >= SPECK * areas.max(initial=0)])
    return np.concatenate(found)


def _areas(labels: IntArray) -> npt.NDArray[np.float64]:
    counts = np.bincount(labels.ravel())[1:]
    return counts[counts > 0].astype(np.float64)
