"""Compares annotators' masks of the same images: each against all others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from micraframe import registry
from micraframe.batch.evaluate import Measured, means
from micraframe.datasets.paths import images_in
from micraframe.errors import ConfigError, DataError, MicraframeError
from micraframe.images import read_labels
from micraframe.interfaces import Metric
from micraframe.metrics.agreement import one_against_all
from micraframe.types import IntArray, Prediction, Sample

_METRICS: dict[str, dict[str, object]] = {"overlap": {}, "objects": {"iou": [0.5]}, "distances": {}}
_LEFT_OUT = ("iou_if_present",)
"""It asks whether a method decided presence; between annotators, the IOU says all."""


@dataclass(frozen=True)
class Agreement:
    """One number of one annotator, image and class: the mean over the others as the truth; NaN if undefined."""

    annotator: str
    image: str
    class_: str
    metric: str
    value: float


def compare_annotators(folders: Sequence[Path], instances: bool = False) -> tuple[list[Agreement], dict[str, str]]:
    """Measure each annotator's masks, image by image, with each of the others' as the truth.

    Args:
        folders: Of each annotator, with files of the same names, suffixes apart: masks (H, W), or TIFFs of K planes,
            one for each class. Whatever is not 0 is the class.
        instances: Are objects numbered in the masks; else they are the masks' connected pieces.

    Returns:
        The numbers, and what went wrong by the name of the image.

    Raises:
        ConfigError: If there are not at least two different folders.
        DataError: If a folder is missing or holds no images, or two of one name.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ConfigError(
            f"{', '.join(map(str, folders)) or 'no folder'}: wanted are two folders or more, one for each annotator"
        )
    files = dict(zip(_names(folders), map(images_in, folders), strict=True))
    metrics = [registry.build("metric", name, **params) for name, params in _METRICS.items()]
    found: list[Agreement] = []
    failures: dict[str, str] = {}
    for image in sorted(set().union(*files.values())):
        try:
            masks = _read(image, files)
            found += _against_all(image, masks, instances, metrics)
        except MicraframeError as error:
            failures[image] = str(error)
    return found, failures


def summarise(found: Sequence[Agreement]) -> list[dict[str, str | float | int]]:
    """Return, per annotator, metric and class, the mean over the images for which it is defined, and their number."""
    rows: list[dict[str, str | float | int]] = []
    for annotator in dict.fromkeys(one.annotator for one in found):
        mine = [Measured(one.image, one.class_, one.metric, one.value) for one in found if one.annotator == annotator]
        rows += ({"annotator": annotator, **row} for row in means(mine))
    return rows


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, or their paths where two have one name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _read(image: str, files: dict[str, dict[str, Path]]) -> dict[str, IntArray]:
    """Return each annotator's masks of an image, int32 (K, H, W)."""
    if missing := [annotator for annotator, mine in files.items() if image not in mine]:
        raise DataError(f"no mask {image}.* of {', '.join(missing)}; the others have one: add it, empty if need be")
    found = {annotator: read_labels(mine[image]) for annotator, mine in files.items()}
    found = {annotator: masks if masks.ndim == 3 else masks[None] for annotator, masks in found.items()}
    if len({masks.shape for masks in found.values()}) > 1:
        shapes = ", ".join(f"{annotator} {masks.shape}" for annotator, masks in found.items())
        raise DataError(f"its masks differ in shape (K, H, W): {shapes}; all must be of the same classes and size")
    return found


def _against_all(image: str, masks: dict[str, IntArray], instances: bool, metrics: Sequence[Metric]) -> list[Agreement]:
    """Return every number of every annotator for one image."""
    objects = list(masks.values())
    pairs: dict[tuple[str, int], dict[tuple[int, int], float]] = defaultdict(dict)
    for truth, one in permutations(range(len(objects)), 2):
        sides = _prediction(objects[one], instances), _sample(image, objects[truth], instances)
        for metric in metrics:
            for name, values in metric.measure(*sides).items():
                for index, value in enumerate(values):
                    pairs[name, index][truth, one] = float(value)
    return [
        Agreement(annotator, image, str(index + 1), name, value)
        for (name, index), values in pairs.items()
        if name not in _LEFT_OUT
        for annotator, value in zip(masks, _means(values, len(objects)), strict=True)
    ]


def _means(pairs: Mapping[tuple[int, int], float], count: int) -> list[float]:
    """Return each annotator's mean of what was measured of pairs: of the truth and the other one, in this order."""
    return [float(mean) for mean in one_against_all(range(count), lambda truth, one: pairs[truth, one])]


def _prediction(objects: IntArray, instances: bool) -> Prediction:
    masks = objects != 0
    present = np.asarray(masks.any(axis=(1, 2)))
    return Prediction(present.astype(np.float32), present, masks, objects if instances else None)


def _sample(image: str, objects: IntArray, instances: bool) -> Sample:
    blank = np.zeros((1, *objects.shape[1:]), np.float32)
    return Sample(image, blank, masks=objects != 0, instances=objects if instances else None)
