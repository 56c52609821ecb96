"""Compares annotators' masks of the same images: each annotator's masks against everyone else's."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe import registry
from micraframe.batch.evaluate import Record, measured_numbers, read_planes, refuse_numbered
from micraframe.datasets.paths import images_in
from micraframe.datasets.tables import check_images, columns_of, read_table
from micraframe.errors import ConfigError, DataError, MicraframeError, counted
from micraframe.images import read_class_names
from micraframe.interfaces import Metric, Statistics
from micraframe.metrics.reduction import MEAN_OVER_IMAGES, means_defined, stack, summarise
from micraframe.objects import components, count
from micraframe.types import IntArray, Prediction, Sample, Scores

METRICS: Final[dict[str, dict[str, Any]]] = {
    "micraframe/overlap": {},
    "micraframe/objects": {"iou": [0.5]},
    "micraframe/distances": {},
    "micraframe/object-distances": {},
}
_OMITTED = "iou_if_present"
"""It shows whether a method recognises images without the class; between annotators, IoU is enough."""

SECONDS: Final = "seconds_per_object"
"""The time that an annotation took, divided by the number of objects in it."""


@dataclass(frozen=True)
class AnnotatorStatistic:
    """One statistic of one annotator, image and class: the mean with each other annotator as the truth, or NaN."""

    annotator: str
    image: str
    class_: str
    statistic: str
    value: float


class AnnotatorComparison(NamedTuple):
    """The result of `compare_annotators`.

    Attributes:
        records: The numbers of each annotator: per metric, those of each class and over all classes.
        measured: The statistics of each image that they are reduced from.
        done: Number of images that were compared.
        failures: What went wrong, by the name of the image.
    """

    records: list[Record]
    measured: list[AnnotatorStatistic]
    done: int
    failures: dict[str, str]


def compare_annotators(
    folders: Sequence[Path], instances: bool | None = None, times: Path | None = None
) -> AnnotatorComparison:
    """Measure each annotator's masks, image by image, with each other annotator's as the truth.

    Args:
        folders: One per annotator, with files of the same names, except for suffixes: masks (H, W), or TIFFs of K
            planes, one for each class. Non-zero pixels are the class.
        instances: Whether the masks contain numbered objects; otherwise these are the connected components. None: the
            same, but masks that look numbered are refused.
        times: A table of the time that annotations took: image, annotator (the folder's name) and seconds.

    Raises:
        ConfigError: If there are not at least two different folders; or `instances` is None, and a mask has several
            values other than 0.
        DataError: If a folder is missing or contains no images, or two of the same name; or the table has other
            columns, an unknown annotator, or a time that is no positive number.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ConfigError(
            f"expected at least two different folders, one for each annotator, got "
            f"{', '.join(map(str, folders)) or 'none'}; name one more"
        )
    files = dict(zip(_names(folders), map(images_in, folders), strict=True))
    names = sorted(set().union(*files.values()))
    seconds = {} if times is None else _read_times(times, list(files), names)
    per_object: dict[str, dict[str, float]] = {annotator: {} for annotator in files}
    metrics = [registry.build("metric", name, **params) for name, params in METRICS.items()]
    found: dict[str, list[list[Statistics]]] = {}
    failures: dict[str, str] = {}
    counts: dict[str, int] = {}
    for image in names:
        try:
            masks = list(_read(image, files).values())
            if instances is None:
                for annotator, objects in zip(files, masks, strict=True):
                    refuse_numbered(objects, files[annotator][image])
            found[image] = [_against_all(image, masks, bool(instances), metric) for metric in metrics]
            counts[image] = len(masks[0])
            for annotator, objects in zip(files, masks, strict=True):
                number = count(objects if instances else components(objects != 0))
                if number and (annotator, image) in seconds:
                    per_object[annotator][image] = seconds[annotator, image] / number
        except ConfigError:  # of the whole call, not of one image
            raise
        except MicraframeError as error:
            failures[image] = str(error)
    usual = statistics.mode(counts.values()) if counts else 0
    for image, number in counts.items():
        if number != usual:
            expected = counted(usual, "class", "classes")
            failures[image] = f"expected {expected} as in most images, got {number}; split or merge the masks"
            del found[image]
            for timed in per_object.values():
                timed.pop(image, None)
    first = next(iter(found), "")
    classes = _class_names(folders, [own[first] for own in files.values()], usual) if found else []
    records: list[Record] = []
    measured: list[AnnotatorStatistic] = []
    for place, annotator in enumerate(files):
        for number, metric in enumerate(metrics):
            images = {image: several[number][place] for image, several in found.items()}
            if images:
                found_numbers = summarise(metric, stack(list(images.values()), len(classes)))
                records += (
                    {"annotator": annotator, **each.record()}
                    for each in measured_numbers(found_numbers, classes)
                    if each.metric != _OMITTED
                )
            measured += (
                AnnotatorStatistic(annotator, image, class_, statistic, float(value))
                for image, several in images.items()
                for statistic, values in several.items()
                if statistic != _OMITTED
                for class_, value in zip(classes, values, strict=True)
            )
        if times_per_object := [*per_object[annotator].values()]:
            value = float(np.mean(times_per_object))
            mean: Record = {"value": value, "images": len(times_per_object), "reduction": MEAN_OVER_IMAGES}
            records.append({"annotator": annotator, "metric": SECONDS, "class": "all", **mean})
    return AnnotatorComparison(records, measured, len(found), dict(sorted(failures.items())))


def _read_times(path: Path, annotators: Sequence[str], images: Sequence[str]) -> dict[tuple[str, str], float]:
    """Return how many seconds each annotator took for each image."""
    table = read_table(path)
    if set(columns_of(table)) != {"annotator", "seconds"}:
        raise DataError(f"{path}: expected columns image, annotator and seconds, got {', '.join(columns_of(table))}")
    check_images(table, images, "the folders")
    found: dict[tuple[str, str], float] = {}
    for image, rows in table.items():
        for row in rows:
            annotator, text = row.cells["annotator"], row.cells["seconds"]
            if annotator not in annotators:
                raise DataError(f"{row.place}: expected one of the folders {', '.join(annotators)}, got {annotator!r}")
            try:
                seconds = float(text)
            except ValueError:
                seconds = math.nan
            if not 0 < seconds < math.inf:
                raise DataError(f"{row.place}: expected a positive number of seconds, got {text!r}; correct it")
            if (annotator, image) in found:
                raise DataError(f"{row.place}: expected one time of {annotator} for {image}, got another; remove one")
            found[annotator, image] = seconds
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, or their paths where two have the same name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _class_names(folders: Sequence[Path], masks: Sequence[Path], count: int) -> list[str]:
    """Return the names of the classes: those that a TIFF contains, or the name of all folders, or else numbers.

    `masks` are the annotators' files for one image.
    """
    for path in masks:
        names = read_class_names(path) if path.suffix.lower() in (".tif", ".tiff") else ()
        if len(set(names) - {""}) == count:
            return list(names)
    shared = {folder.resolve().name for folder in folders}
    return list(shared) if len(shared) == count == 1 else [str(index + 1) for index in range(count)]


def _read(image: str, files: dict[str, dict[str, Path]]) -> dict[str, IntArray]:
    """Return each annotator's masks of an image, int32 (K, H, W)."""
    if missing := [annotator for annotator, own in files.items() if image not in own]:
        raise DataError(
            f"expected a mask {image}.* from every annotator, got none from {', '.join(missing)}; add one (all zeros "
            "if nothing was marked)"
        )
    found = {annotator: read_planes(own[image]) for annotator, own in files.items()}
    if len({masks.shape for masks in found.values()}) > 1:
        shapes = ", ".join(f"{annotator} {masks.shape}" for annotator, masks in found.items())
        raise DataError(f"expected masks of the same shape (K, H, W) from every annotator, got {shapes}; correct them")
    return found


def _against_all(image: str, masks: Sequence[IntArray], instances: bool, metric: Metric[Any]) -> list[Statistics]:
    """Return each annotator's statistics of one image: the means with each other annotator as the truth."""
    truths = [_sample(image, objects, instances) for objects in masks]
    predictions = [_prediction(objects, instances) for objects in masks]
    places = range(len(masks))
    pairs = {
        (truth, one): metric.measure(predictions[one], truths[truth])
        for truth, one in itertools.permutations(places, 2)
    }

    def mean(name: str, one: int) -> npt.NDArray[np.float64]:
        return means_defined(np.array([pairs[truth, one][name] for truth in places if truth != one], np.float64).T)

    return [{name: mean(name, one) for name in pairs[0, 1]} for one in places]


def _prediction(objects: IntArray, instances: bool) -> Prediction:
    masks = objects != 0
    present = np.asarray(masks.any(axis=(1, 2)))
    scores = Scores.without_maps(present.astype(np.float32))
    return Prediction(scores, present, masks, objects if instances else None)


def _sample(image: str, objects: IntArray, instances: bool) -> Sample:
    blank = np.zeros((1, *objects.shape[1:]), np.float32)
    return Sample(image, blank, masks=objects != 0, instances=objects if instances else None)
