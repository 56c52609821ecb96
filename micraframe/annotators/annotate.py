"""Annotating samples for a method: what it may see of them, and the work that it takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from micraframe.interfaces import Annotator
from micraframe.types import Annotation, Sample, Task, Work


def annotate_samples(
    samples: Iterable[Sample], annotator: Annotator[Any], allowed: frozenset[Annotation], seed: int
) -> tuple[tuple[Sample, ...], tuple[Work, ...]]:
    """Return what a method may see of samples, and the work of annotating them, summed for each task.

    The samples hold the annotator's annotation without the fields that the method may not use, and nothing that leads
    back to the dataset or to what the annotator removed.

    Args:
        samples: Fully annotated.
        annotator: The simulated person.
        allowed: The annotations that the method can learn from.
        seed: Determines, together with each sample's id, everything random.
    """
    kept: list[Sample] = []
    works: list[Work] = []
    for sample in samples:
        annotated, work = annotator.annotate(sample, seed)
        kept.append(annotated.keep(allowed))
        works.append(work)
    return tuple(kept), total_work(works)


def total_work(works: Iterable[Work]) -> tuple[Work, ...]:
    """Return the sum of work for each task, in order of first appearance."""
    total: dict[Task, Work] = {}
    for work in works:
        total[work.task] = total[work.task] + work if work.task in total else work
    return tuple(total.values())
