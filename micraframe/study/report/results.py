"""The results of a study, method by method: what the report's tables and figures are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from micraframe.config import Study
from micraframe.interfaces import Column
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import StudyRun, check_columns
from micraframe.study.report.wording import annotation_text, slugs
from micraframe.study.tables import CostRow, Difference, Group, StudyTables, Summary
from micraframe.types import DatasetInfo

ALPHA = 0.05
"""The level at which a difference is significant, by F and after Holm's correction."""

_SECONDS_PER_HOUR = 3600


class HoursRange(NamedTuple):
    """An annotation time in hours: expected, lowest and highest plausible."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MethodResult:
    """What one method with one annotation achieved on one dataset.

    Attributes:
        number: Its number in tables and figures, from 1.
        runs: Its completed runs, one per seed, in the order of seeds; at least one.
        planned: Number of seeds in the study.
        hours: Annotation time with fixed thresholds, mean over seeds.
        tuned_hours: With thresholds tuned on validation images; None where none were tuned.
        summaries: By origin of the thresholds and metric.
    """

    number: int
    runs: tuple[StudyRun, ...]
    planned: int
    hours: HoursRange
    tuned_hours: HoursRange | None
    summaries: Mapping[tuple[str, str], Summary]

    @property
    def method(self) -> str:
        """The method's name in tables."""
        return self.runs[0].method

    @property
    def annotation(self) -> str:
        """The training annotation in words."""
        return annotation_text(self.runs[0].annotator)

    @property
    def name(self) -> str:
        """Method + annotation."""
        return f"{self.method} + {self.annotation}"

    @property
    def group(self) -> Group:
        """The group of its values with fixed thresholds."""
        return Group(self.runs[0].info.name, self.runs[0].annotator, self.method, "fixed")

    @property
    def key(self) -> str:
        """Its name in `statistics.csv`."""
        return self.group.name

    @property
    def curve(self) -> str:
        """Identifies its curve: the method's label and the annotation without the number of images.

        Parameters may differ along a curve: with fewer images, one may want to train for more epochs.
        """
        return re.sub(r", \d+ images$", "", f"{self.method} / {self.runs[0].annotator}")

    def mean(self, metric: str, thresholds: str = "fixed") -> float:
        """Return a metric's mean; NaN where unknown."""
        found = self.summaries.get((thresholds, metric))
        return found.mean if found else math.nan

    def quality(self, column: Column) -> float:
        """Return a metric's mean such that high is good."""
        return self.mean(column.name) if column.higher_is_better else -self.mean(column.name)


@dataclass(frozen=True)
class DatasetResults:
    """The results on one dataset.

    Attributes:
        info: Metadata of the dataset.
        slug: Its name in file names and anchors.
        results: Of the methods that have completed runs, in the study's order.
        missing: Names of the other methods.
        metrics: The measured columns of the table: the primary metric, then the compared ones.
        primary: The metric of figures and examples.
        differences: Tests on this dataset with fixed thresholds.
    """

    info: DatasetInfo
    slug: str
    results: tuple[MethodResult, ...]
    missing: tuple[str, ...]
    metrics: tuple[Column, ...]
    primary: Column
    differences: tuple[Difference, ...]

    def best(self, column: Column) -> MethodResult | None:
        """Return the method with the best mean, the first of equals; None where no mean is known."""
        known = [result for result in self.results if not math.isnan(result.mean(column.name))]
        return max(known, key=lambda result: result.quality(column)) if known else None

    def overall(self, metric: str) -> Difference | None:
        """Return the F test of all methods by a metric; None where there is nothing to compare."""
        return next((found for found in self.differences if (found.metric, found.test) == (metric, "F")), None)

    def differs(self, metric: str, one: MethodResult, other: MethodResult) -> bool:
        """Return whether two methods differ significantly in a metric, after Holm's correction."""
        keys = {one.key, other.key}
        return any(
            found.metric == metric and {found.first, found.second} == keys and found.p_holm <= ALPHA
            for found in self.differences
        )

    def curves(self) -> tuple[tuple[MethodResult, ...], ...]:
        """Return the methods by curve, in order of first appearance; within a curve, by increasing hours.

        Most curves have a single point.
        """
        found: dict[str, list[MethodResult]] = {}
        for result in self.results:
            found.setdefault(result.curve, []).append(result)
        return tuple(tuple(sorted(curve, key=lambda result: result.hours.value)) for curve in found.values())

    def object_f1(self) -> tuple[tuple[float, str], ...]:
        """Return the IoU thresholds at which F1 of objects was measured, increasing, each with its metric's name."""
        names = dict.fromkeys(metric for result in self.results for _, metric in result.summaries)
        found = [(float(match[1]), name) for name in names if (match := re.fullmatch(r"object_f1@([\d.e-]+)", name))]
        return tuple(sorted(found))


def gather(
    study: Study, runs: Sequence[StudyRun], folder: StudyFolder, tables: StudyTables
) -> tuple[DatasetResults, ...]:
    """Return the results, dataset by dataset, in the study's order.

    Args:
        study: The study, resolved.
        runs: All its runs, completed or not.
        folder: Where their results are.
        tables: The results of the completed runs.
    """
    columns = check_columns(study)
    datasets = {run.info.name: run.info for run in runs}
    found = []
    for info, slug in zip(datasets.values(), slugs(list(datasets)), strict=True):
        by_method: dict[tuple[str, str], list[StudyRun]] = {}
        for run in runs:
            if run.info.name == info.name:
                by_method.setdefault((run.method, run.annotator), []).append(run)
        results: list[MethodResult] = []
        missing = []
        for mine in by_method.values():
            completed = tuple(run for run in mine if folder.is_done(run))
            if completed:
                results.append(_result(len(results) + 1, completed, len(mine), tables))
            else:
                missing.append(f"{mine[0].method} + {annotation_text(mine[0].annotator)}")
        measured = {metric for result in results for _, metric in result.summaries}
        found.append(
            DatasetResults(
                info,
                slug,
                tuple(results),
                tuple(missing),
                tuple(column for name, column in columns.items() if name in measured),
                columns[study.primary_metric],
                tuple(each for each in tables.differences if (each.dataset, each.thresholds) == (info.name, "fixed")),
            )
        )
    return tuple(found)


def _result(number: int, runs: tuple[StudyRun, ...], planned: int, tables: StudyTables) -> MethodResult:
    names = (runs[0].info.name, runs[0].annotator, runs[0].method)
    summaries = {
        (each.thresholds, each.metric): each
        for each in tables.summaries
        if (each.dataset, each.annotator, each.method) == names
    }
    costs = [each for each in tables.costs if (each.dataset, each.annotator, each.method) == names]
    fixed, tuned = (_hours([each for each in costs if each.thresholds == origin]) for origin in ("fixed", "validation"))
    assert fixed is not None, "a completed run has its cost"
    return MethodResult(number, runs, planned, fixed, tuned, summaries)


def _hours(costs: Sequence[CostRow]) -> HoursRange | None:
    if not costs:
        return None
    seconds = np.array([(cost.seconds, cost.seconds_low, cost.seconds_high) for cost in costs], np.float64)
    return HoursRange(*(float(value) for value in seconds.mean(axis=0) / _SECONDS_PER_HOUR))
