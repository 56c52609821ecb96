"""What a study came to, contender by contender: what the report's tables and figures are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from micraframe.study.folder import StudyFolder
from micraframe.study.plan import Cell, label
from micraframe.study.report.breakeven import Point
from micraframe.study.report.definitions import lower_is_better
from micraframe.study.tables import Difference, Group, Summary
from micraframe.types import DatasetInfo

if TYPE_CHECKING:
    from micraframe.study.run import CostRow

ALPHA = 0.05
"""The level at which a difference is called significant, by F and after Holm's correction."""

_SECONDS_PER_HOUR = 3600


class Hours(NamedTuple):
    """An annotator's time in hours: what is expected, the lowest and the highest that are plausible."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """What a contender came to on one dataset.

    Attributes:
        number: Its number in tables and figures, from 1.
        cells: Its cells that are done, one per seed, in the order of seeds; at least one.
        planned: Number of seeds that the study asks for.
        hours: What its annotation costs with fixed thresholds, mean over seeds.
        tuned_hours: With thresholds tuned on validation images; None where none are tuned.
        summaries: By origin of the thresholds and metric.
    """

    number: int
    cells: tuple[Cell, ...]
    planned: int
    hours: Hours
    tuned_hours: Hours | None
    summaries: Mapping[tuple[str, str], Summary]

    @property
    def method(self) -> str:
        """The method's name in tables."""
        return self.cells[0].method

    @property
    def annotator(self) -> str:
        """The annotator's name in tables."""
        return self.cells[0].annotator

    @property
    def group(self) -> Group:
        """What its fixed thresholds' values are known by."""
        return Group(self.cells[0].info.name, self.annotator, self.method, "fixed")

    @property
    def name(self) -> str:
        """The contender's name, as tests of differences have it."""
        return self.group.contender

    @property
    def curve(self) -> str:
        """What contenders of one curve share: method, by its name in tables, and annotator; not the number of images.

        Their parameters may differ, for whoever has fewer images may want to see them more often.
        """
        cell = self.cells[0]
        return f"{cell.method} ({label(cell.contender.annotator, 'annotator')})"

    def mean(self, metric: str, thresholds: str = "fixed") -> float:
        """Return a metric's mean; NaN where it is not known."""
        found = self.summaries.get((thresholds, metric))
        return found.mean if found else math.nan

    def point(self, metric: str, end: str = "value") -> Point:
        """Return where the contender stands: high is good, whatever the metric.

        Args:
            metric: The metric.
            end: Which hours: `value`, `low` or `high`.
        """
        mean = self.mean(metric)
        return Point(self.name, getattr(self.hours, end), -mean if lower_is_better(metric) else mean)


@dataclass(frozen=True)
class DatasetResults:
    """What a study came to on one dataset.

    Attributes:
        info: The dataset.
        slug: Its name for files and anchors.
        results: Of the contenders of which anything is done, in the study's order.
        missing: Names of the others.
        metrics: The columns of the table that were measured: the primary metric, then those compared.
        primary: The metric that figures and examples go by.
        differences: Those of this dataset, of fixed thresholds.
    """

    info: DatasetInfo
    slug: str
    results: tuple[Result, ...]
    missing: tuple[str, ...]
    metrics: tuple[str, ...]
    primary: str
    differences: tuple[Difference, ...]

    def best(self, metric: str) -> Result | None:
        """Return the contender whose mean is best; the first of equals; None where no mean is known."""
        known = [result for result in self.results if not math.isnan(result.mean(metric))]
        return max(known, key=lambda result: result.point(metric).quality) if known else None

    def overall(self, metric: str) -> Difference | None:
        """Return the F test of all contenders by a metric; None where there is nothing to compare."""
        return next((found for found in self.differences if (found.metric, found.test) == (metric, "F")), None)

    def pair(self, metric: str, one: Result, other: Result) -> Difference | None:
        """Return the test of two contenders by a metric; None where they were not compared."""
        names = {one.name, other.name}
        return next(
            (found for found in self.differences if found.metric == metric and {found.first, found.second} == names),
            None,
        )

    def differs(self, metric: str, one: Result, other: Result) -> bool:
        """Return whether two contenders differ significantly by a metric, after Holm's correction."""
        found = self.pair(metric, one, other)
        return found is not None and found.p_holm <= ALPHA

    def curves(self) -> tuple[tuple[Result, ...], ...]:
        """Return the contenders by curve, in order of first appearance; of a curve, by rising hours.

        Most are curves of one point.
        """
        found: dict[str, list[Result]] = {}
        for result in self.results:
            found.setdefault(result.curve, []).append(result)
        return tuple(tuple(sorted(curve, key=lambda result: result.hours.value)) for curve in found.values())

    def object_f1(self) -> tuple[tuple[float, str], ...]:
        """Return the IOUs at which F1 of objects was measured, rising, each with its metric's name."""
        names = dict.fromkeys(metric for result in self.results for origin, metric in result.summaries)
        found = [(float(match[1]), name) for name in names if (match := re.fullmatch(r"object_f1@([\d.e-]+)", name))]
        return tuple(sorted(found))


