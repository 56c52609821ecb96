"""What a training has achieved: whether the classifier decides better than chance, and the test images' numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from micraframe import registry
from micraframe.batch.evaluate import MeasuredNumber, measured_numbers
from micraframe.batch.splits import SampleLabels
from micraframe.batching import spread
from micraframe.config import Choice
from micraframe.heads.instance import InstanceHead
from micraframe.interfaces import Statistics
from micraframe.metrics.precision_recall import area_under_roc
from micraframe.metrics.reduction import stack, summarise
from micraframe.pipeline import Pipeline
from micraframe.types import BoolArray, FloatArray, Progress, Sample

CHANCE: Final = 0.5
"""The balanced accuracy of every constant answer, and the area under the ROC curve of one."""

MOST_IMAGES: Final = 100
"""Largest number of images on which `f1_without_contact` compares objects, evenly chosen."""

_MEASURED: Final = {
    "micraframe/classification": ("correct", "average_precision"),
    "micraframe/overlap": ("iou", "iou_if_present"),
}


@dataclass(frozen=True)
class Learned:
    """How well one class's presence is decided on validation samples.

    Attributes:
        class_: The class.
        positive: Number of samples with it.
        negative: Number of samples without it.
        balanced_accuracy: Mean of the shares of both that are decided correctly; NaN if there are none of either.
        auc: Area under the ROC curve of the presence probabilities; NaN if there are none of either.
    """

    class_: str
    positive: int
    negative: int
    balanced_accuracy: float
    auc: float

    @property
    def decides(self) -> bool:
        """Whether the balanced accuracy is known and exceeds that of a constant answer by more than a standard error.

        The error is that of guesses, whose two shares of correct decisions are binomial with a probability of one half.
        """
        if math.isnan(self.balanced_accuracy):
            return False
        return self.balanced_accuracy - CHANCE > math.sqrt(1 / self.positive + 1 / self.negative) / 4

    @property
    def ranks(self) -> bool:
        """Whether the area under the ROC curve is known and exceeds 0.5 by over two standard errors of random ranks.

        Two, since it is reported as the exception: a classifier that ranks well but decides poorly.
        """
        if math.isnan(self.auc):
            return False
        error = math.sqrt((self.positive + self.negative + 1) / (12 * self.positive * self.negative))
        return self.auc - CHANCE > 2 * error


def learned(pipeline: Pipeline, samples: Sequence[Sample], known: Sequence[SampleLabels]) -> list[Learned]:
    """Return how well the pipeline's presence threshold decides each class on validation samples; no map is computed.

    Args:
        pipeline: A trained pipeline.
        samples: Validation samples; those with unknown labels are left out.
        known: The labels of each.
    """
    pairs = [(sample.image, each.labels) for sample, each in zip(samples, known, strict=True) if each.labels]
    if not pairs:
        return []
    scored = pipeline.score((image for image, _ in pairs), lambda presence: ())
    presence = np.stack([scores.presence for scores in scored])
    present = np.stack([pipeline.head.present(row) for row in presence])
    labels = np.array([each for _, each in pairs])
    return [
        judge(name, labels[:, index], presence[:, index], present[:, index])
        for index, name in enumerate(pipeline.info.classes)
    ]


def judge(class_: str, labels: BoolArray, presence: FloatArray, present: BoolArray) -> Learned:
    """Return how well one class's presence is decided, from the truth, its probability, and the decision, each (N,)."""
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not (positive and negative):
        return Learned(class_, positive, negative, math.nan, math.nan)
    balanced = (present[labels].mean() + (~present[~labels]).mean()) / 2
    return Learned(class_, positive, negative, float(balanced), area_under_roc(labels, presence))


def complaints(found: Sequence[Learned]) -> list[str]:
    """Return a sentence, for each reason, about the classes that are not decided better than by a constant answer."""
    kinds: dict[str, list[Learned]] = {"none": [], "all": [], "ranked": [], "unlearned": []}
    for one in found:
        if math.isnan(one.balanced_accuracy):
            kinds["all" if one.positive else "none"].append(one)
        elif not one.decides:
            kinds["ranked" if one.ranks else "unlearned"].append(one)
    said = [
        f"{_classes(those)} {'are' if len(those) > 1 else 'is'} in {where} of the "
        f"{those[0].positive + those[0].negative} validation samples, so whether presence was learned cannot be judged"
        for where in ("none", "all")
        if (those := kinds[where])
    ]
    if ranked := kinds["ranked"]:
        said.append(
            f"{_classes(ranked)}: the classifier orders the validation samples well (area under the ROC curve "
            f"{_range(one.auc for one in ranked)}), but its decisions are no better than a constant answer (balanced "
            f"accuracy {_range(one.balanced_accuracy for one in ranked)}); set the head's presence_threshold"
        )
    if unlearned := kinds["unlearned"]:
        said.append(
            f"{_classes(unlearned)}: the classifier has not learned {'them' if len(unlearned) > 1 else 'it'}: with "
            f"{_range((one.positive for one in unlearned), 0)} validation samples that contain the class and "
            f"{_range((one.negative for one in unlearned), 0)} that do not, balanced accuracy is "
            f"{_range(one.balanced_accuracy for one in unlearned)} (a constant answer has 0.50); check the labels, "
            "train longer, or change learning_rate or dropout"
        )
    return said


