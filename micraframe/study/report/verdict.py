"""The answer of a study in words: what annotation time buys, as far as the intervals carry, and nothing beyond."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from micraframe.interfaces import Column
from micraframe.study.report.breakeven import QualityPoint, break_even, staircase
from micraframe.study.report.wording import count_text, interval_text, listed, number_text, significant_text

Supervision = Literal["labels", "outlines", "other"]

_MOST_NAMED = 3
_WIDEST_SHARE = 60
"""An interval of more per cent than this says too little to print a share."""


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
class Candidate:
    """A method + annotation that the answer may name; controls and ceilings are none.

    Attributes:
        key: Identifies it.
        name: Method + annotation in words.
        curve: Identifies the method with any amount of this annotation.
        supervision: What it learned from: image-level labels, full annotation, or anything else.
        images: Number of annotated training images.
        hours: Annotation time.
        value: The primary metric.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    key: str
    name: str
    curve: str
    supervision: Supervision
    images: int
    hours: float
    value: float
    low: float
    high: float


class Claim(NamedTuple):
    """The best method from its hours on, until the next claim.

    Attributes:
        candidate: The method.
        gap: To the claim before; None for the first.
        rivals: Methods no more expensive than the next claim that the study cannot tell from it.
    """

    candidate: Candidate
    gap: Gap | None
    rivals: tuple[Candidate, ...]


GapOf = Callable[[Candidate, Candidate], Gap | None]
"""Returns the gap of two candidates, or None where they were not compared."""


def claims(candidates: Sequence[Candidate], gap: GapOf, better: int = 1) -> tuple[Claim, ...]:
    """Return the methods that a growing budget switches between, leaving out steps that may be due to chance.

    Args:
        candidates: In any order; those without a value are left out.
        gap: The gap of two of them.
        better: 1 where high values are good, -1 where low ones are.
    """
    by_key = {each.key: each for each in candidates}
    steps = [
        by_key[point.name] for point in staircase(QualityPoint(e.key, e.hours, better * e.value) for e in candidates)
    ]
    kept: list[tuple[Candidate, Gap | None]] = []
    for step in steps:
        found = gap(step, kept[-1][0]) if kept else None
        if not kept or (found is not None and found.sign == better):
            kept.append((step, found))
    ends = [candidate.hours for candidate, _ in kept[1:]] + [math.inf]
    return tuple(
        Claim(
            candidate,
            found,
            tuple(
                other
                for other in candidates
                if other is not candidate
                and other.hours < end
                and not math.isnan(other.value)
                and ((between := gap(candidate, other)) is None or between.sign != better)
            ),
        )
        for (candidate, found), end in zip(kept, ends, strict=True)
    )


def verdict(
    candidates: Sequence[Candidate], controls: Sequence[Candidate], gap: GapOf, primary: Column
) -> tuple[str, ...]:
    """Return the answer as sentences, most important first.

    A step of the budget is named where the interval of its gain excludes 0; the break-even point is bracketed by the
    amounts of outlines that are certainly worse and certainly better than labels.

    Args:
        candidates: The methods.
        controls: The controls, which are never recommended: a method that does not beat them has shown nothing.
        gap: The gap of two of all these in the primary metric.
        primary: The primary metric.
    """
    better = 1 if primary.higher_is_better else -1
    known, controls = ([each for each in some if not math.isnan(each.value)] for some in (candidates, controls))
    sentences = _budget(known, gap, primary.name, better)
    labels = max((each for each in known if each.supervision == "labels"), key=lambda e: better * e.value, default=None)
    outlines = [each for each in known if each.supervision == "outlines"]
    full = max(outlines, key=lambda each: (each.images, better * each.value), default=None)
    if labels:
        sentences.append(_labels(labels, full, gap, primary, better))
    if full:
        curve = sorted((each for each in known if each.curve == full.curve), key=lambda each: each.hours)
        if len(curve) > 1:
            amounts = [
                f"of {count_text(each.images, 'image')} ({_hours(each.hours)}) reach {_reached(each)}" for each in curve
            ]
            sentences.append(f"Outlines {'; '.join(amounts)}, by {full.name.partition(' + ')[0]}.")
        if labels:
            sentences += _break_even(labels, curve, gap, better)
    return (*sentences, *_beaten(known, controls, gap, better))


