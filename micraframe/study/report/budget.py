"""The break-even points of a study, and how they move where annotation is faster or slower."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from micraframe.pricing import Cost
from micraframe.pricing import crossed as crossed_costs
from micraframe.study.report.breakeven import BreakEven, QualityPoint, break_even, staircase
from micraframe.study.report.results import DatasetResults, MethodResult

# Where an annotation time stands in a range of hours.
_VALUE, _LOW, _HIGH = range(3)


class BudgetStep(NamedTuple):
    """The best method + annotation that a budget affords.

    Attributes:
        result: The method.
        before: The one that it replaces; None for the first.
        differs: Whether the interval of their difference in the primary metric excludes 0.
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
    results = _order(found, _hours(found.ranked, _VALUE))
    return tuple(
        BudgetStep(result, before, before is not None and bool((gap := found.gap(result, before)) and gap.sign))
        for result, before in zip(results, (None, *results), strict=False)
    )


def other_orders(found: DatasetResults) -> dict[str, tuple[MethodResult, ...]]:
    """Return the methods of `steps` where weak annotation is slow and outlines are fast, or the reverse, if others.

    Prices that all move together could hardly change the order.
    """
    costs = {each.key: Cost(each.hours.value, each.hours.low, each.hours.high) for each in found.ranked}
    ends = crossed_costs(costs, {each.key for each in found.ranked if each.weak})
    usual = _order(found, _hours(found.ranked, _VALUE))
    described = (
        "weak annotation is slowest and outlines are fastest",
        "weak annotation is fastest and outlines are slowest",
    )
    orders = {words: _order(found, hours) for words, hours in zip(described, ends, strict=True)}
    return {words: order for words, order in orders.items() if order != usual}


def crossings(found: DatasetResults) -> tuple[Crossing, ...]:
    """Return where each curve of at least two points is as good as each method that is a single point."""
    curves = [
        tuple(result for result in curve if not math.isnan(result.mean(found.primary.name))) for curve in found.curves()
    ]
    crossed = []
    for curve in (curve for curve in curves if len(curve) > 1):
        for result in (other[0] for other in curves if len(other) == 1):
            quality = result.quality(found.primary)
            ends = (_VALUE, _LOW, _HIGH)
            reached = (break_even(_points(found, curve, _hours(curve, end)), quality) for end in ends)
            crossed.append(Crossing(result, curve, *reached))
    return tuple(crossed)


def _order(found: DatasetResults, hours: Mapping[str, float]) -> tuple[MethodResult, ...]:
    by_name = {result.key: result for result in found.ranked}
    return tuple(by_name[point.name] for point in staircase(_points(found, found.ranked, hours)))


def _points(found: DatasetResults, results: Sequence[MethodResult], hours: Mapping[str, float]) -> list[QualityPoint]:
    return [QualityPoint(result.key, hours[result.key], result.quality(found.primary)) for result in results]


def _hours(results: Sequence[MethodResult], end: int) -> dict[str, float]:
    return {result.key: result.hours[end] for result in results}
