"""The break-even points of a study, and how they move where annotation is faster or slower."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from micraframe.study.report.breakeven import BreakEven, QualityPoint, break_even, staircase
from micraframe.study.report.results import DatasetResults, MethodResult

End = Literal["value", "low", "high"]


class BudgetStep(NamedTuple):
    """The best method + annotation that a budget affords.

    Attributes:
        result: The method.
        before: The one that it replaces; None for the first.
        differs: Whether the two differ significantly in the primary metric.
    """

    result: MethodResult
    before: MethodResult | None
    differs: bool


class Crossing(NamedTuple):
    """Where a curve of one method with increasing amounts of annotation is as good as another method.

    Attributes:
        result: The other method.
        curve: The curve's points, by increasing hours.
        reached: At the expected timings.
        low: At the lowest plausible timings.
        high: At the highest plausible timings.
    """

    result: MethodResult
    curve: tuple[MethodResult, ...]
    reached: BreakEven
    low: BreakEven
    high: BreakEven

    @property
    def ratio(self) -> float:
        """The curve's hours divided by the other method's; NaN where unknown."""
        hours = self.result.hours.value
        return self.reached.hours / hours if self.reached.status == "reached" and hours > 0 else math.nan


def steps(found: DatasetResults) -> tuple[BudgetStep, ...]:
    """Return the methods that a growing budget of hours switches between, by the primary metric."""
    results = order_at(found, "value")
    befores = [None, *results]
    return tuple(
        BudgetStep(result, before, before is not None and found.differs(found.primary.name, result, before))
        for result, before in zip(results, befores, strict=False)
    )


def order_at(found: DatasetResults, end: End) -> tuple[MethodResult, ...]:
    """Return the methods of `steps` with all timings at their expected `value`, `low` or `high` end."""
    by_name = {result.key: result for result in found.results}
    return tuple(by_name[point.name] for point in staircase(_points(found, found.results, end)))


def crossings(found: DatasetResults) -> tuple[Crossing, ...]:
    """Return where each curve of at least two points is as good as each method that is a single point."""
    curves = [
        tuple(result for result in curve if not math.isnan(result.mean(found.primary.name))) for curve in found.curves()
    ]
    crossed = []
    for curve in (curve for curve in curves if len(curve) > 1):
        for result in (other[0] for other in curves if len(other) == 1):
            quality = result.quality(found.primary)
            reached = (break_even(_points(found, curve, end), quality) for end in ("value", "low", "high"))
            crossed.append(Crossing(result, curve, *reached))
    return tuple(crossed)


def _points(found: DatasetResults, results: Sequence[MethodResult], end: str) -> list[QualityPoint]:
    return [QualityPoint(result.key, getattr(result.hours, end), result.quality(found.primary)) for result in results]