def _classes(those: Sequence[Learned]) -> str:
    return f"class{'es' if len(those) > 1 else ''} {', '.join(repr(one.class_) for one in those)}"


def _range(values: Iterable[float], digits: int = 2) -> str:
    """Return the lowest and the highest value, or the only one."""
    known = sorted(values)
    return " to ".join(dict.fromkeys(f"{value:.{digits}f}" for value in (known[0], known[-1])))


def contact_complaints(pipeline: Pipeline, found: Sequence[Learned], samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a sentence if subtracting the map of the contact class does harm, or probably does.

    Samples with numbered objects show it; without any, the accuracy of the contact class in `found` decides.
    """
    if not _subtracts(pipeline):
        return
    name = pipeline.info.classes[pipeline.info.roles.index("contact")]
    advice = "set contact_map: none for the head (remodel --set contact_map=none), or improve this class's labels"
    compared = f1_without_contact(pipeline, samples)
    if compared is not None:
        subtracted, alone, count = compared
        if subtracted < alone:
            yield (
                f"class {name!r}: subtracting its map lowers F1 of objects (IoU of 0.5 or more) on {count} images with "
                f"numbered objects from {alone:.3f} to {subtracted:.3f}; {advice}"
            )
    elif any(one.class_ == name and not one.decides for one in found):
        yield f"class {name!r}: its map is subtracted, although it was not learned, and may cut objects; {advice}"


def f1_without_contact(pipeline: Pipeline, samples: Sequence[Sample]) -> tuple[float, float, int] | None:
    """Return pooled F1 of objects at an IoU of 0.5, with and without the contact map subtracted, and the images used.

    Up to `MOST_IMAGES` of the samples are used, those with numbered objects. None if there are none, or the head
    subtracts nothing.
    """
    if not _subtracts(pipeline):
        return None
    truths = [sample for sample in spread(samples, MOST_IMAGES) if sample.instances is not None]
    if not truths:
        return None
    params = pipeline.head.params.model_dump(mode="json") | {"contact_map": "none"}
    heads = (pipeline, pipeline.with_head(Choice(name=pipeline.head_name, params=params)))
    metric = registry.build("metric", "micraframe/objects", iou=(0.5,))
    statistics: tuple[list[Statistics], ...] = ([], [])
    for truth, scores in zip(truths, pipeline.score(sample.image for sample in truths), strict=True):
        for several, decides in zip(statistics, heads, strict=True):
            several.append(metric.measure(decides.decide(scores, truth.image), truth))
    contact = [pipeline.info.roles.index("contact")]
    subtracted, alone = (
        next(
            each.overall
            for each in summarise(metric, stack(several, len(pipeline.info.classes)), contact)
            if each.column.name == "object_f1_pooled@0.5"
        )
        for several in statistics
    )
    return float(subtracted), float(alone), len(truths)


def _subtracts(pipeline: Pipeline) -> bool:
    params = pipeline.head.params
    subtracts = isinstance(params, InstanceHead.Params) and params.contact_map != "none"
    return subtracts and "contact" in pipeline.info.roles


def measure(pipeline: Pipeline, samples: Sequence[Sample], progress: Progress) -> list[MeasuredNumber]:
    """Return the defined numbers of test samples: accuracy and average precision, and IoU where there are masks.

    Each sample, with its full annotation, is read once.
    """
    metrics = {name: registry.build("metric", name) for name in _MEASURED}
    contact = [index for index, role in enumerate(pipeline.info.roles) if role == "contact"]
    statistics = []
    truths, images = itertools.tee(iter(samples))
    predictions = pipeline.predict(sample.image for sample in images)
    for number, (truth, prediction) in enumerate(zip(truths, predictions, strict=True), start=1):
        statistics.append([metric.measure(prediction, truth) for metric in metrics.values()])
        progress.advance("test", number, len(samples))
    found: list[MeasuredNumber] = []
    for (name, metric), several in zip(metrics.items(), zip(*statistics, strict=True), strict=bool(statistics)):
        stacked = stack(several, len(pipeline.info.classes))
        reduced = [each for each in summarise(metric, stacked, contact) if each.column.name in _MEASURED[name]]
        found += measured_numbers(reduced, pipeline.info.classes)
    return [one for one in found if not math.isnan(one.value)]
