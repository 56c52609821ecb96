"""Criteria for choosing among methods without masks, beside what the masks of the test images say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from micraframe.metrics.reduction import mean_defined
from micraframe.selection import CRITERIA
from micraframe.study.folder import StudyFolder
from micraframe.study.report.results import MethodResult


@dataclass(frozen=True)
class MethodCriteria:
    """What labels alone say of one method.

    Attributes:
        result: The method.
        thresholds: Origin of its thresholds; none needs masks.
        values: The criteria, in the order of `CRITERIA`: means over the seeds for which they are defined.
    """

    result: MethodResult
    thresholds: str
    values: tuple[float, ...]


def method_criteria(results: Iterable[MethodResult], folder: StudyFolder) -> tuple[MethodCriteria, ...]:
    """Return the criteria of methods, by origin of the thresholds; nothing of a study that did not ask for them."""
    found = []
    for result in results:
        table = pl.concat([folder.criteria(run) for run in result.runs])
        for (origin,), part in table.group_by("thresholds", maintain_order=True):
            values = tuple(mean_defined(part[column.name]) for column in CRITERIA)
            found.append(MethodCriteria(result, str(origin), values))
    return tuple(found)
