"""Break-even points: at how many hours of annotation one contender overtakes another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple


class Point(NamedTuple):
    """A contender where quality is drawn against cost.

    Attributes:
        name: The contender's.
        hours: What its annotation costs, at least 0.
        quality: High is good; NaN where it is not known.
    """

    name: str
    hours: float
    quality: float


class Reach(NamedTuple):
    """Where a curve reaches a quality.

    Attributes:
        status: `reached`; `before`: the curve's first point is as good already; `never`: no point of it is as good.
        hours: At how many hours: for `before` those of the first point, NaN for `never`.
    """

    status: Literal["reached", "before", "never"]
    hours: float


def staircase(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return the contenders that a growing budget switches between: each is the best from its hours on.

    The first is the best of the cheapest ones. Of two as good as each other, the cheaper one is kept; of two as good
    and as expensive, the one that is named first. Points without a quality are left out.
    """
    steps: list[Point] = []
    known = [point for point in points if not math.isnan(point.quality)]
    for point in sorted(known, key=lambda point: (point.hours, -point.quality)):
        if not steps or point.quality > steps[-1].quality:
            steps.append(point)
    return tuple(steps)


def reach(curve: Iterable[Point], quality: float) -> Reach:
    """Return at how many hours a curve first is as good as `quality`.

    Between two points, (h0, q0) and (h1, q1), quality is taken to be linear in the logarithm of hours:
    log h = log h0 + (q - q0) / (q1 - q0) (log h1 - log h0); where h0 is 0, which has no logarithm, in hours.

    Args:
        curve: One method with more and more of the same annotation, in any order; points without a quality are left
            out.
        quality: Not NaN.
    """
    points = sorted((point for point in curve if not math.isnan(point.quality)), key=lambda point: point.hours)
    if points and points[0].quality >= quality:
        return Reach("before", points[0].hours)
    for left, right in itertools.pairwise(points):
        if right.quality >= quality:
            share = (quality - left.quality) / (right.quality - left.quality)
            return Reach("reached", _between(left.hours, right.hours, share))
    return Reach("never", math.nan)


def axis_floor(hours: Sequence[float]) -> float:
    """Return where a logarithmic axis begins, so that hours of 0 can stand at its left edge: a third of the least.

    Args:
        hours: All that are to be drawn; where none is above 0, the axis begins at 1.
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
