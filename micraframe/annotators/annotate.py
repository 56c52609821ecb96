"""Annotating samples for a method: the annotation that it may use, and the work that it takes."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from micraframe.interfaces import Annotator
from micraframe.objects import boxes_of, count
from micraframe.types import Annotation, ImagePart, IntArray, Sample, Task, Work


@dataclass(frozen=True)
class SampleWork:
    """The work of annotating one sample, with what `total_work` needs to sum it over samples.

    Attributes:
        work: The annotator's work.
        part: The part of the whole image that the sample shows.
        pieces: Number of objects in the sample, whole or cut, if it is a crop.
    """

    work: Work
    part: ImagePart
    pieces: int


def outlined(sample: Sample, objects: IntArray, drawn: IntArray, decisions: int) -> tuple[Sample, Work]:
    """Return the sample with its labels and outlines, as masks and instances, and the work of so many decisions.

    Args:
        sample: Fully annotated.
        objects: int32 (K, H, W): its objects.
        drawn: int32 (K, H, W): these objects as they were outlined.
        decisions: Decisions of all outlines.
    """
    kept = sample.keep({Annotation.LABELS, Annotation.MASKS, Annotation.INSTANCES})
    work = Work("outline", objects=count(objects), decisions=decisions, judgements=len(objects))
    return dataclasses.replace(kept, masks=drawn > 0, instances=drawn), work


def annotate_samples(
    samples: Iterable[Sample], annotator: Annotator[Any], allowed: frozenset[Annotation], seed: int
) -> tuple[tuple[Sample, ...], tuple[Work, ...]]:
    """Return samples as a method may see them, and the total work of annotating them: `annotate`, `total_work`."""
    kept: list[Sample] = []
    works: list[SampleWork] = []
    for sample in samples:
        annotated, work = annotate(sample, annotator, allowed, seed)
        kept.append(annotated)
        works.append(work)
    return tuple(kept), total_work(works)


def annotate(
    sample: Sample, annotator: Annotator[Any], allowed: frozenset[Annotation], seed: int
) -> tuple[Sample, SampleWork]:
    """Return a sample as a method may see it, and the work of annotating it.

    The sample holds the annotator's annotation without the fields that the method may not use, and nothing that leads
    back to the dataset or to what the annotator removed. An empty image, in which nothing is drawn, is only judged: its
    work is that of an image-level label for every annotator.

    Args:
        sample: Fully annotated.
        annotator: The annotator.
        allowed: The annotations that the method can learn from.
        seed: Determines, together with the sample's id, everything random.
    """
    annotated, work = annotator.annotate(sample, seed)
    if not work.objects:
        work = dataclasses.replace(work, task="image-level", decisions=max(work.decisions, 1))
    pieces = sum(map(len, boxes_of(sample))) if work.objects and sample.part.image else 0
    return annotated.keep(allowed), SampleWork(work, sample.part, pieces)


def total_work(works: Iterable[SampleWork]) -> tuple[Work, ...]:
    """Return the work of annotating samples together, for each task, in order of first appearance.

    An object that is cut by the edges of crops is drawn once, in the whole image, not once per crop. The number of
    objects drawn in crops is therefore multiplied by

        distinct objects of the whole images that the crops show / objects in the crops, whole and in parts,

    which is exact if every object is drawn. Crops that were looked at and dropped as ambiguous count as judged images.
    A whole image whose crops are drawn in and judged counts where it is drawn in.
    """
    listed = list(works)
    drawn_in = {each.part.image for each in listed if each.work.task != "image-level"}
    total: dict[Task, Work] = {}
    for task in dict.fromkeys(each.work.task for each in listed):
        same = [each for each in listed if each.work.task == task]
        summed = functools.reduce(operator.add, (each.work for each in same))
        crops = [each.part.image for each in same if each.part.image]
        further = len(crops) - len(set(crops) - (drawn_in if task == "image-level" else set()))
        total[task] = dataclasses.replace(summed, objects=_objects(same), further_crops=further)
    dropped = round(sum(each.part.judged - 1 for each in listed))
    if dropped:
        judgements = round(sum((each.part.judged - 1) * each.work.judgements for each in listed))
        further = round(sum(each.part.judged - 1 for each in listed if each.part.image))
        looks = Work("image-level", dropped, 0, dropped, judgements, further)
        total[looks.task] = total[looks.task] + looks if looks.task in total else looks
    return tuple(total.values())


def _objects(works: Iterable[SampleWork]) -> float:
    """Return how many objects were drawn; an object that several crops show counts once."""
    whole = [each for each in works if not each.part.image]
    crops = [each for each in works if each.part.image]
    drawn, pieces = sum(each.work.objects for each in crops), sum(each.pieces for each in crops)
    distinct = {(each.part.image, *numbers) for each in crops for numbers in each.part.objects}
    shared = drawn * len(distinct) / pieces if pieces else drawn
    return sum(each.work.objects for each in whole) + shared
