"""How often each method fails, and how: test images by kind of failure, from labels, precision and recall.

Precision and recall are those of a mask's pixels or, where a study's primary metric is one of detection, of an image's
detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from micraframe.interfaces import Statistics, quotient
from micraframe.study.report.results import DatasetResults, MethodResult
from micraframe.study.report.wording import listed, percent_text
from micraframe.study.tables import Values

Double = npt.NDArray[np.float64]
Kinds = npt.NDArray[np.intp]

WITH_CLASS: Final = ("good", "too little", "too much", "elsewhere", "missed entirely")
"""Kinds of an image that contains the class: the first is no failure."""

WITHOUT_CLASS: Final = ("rightly empty", "false alarm")
"""Kinds of an image that does not contain it."""

KINDS: Final = (*WITH_CLASS, *WITHOUT_CLASS)

LEAST: Final = 0.5
"""The precision and the recall of a good mask, or of good detections."""

_OF_MASKS: Final = ("label", "correct", "precision", "recall")
_OF_DETECTIONS: Final = ("correct", "detection_tp", "detection_predicted", "detection_true")

_WORDS_OF_MASKS: Final = (
    "it misses most of the object",
    "most of what it marks is not the object",
    "it marks the wrong place",
    "it misses the object entirely",
)
_WORDS_OF_DETECTIONS: Final = (
    "it misses most of the objects",
    "most of its detections are false",
    "most of its detections are false and it misses most of the objects",
    "it misses every object",
)


def failure_kinds(label: Double, correct: Double, precision: Double, recall: Double) -> Kinds:
    """Return the kind of each image, as an index of `KINDS`, from arrays of one shape.

    A class is found where it was judged present and the mask is not empty. Images that contain the class are `missed
    entirely` if it was not found; else `good` if precision and recall are both at least 0.5, `too little` if only
    recall is lower, `too much` if only precision is, and `elsewhere` if both are. Images without the class are a `false
    alarm` if it was judged present or the mask is not empty, and `rightly empty` otherwise.

    Args:
        label: 1 where the image contains the class, else 0; NaN if unknown.
        correct: 1 where the presence of the class was judged correctly, else 0; NaN if unknown.
        precision: Of the mask's pixels, or of detections, in [0, 1]; NaN where there are none.
        recall: In [0, 1]; NaN where nothing is to be found, or the truth is unknown.

    Returns:
        -1 for an image that is not counted: its label is unknown, or contradicts its true mask or positions.
    """
    contains, lacks = (label == 1) & ~np.isnan(recall), (label == 0) & np.isnan(recall)
    present, marked = (label == 1) == (correct == 1), ~np.isnan(precision)
    much, little = precision < LEAST, recall < LEAST
    # The first that holds.
    rules = (
        ("missed entirely", contains & ~(present & marked)),
        ("elsewhere", contains & much & little),
        ("too much", contains & much),
        ("too little", contains & little),
        ("good", contains),
        ("false alarm", lacks & (present | marked)),
        ("rightly empty", lacks),
    )
    return np.select([holds for _, holds in rules], [KINDS.index(kind) for kind, _ in rules], default=-1)


def kind_counts(per_model: Sequence[Kinds]) -> Double:
    """Return the number of images of each kind, float64 (K, 7): the mean over trained models, each (N, K)."""
    counts = [(kinds[..., None] == np.arange(len(KINDS))).sum(axis=0) for kinds in per_model]
    return np.asarray(np.mean(counts, axis=0, dtype=np.float64))


def kind_shares(counts: Double) -> Double:
    """Return the share of each kind, (..., 7): of the images that contain the class, or of those that do not.

    NaN where there are no such images.
    """
    sums = np.repeat(image_counts(counts), [len(WITH_CLASS), len(WITHOUT_CLASS)], axis=-1)
    return quotient(counts, sums)


def image_counts(counts: Double) -> Double:
    """Return the number of images that contain the class, and of those that do not, (..., 7) to (..., 2)."""
    return np.add.reduceat(counts, [0, len(WITH_CLASS)], axis=-1)


@dataclass(frozen=True, eq=False)
class MethodFailures:
    """How often one method fails.

    Attributes:
        result: The method.
        per_class: Share of each kind, (K, 7), mean over trained models.
        shares: The same of all pairs of an image and a class together, (7,), the contact class left out.
    """

    result: MethodResult
    per_class: Double
    shares: Double

    @property
    def name(self) -> str:
        """The method and its annotation, with its number in the table if it has one."""
        return f"{self.result.number} {self.result.name}" if self.result.number else self.result.name

    @property
    def most_frequent(self) -> int | None:
        """The most frequent failure in images that contain the class, as an index of `KINDS`; None without any."""
        failures = self.shares[1 : len(WITH_CLASS)]
        return int(failures.argmax()) + 1 if failures.any() else None

    def sentence(self, detections: bool) -> str:
        """Return how often the method fails to mark or to detect, and how it fails most often, in words."""
        words = _WORDS_OF_DETECTIONS if detections else _WORDS_OF_MASKS
        text = f"{self.result.name} fails in {percent_text(1 - self.shares[0])} of the images that contain the class"
        worst = self.most_frequent
        if worst is not None:
            text += f", most often because {words[worst - 1]} ({percent_text(self.shares[worst])})"
        if not np.isnan(self.shares[-1]):
            text += f", and raises a false alarm in {percent_text(self.shares[-1])} of those without it"
        return f"{text}."


@dataclass(frozen=True, eq=False)
class DatasetFailures:
    """How often methods fail on one dataset.

    Attributes:
        methods: Those whose failures are known; at least one.
        per_class: Number of counted test images that contain each class, and of those that do not, (K, 2).
        images: The same of all pairs of an image and a class together, (2,), the contact class left out.
        sentences: Of each method that a planned comparison names.
        unknown: Names of the methods whose failures are not known.
        detections: Whether precision and recall are of detections, not of masks.
    """

    methods: tuple[MethodFailures, ...]
    per_class: Double
    images: Double
    sentences: tuple[str, ...]
    unknown: tuple[str, ...]
    detections: bool


def dataset_failures(found: DatasetResults, values: Values) -> DatasetFailures | None:
    """Return how often the methods of the table, and variants in planned comparisons, fail with fixed thresholds.

    Returns:
        None where no method was measured by `classification` and `overlap` or, by detections, `classification` and
        `detection`.
    """
    detections = by_detections(found)
    planned = dict.fromkeys(name for test in found.tests("planned") for name in (test.first, test.second))
    objects = np.array(found.info.roles) != "contact"
    methods, unknown, images = {}, [], None
    for result in (*found.results, *(each for each in found.variants if each.key in planned)):
        per_model = image_kinds(values.statistics(result.group), detections)
        counts = kind_counts(per_model) if per_model else np.zeros((len(objects), len(KINDS)))
        total = counts[objects].sum(axis=0)
        if not total[: len(WITH_CLASS)].any():
            unknown.append(result.name)
            continue
        methods[result.key] = MethodFailures(result, kind_shares(counts), kind_shares(total))
        images = images or (image_counts(counts), image_counts(total))
    sentences = tuple(methods[name].sentence(detections) for name in planned if name in methods)
    shown = tuple(methods.values())
    return DatasetFailures(shown, *images, sentences, tuple(unknown), detections) if images else None


def by_detections(found: DatasetResults) -> bool:
    """Return whether kinds are by the precision and recall of detections: where the primary metric is one of them."""
    return found.primary.name.startswith("detection_")


def image_kinds(statistics: Sequence[Statistics], detections: bool) -> tuple[Kinds, ...]:
    """Return the kind of every image and class, (N, K), for each trained model of which it was measured.

    The rows of a committed study may lack it, so that it is known only of the models that were added since.

    Args:
        statistics: Of each model, (N, K).
        detections: Whether they are by detections. The label is then the image's or, in the rows of a committed study,
            which may lack it, whether the image has a true position.
    """
    names = _OF_DETECTIONS if detections else _OF_MASKS
    found = []
    for each in statistics:
        if not each.keys() >= set(names):
            continue
        columns = [np.asarray(each[name], np.float64) for name in names]
        if detections:
            correct, hits, predicted, true = columns
            label = np.asarray(each.get("label", true > 0), np.float64)
            label = np.where(np.isnan(correct) | np.isnan(true), np.nan, label)
            columns = [label, correct, quotient(hits, predicted), quotient(hits, true)]
        found.append(failure_kinds(*columns))
    return tuple(found)


def kinds_text(kinds: Kinds, classes: Sequence[str]) -> str:
    """Return what one image is, (K,), in words: the kind of the only class, or the classes of each kind of failure."""
    if len(classes) == 1:
        return KINDS[kinds[0]] if kinds[0] >= 0 else ""
    failed = {
        kind: [name for name, each in zip(classes, kinds, strict=True) if each == place]
        for place, kind in enumerate(KINDS)
        if kind not in ("good", "rightly empty")
    }
    return "; ".join(f"{kind}: {listed(names)}" for kind, names in failed.items() if names)
