"""Break-even points of a study's contenders, with what becomes of them where annotation is cheaper or dearer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from micraframe.study.report.breakeven import Point, Reach, reach, staircase
from micraframe.study.report.results import DatasetResults, Result


class Step(NamedTuple):
    """A contender that is the best that a budget affords.

    Attributes:
        result: The contender.
        before: The one that it takes the place of; None for the first.
        differs: Whether the two differ significantly by the primary metric.
    """

    result: Result
    before: Result | None
    differs: bool


class Crossing(NamedTuple):
    """Where a curve of one method with more and more annotation is as good as another contender.

    Attributes:
        result: The contender.
        curve: The curve's contenders, by rising hours.
        reached: At which hours, all costs as expected.
        low: With all costs at their lowest.
        high: With all costs at their highest.
    """

    result: Result
    curve: tuple[Result, ...]
    reached: Reach
    low: Reach
    high: Reach

    @property
    def ratio(self) -> float:
        """How many times the contender's hours the curve takes; NaN where it is not known."""
        hours = self.result.hours.value
        return self.reached.hours / hours if self.reached.status == "reached" and hours > 0 else math.nan


def steps(found: DatasetResults) -> tuple[Step, ...]:
    """Return between which contenders a growing budget of hours switches, by the primary metric."""
    by_name = {result.name: result for result in found.results}
    results = [by_name[point.name] for point in staircase(_points(found.results, found.primary, "value"))]
    befores = [None, *results]
    return tuple(
        Step(result, before, before is not None and found.differs(found.primary, result, before))
        for result, before in zip(results, befores, strict=False)
    )


def order_at(found: DatasetResults, end: str) -> tuple[Result, ...]:
    """Return the contenders of `steps` where all costs are at their `low` or `high` end."""
    by_name = {result.name: result for result in found.results}
    return tuple(by_name[point.name] for point in staircase(_points(found.results, found.primary, end)))


def crossings(found: DatasetResults) -> tuple[Crossing, ...]:
    """Return where every curve of at least two points is as good as each contender that is a single point."""
    curves = [
        tuple(result for result in curve if not math.isnan(result.mean(found.primary))) for curve in found.curves()
    ]
    single = [curve[0] for curve in curves if len(curve) == 1]
    crossed = []
    for curve in curves:
        if len(curve) < 2:
            continue
        for result in single:
            quality = result.point(found.primary).quality
            value, low, high = (reach(_points(curve, found.primary, end), quality) for end in ("value", "low", "high"))
            crossed.append(Crossing(result, curve, value, low, high))
    return tuple(crossed)


def _points(results: Sequence[Result], metric: str, end: str) -> list[Point]:
    return [result.point(metric, end) for result in results]
