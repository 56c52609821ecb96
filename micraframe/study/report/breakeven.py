"""Break-even points: the annotation time at which one method overtakes another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple


class QualityPoint(NamedTuple):
    """A method + annotation in a plot of quality against cost.

    Attributes:
        name: Its name.
        hours: Annotation time, at least 0.
        quality: High is good; NaN where unknown.
    """

    name: str
    hours: float
    quality: float


class BreakEven(NamedTuple):
    """Where a curve reaches a quality.

    Attributes:
        status: `reached`; `before`: the curve's first point is already as good; `never`: no point is as good.
        hours: The annotation time; for `before` that of the first point, NaN for `never`.
    """

    status: Literal["reached", "before", "never"]
    hours: float


def staircase(points: Iterable[QualityPoint]) -> tuple[QualityPoint, ...]:
    """Return the points that a growing budget switches between: each is the best from its hours on.

    The first is the best of the cheapest. Of equally good points the cheaper one is kept, and of equally good and
    expensive ones the first. Points without a quality are left out.
    """
    steps: list[QualityPoint] = []
    known = [point for point in points if not math.isnan(point.quality)]
    for point in sorted(known, key=lambda point: (point.hours, -point.quality)):
        if not steps or point.quality > steps[-1].quality:
            steps.append(point)
    return tuple(steps)


def break_even(curve: Iterable[QualityPoint], quality: float) -> BreakEven:
    """Return the annotation time at which a curve first reaches `quality`.

    Between two points, (h0, q0) and (h1, q1), quality is assumed to be linear in the logarithm of hours:
    log h = log h0 + (q - q0) / (q1 - q0) (log h1 - log h0); where h0 is 0, which has no logarithm, in hours.

    Args:
        curve: One method with increasing amounts of the same annotation, in any order; points without a quality are
            left out.
        quality: Not NaN.
    """
    points = sorted((point for point in curve if not math.isnan(point.quality)), key=lambda point: point.hours)
    if points and points[0].quality >= quality:
        return BreakEven("before", points[0].hours)
    for left, right in itertools.pairwise(points):
        if right.quality >= quality:
            share = (quality - left.quality) / (right.quality - left.quality)
            return BreakEven("reached", _between(left.hours, right.hours, share))
    return BreakEven("never", math.nan)


def axis_floor(hours: Sequence[float]) -> float:
    """Return where a logarithmic axis begins, so that 0 hours fit at its left edge: a third of the smallest hours.

    Args:
        hours: All that are drawn; if none is above 0, the axis begins at 1.
    """
    positive = [value for value in hours if value > 0]
    return min(positive) / 3 if positive else 1.0


def _between(low: float, high: float, share: float) -> float:
    # Exact at its ends, which powers are not.
    if share == 1 or low == high:
        return high
    if low == 0:
        return share * high
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