def _budget(candidates: Sequence[Candidate], gap: GapOf, metric: str, better: int) -> list[str]:
    if len(candidates) < 2:
        return []
    found = claims(candidates, gap, better)
    first = found[0].candidate
    if len(found) == 1 and found[0].rivals:
        return [
            f"More annotation time did not clearly buy more: no method is better beyond doubt than the cheapest, "
            f"{first.name} ({metric} {_reached(first)} for {_hours(first.hours)})."
        ]
    sentences = []
    for number, claim in enumerate(found):
        best, last = claim.candidate, number + 1 == len(found)
        until = " or more" if last else f" to {_hours(found[number + 1].candidate.hours)}"
        text = f"With {_hours(best.hours)}{until} of annotator time, the best method is {best.name}"
        text += f": {metric} {_reached(best)}"
        if claim.gap:
            text += f", better than with less time by {number_text(abs(claim.gap.difference))} {_brackets(claim.gap)}"
        if claim.rivals:
            named = [each.name for each in claim.rivals[:_MOST_NAMED]]
            named += [f"{len(claim.rivals) - _MOST_NAMED} more"] if len(claim.rivals) > _MOST_NAMED else []
            text += f". The intervals do not tell it from {listed(named)}"
        sentences.append(f"{text}.")
    return sentences


def _beaten(candidates: Sequence[Candidate], controls: Sequence[Candidate], gap: GapOf, better: int) -> list[str]:
    """Say which methods do not beat the best control beyond doubt."""
    best = max(controls, key=lambda each: better * each.value, default=None)
    if best is None:
        return []
    failing = [each.name for each in candidates if (found := gap(each, best)) is not None and found.sign != better]
    if not failing:
        return []
    words = (
        "No method beats"
        if len(failing) == len(candidates) > 1
        else f"{listed(failing)} {'does' if len(failing) == 1 else 'do'} not beat"
    )
    control = best.name.partition(" + ")[0]
    return [f'{words} the control "{control}" ({_reached(best)}) beyond doubt.']


def _labels(labels: Candidate, full: Candidate | None, gap: GapOf, primary: Column, better: int) -> str:
    text = f"Image-level labels alone reach {primary.name} {_reached(labels)} for {_hours(labels.hours)}"
    if not full:
        return f"{text}."
    between = gap(labels, full)
    share = _share(full, between) if better > 0 and primary.range[0] == 0 else ""
    text += f", {share}full annotation {_reached(full)} for {_hours(full.hours)}".replace(
        "what full annotation", "what full annotation reaches,"
    )
    if between is None:
        return f"{text}."
    text += f" (labels minus full: {between.difference:+.3f} {_brackets(between, magnitude=False)})."
    if between.equivalent:
        return f"{text} The two are equivalent within {between.margin:g}."
    return text if between.sign else f"{text} The interval does not tell which of the two is better."


def _share(full: Candidate, between: Gap | None) -> str:
    """Return labels as a share of full annotation, with its interval; empty where it says nothing."""
    if between is None or not full.low > 0:
        return ""
    value, low, high = (100 * (1 + part / full.value) for part in (between.difference, between.low, between.high))
    return f"{value:.0f} % ({max(low, 0):.0f} to {high:.0f} %) of what " if high - low <= _WIDEST_SHARE else ""


def _break_even(labels: Candidate, curve: Sequence[Candidate], gap: GapOf, better: int) -> list[str]:
    """Say where a curve overtakes labels, as far as its points are certainly worse or better; else nothing."""
    sides = [(each, found.sign * better) for each in curve if (found := gap(each, labels)) is not None]
    above = min((each.hours for each, sign in sides if sign > 0), default=math.inf)
    below = max((each.hours for each, sign in sides if sign < 0 and each.hours < above), default=0.0)
    if above <= labels.hours:
        return [
            f"There is no break-even: outlines of {_hours(above)} are better than labels of {_hours(labels.hours)}."
        ]
    if math.isinf(above):
        worse = below > 0
        return [f"The break-even is beyond {_hours(below)}: outlines were not better in less time."] if worse else []
    if not below:
        return [f"The break-even is below {_hours(above)}, where outlines are better than labels."]
    points = [QualityPoint(each.key, each.hours, better * each.value) for each in curve]
    hours = break_even(points, better * labels.value).hours
    within = f", by interpolation at {_hours(hours)}" if below <= hours <= above else ""
    return [f"The break-even of outlines with labels is between {_hours(below)} and {_hours(above)}{within}."]


def _reached(candidate: Candidate) -> str:
    return f"{number_text(candidate.value)} {interval_text(candidate.low, candidate.high)}".rstrip()


def _brackets(gap: Gap, magnitude: bool = True) -> str:
    low, high = (gap.low, gap.high) if gap.difference >= 0 or not magnitude else (-gap.high, -gap.low)
    return interval_text(low, high)


def _hours(hours: float) -> str:
    if hours < 1 and hours > 0:
        return f"{significant_text(round(hours * 60, 1))} min"
    return f"{significant_text(hours)} h"
