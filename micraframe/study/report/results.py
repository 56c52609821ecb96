"""The results of a study, method by method: what the report's tables and figures are made of."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from micraframe import registry
from micraframe.config import Study
from micraframe.interfaces import Column
from micraframe.pricing import is_weak
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import StudyRun, check_columns
from micraframe.study.report.wording import annotation_text, slugs
from micraframe.study.tables import CostRow, Difference, Group, StudyTables, Summary
from micraframe.types import DatasetInfo

ALPHA = 0.05
"""The level at which a difference is significant, after Holm's correction, and at which methods are equivalent."""

Role = Literal["method", "control", "ceiling"]
"""Only methods are ranked: a control cannot tell where a class is, and a ceiling is annotation itself."""

ANNOTATIONS = ("image-level", "points", "scribbles", "boxes", "dilated", "altered", "polygons", "full")
"""Core's annotators, weakest first: the order of tables and figures; others come last."""

_SECONDS_PER_HOUR = 3600
_AMOUNT = r", (\d+ images)$"


class HoursRange(NamedTuple):
    """An annotation time in hours: expected, lowest and highest plausible."""

    value: float
    low: float
    high: float


class Gap(NamedTuple):
    """The difference of two methods, first minus second, with its 95 % interval.

    Attributes:
        difference: In the primary metric.
        low: Lower end.
        high: Upper end.
        equivalent: Whether two one-sided tests show that it is within the study's margin.
        margin: That margin; NaN where the study has none.
    """

    difference: float
    low: float
    high: float
    equivalent: bool = False
    margin: float = math.nan

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class MethodResult:
    """What one method with one annotation achieved on one dataset.

    Attributes:
        number: Its number in tables and figures, from 1; 0 for a variant of another method, which has none.
        role: What it is.
        runs: Its completed runs, one per seed, in the order of seeds; at least one.
        planned: Number of seeds in the study.
        hours: Annotation time with fixed thresholds, mean over seeds.
        tuned_hours: With thresholds tuned on validation images; None where none were tuned.
        summaries: By origin of the thresholds and metric.
        weak: Whether no outlines were drawn for it.
    """

    number: int
    role: Role
    runs: tuple[StudyRun, ...]
    planned: int
    hours: HoursRange
    tuned_hours: HoursRange | None
    summaries: Mapping[tuple[str, str], Summary]
    weak: bool

    @property
    def method(self) -> str:
        """The method's name in tables."""
        return self.runs[0].method

    @property
    def annotation(self) -> str:
        """The training annotation in words."""
        return annotation_text(self.runs[0].annotator)

    @property
    def annotator(self) -> str:
        """The annotator's own name."""
        return registry.short_name(self.runs[0].compared.annotator.name)

    @property
    def train_images(self) -> int | None:
        """Number of annotated training images; None: all."""
        return self.runs[0].compared.train_images

    @property
    def component(self) -> str:
        """The method's own name, whatever its label."""
        return self.runs[0].compared.method.name

    @property
    def name(self) -> str:
        """Method + annotation."""
        return f"{self.method} + {self.annotation}"

    @property
    def row_name(self) -> str:
        """The method, with the amount of annotation if it is not all; of a ceiling, the annotation."""
        if self.role == "ceiling":
            return self.annotation
        amount = re.search(_AMOUNT, self.runs[0].annotator)
        return f"{self.method} ({amount[1]})" if amount else self.method

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
        return f"{self.method} / {self.source}"

    @property
    def source(self) -> str:
        """The training annotation without its amount."""
        return re.sub(_AMOUNT, "", self.runs[0].annotator)

    def mean(self, metric: str, thresholds: str = "fixed") -> float:
        """Return a metric's mean; NaN where unknown."""
        found = self.summaries.get((thresholds, metric))
        return found.mean if found else math.nan

    def interval(self, metric: str) -> tuple[float, float]:
        """Return the ends of a metric's interval; NaN where unknown."""
        found = self.summaries.get(("fixed", metric))
        return (found.low, found.high) if found else (math.nan, math.nan)

    def quality(self, column: Column) -> float:
        """Return a metric's mean such that high is good."""
        return self.mean(column.name) if column.higher_is_better else -self.mean(column.name)