def gather(
    cells: Sequence[Cell],
    folder: StudyFolder,
    summaries: Iterable[Summary],
    differences: Iterable[Difference],
    costs: Iterable[CostRow],
    primary: str,
    compared: Sequence[str],
) -> tuple[DatasetResults, ...]:
    """Return what is known, dataset by dataset, in the study's order.

    Args:
        cells: All of the study, done or not.
        folder: Where their results are.
        summaries: Of the cells that are done.
        differences: Likewise.
        costs: Likewise.
        primary: The metric that comes first.
        compared: Those that follow.
    """
    summaries, differences, costs = list(summaries), list(differences), list(costs)
    slugs: dict[str, str] = {}
    found = []
    for name in dict.fromkeys(cell.info.name for cell in cells):
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "dataset"
        while slug in slugs.values():
            slug += "-2"
        slugs[name] = slug
        contenders: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            if cell.info.name == name:
                contenders.setdefault((cell.method, cell.annotator), []).append(cell)
        results: list[Result] = []
        missing = []
        for mine in contenders.values():
            done = tuple(cell for cell in mine if folder.is_done(cell))
            if done:
                results.append(_result(len(results) + 1, done, len(mine), summaries, costs))
            else:
                missing.append(f"{mine[0].method} ({mine[0].annotator})")
        measured = {metric for result in results for origin, metric in result.summaries}
        columns = tuple(metric for metric in dict.fromkeys([primary, *compared]) if metric in measured)
        tests = tuple(each for each in differences if (each.dataset, each.thresholds) == (name, "fixed"))
        info = next(cell.info for cell in cells if cell.info.name == name)
        found.append(DatasetResults(info, slug, tuple(results), tuple(missing), columns, primary, tests))
    return tuple(found)


def _result(
    number: int, cells: tuple[Cell, ...], planned: int, summaries: Sequence[Summary], costs: Sequence[CostRow]
) -> Result:
    named = (cells[0].info.name, cells[0].annotator, cells[0].method)
    mine = {
        (each.thresholds, each.metric): each
        for each in summaries
        if (each.dataset, each.annotator, each.method) == named
    }
    bills = [each for each in costs if (each.dataset, each.annotator, each.method) == named]
    fixed = _hours([each for each in bills if each.thresholds == "fixed"])
    assert fixed is not None, "a cell that is done has its cost"
    tuned = _hours([each for each in bills if each.thresholds == "validation"])
    return Result(number, cells, planned, fixed, tuned, mine)


def _hours(bills: Sequence[CostRow]) -> Hours | None:
    if not bills:
        return None
    seconds = np.array([(bill.seconds, bill.seconds_low, bill.seconds_high) for bill in bills], np.float64)
    return Hours(*(float(value) for value in seconds.mean(axis=0) / _SECONDS_PER_HOUR))