@dataclass(frozen=True)
class DatasetResults:
    """The results on one dataset.

    Attributes:
        info: Metadata of the dataset.
        slug: Its name in file names and anchors.
        results: The methods that have completed runs, of those that share a trained model the first that the study
            names: by annotation, the best first, then controls, then ceilings.
        ablations: The methods that share a trained model and differ in what comes after it, in the study's order.
        missing: Names of the methods without completed runs.
        metrics: The measured columns of the table: the primary metric, then the compared ones.
        primary: The metric of figures and examples.
        differences: Tests on this dataset with fixed thresholds.
    """

    info: DatasetInfo
    slug: str
    results: tuple[MethodResult, ...]
    ablations: tuple[tuple[MethodResult, ...], ...]
    missing: tuple[str, ...]
    metrics: tuple[Column, ...]
    primary: Column
    differences: tuple[Difference, ...]

    @property
    def ranked(self) -> tuple[MethodResult, ...]:
        """The methods without controls and ceilings."""
        return tuple(result for result in self.results if result.role == "method")

    @property
    def controls(self) -> tuple[MethodResult, ...]:
        """The controls."""
        return tuple(result for result in self.results if result.role == "control")

    @property
    def variants(self) -> tuple[MethodResult, ...]:
        """The methods that the table leaves out, because they share a trained model with one in it."""
        return tuple(each for group in self.ablations for each in group[1:])

    def best(self, column: Column) -> MethodResult | None:
        """Return the method with the best mean, the first of equals; None where no mean is known."""
        known = [result for result in self.ranked if not math.isnan(result.mean(column.name))]
        return max(known, key=lambda result: result.quality(column)) if known else None

    def blocks(self) -> tuple[tuple[str, tuple[MethodResult, ...]], ...]:
        """Return the rows of the table by training annotation, controls and ceilings by themselves."""
        headings = {
            "control": "Controls",
            "ceiling": "Ceilings: the annotation itself, as if it were a prediction",
        }
        found: dict[str, list[MethodResult]] = {}
        for result in self.results:
            found.setdefault(headings.get(result.role, annotation_text(result.source)), []).append(result)
        return tuple((heading, tuple(rows)) for heading, rows in found.items())

    def tests(self, kind: str, metric: str | None = None) -> tuple[Difference, ...]:
        """Return the tests of a kind (`F`, `planned` or `exploratory`), of one metric or of all."""
        return tuple(each for each in self.differences if each.kind == kind and metric in (None, each.metric))

    def gap(self, one: MethodResult, other: MethodResult) -> Gap | None:
        """Return the difference of two methods in the primary metric; None where they were not compared."""
        for found in self.differences:
            if (
                found.kind == "F"
                or found.metric != self.primary.name
                or {found.first, found.second} != {one.key, other.key}
            ):
                continue
            equivalent = found.p_equivalent <= ALPHA
            if found.first == one.key:
                return Gap(found.difference, found.low, found.high, equivalent, found.margin)
            return Gap(-found.difference, -found.high, -found.low, equivalent, found.margin)
        return None

    def curves(self) -> tuple[tuple[MethodResult, ...], ...]:
        """Return the methods by curve, in order of first appearance; within a curve, by increasing hours.

        Most curves have a single point.
        """
        found: dict[str, list[MethodResult]] = {}
        for result in self.ranked:
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
                results.append(_result(completed, len(mine), tables, folder))
            else:
                missing.append(f"{mine[0].method} + {annotation_text(mine[0].annotator)}")
        primary = columns[study.primary_metric]
        shown, ablations = _arranged(results, primary)
        measured = {metric for result in results for _, metric in result.summaries}
        found.append(
            DatasetResults(
                info,
                slug,
                shown,
                ablations,
                tuple(missing),
                tuple(column for name, column in columns.items() if name in measured),
                primary,
                tuple(each for each in tables.differences if (each.dataset, each.thresholds) == (info.name, "fixed")),
            )
        )
    return tuple(found)


def _result(runs: tuple[StudyRun, ...], planned: int, tables: StudyTables, folder: StudyFolder) -> MethodResult:
    names = (runs[0].info.name, runs[0].annotator, runs[0].method)
    summaries = {
        (each.thresholds, each.metric): each
        for each in tables.summaries
        if (each.dataset, each.annotator, each.method) == names
    }
    costs = [each for each in tables.costs if (each.dataset, each.annotator, each.method) == names]
    fixed, tuned = (_hours([each for each in costs if each.thresholds == origin]) for origin in ("fixed", "validation"))
    assert fixed is not None, "a completed run has its cost"
    weak = is_weak(folder.training_work(runs[0]))
    return MethodResult(0, role_of(runs[0]), runs, planned, fixed, tuned, summaries, weak)


def role_of(run: StudyRun) -> Role:
    """Return what a run measures."""
    if run.kind == "ceiling":
        return "ceiling"
    target = registry.catalog().find("method", run.compared.method.name).component.target
    return "control" if target.startswith("micraframe.controls.") else "method"


def _arranged(
    results: Sequence[MethodResult], primary: Column
) -> tuple[tuple[MethodResult, ...], tuple[tuple[MethodResult, ...], ...]]:
    """Return the first method of those that share trained models, in the table's order and numbered, and the variants.

    Picking another one by its quality would use outlines whose cost is in no hours.
    """
    sharing: dict[tuple[str, ...], list[MethodResult]] = {}
    for result in results:
        sharing.setdefault(tuple(run.training_key for run in result.runs), []).append(result)
    ordered = sorted(sharing.values(), key=lambda variants: _rank(variants[0], primary))
    groups = [(dataclasses.replace(each[0], number=place), *each[1:]) for place, each in enumerate(ordered, start=1)]
    return tuple(group[0] for group in groups), tuple(group for group in groups if len(group) > 1)


def _rank(result: MethodResult, primary: Column) -> tuple[int, int, str, float]:
    """Return what rows are sorted by: role, annotation, quality."""
    strength = ANNOTATIONS.index(result.annotator) if result.annotator in ANNOTATIONS else len(ANNOTATIONS)
    quality = result.quality(primary)
    worse = math.inf if math.isnan(quality) else -quality
    if result.role != "method":
        return ["method", "control", "ceiling"].index(result.role), 0, "", worse
    return 0, strength, result.source, worse


def _hours(costs: Sequence[CostRow]) -> HoursRange | None:
    if not costs:
        return None
    seconds = np.array([(cost.seconds, cost.seconds_low, cost.seconds_high) for cost in costs], np.float64)
    return HoursRange(*(float(value) for value in seconds.mean(axis=0) / _SECONDS_PER_HOUR))
