"""The answer of a study in words: what annotation time buys, as far as the intervals carry, and nothing beyond."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from micraframe.interfaces import Column
from micraframe.study.report.breakeven import QualityPoint, break_even
from micraframe.study.report.results import Gap, MethodResult
from micraframe.study.report.wording import count_text, interval_text, listed, number_text, significant_text

_MOST_NAMED = 3


class Claim(NamedTuple):
    """The best method from its hours on, until the next claim.

    Attributes:
        result: The method.
        gap: To the claim before; None for the first.
        rivals: Methods no more expensive than the next claim that the study cannot tell from it.
    """

    result: MethodResult
    gap: Gap | None
    rivals: tuple[MethodResult, ...]


GapOf = Callable[[MethodResult, MethodResult], Gap | None]


def claims(results: Sequence[MethodResult], gap: GapOf, primary: Column) -> tuple[Claim, ...]:
    """Return the methods that a growing budget switches between, leaving out steps that may be due to chance.

    The first is the best of the cheapest; each other one is the next by hours whose gap to the one before excludes 0.

    Args:
        results: In any order, all with a value.
        gap: The gap of two of them.
        primary: The primary metric.
    """
    kept: list[tuple[MethodResult, Gap | None]] = []
    for result in sorted(results, key=lambda each: (each.hours.value, -each.quality(primary))):
        found = gap(result, kept[-1][0]) if kept else None
        if not kept or (found and found.sign == _better(primary)):
            kept.append((result, found))
    ends = [result.hours.value for result, _ in kept[1:]] + [math.inf]
    return tuple(
        Claim(
            result,
            found,
            tuple(
                other
                for other in results
                if other is not result
                and other.hours.value < end
                and not ((between := gap(result, other)) and between.sign)
            ),
        )
        for (result, found), end in zip(kept, ends, strict=True)
    )


def verdict(
    results: Sequence[MethodResult], controls: Sequence[MethodResult], gap: GapOf, primary: Column
) -> tuple[str, ...]:
    """Return the answer as sentences, most important first.

    A step of the budget is named where the interval of its gain excludes 0; the break-even point is bracketed by the
    amounts of outlines that are certainly worse and certainly better than labels.

    Args:
        results: The methods.
        controls: The controls, which are never recommended: a method that does not beat them has shown nothing.
        gap: The gap of two of all these in the primary metric.
        primary: The primary metric.
    """
    known, controls = (
        [each for each in some if not math.isnan(each.mean(primary.name))] for some in (results, controls)
    )
    sentences = _budget(known, gap, primary)
    labelled, outlines = ([each for each in known if each.annotator == name] for name in ("image-level", "full"))
    labels = max(labelled, key=lambda each: each.quality(primary), default=None)
    full = max(outlines, key=lambda each: (each.train_images or math.inf, each.quality(primary)), default=None)
    if labels:
        sentences.append(_labels(labels, full, gap, primary))
    if full:
        curve = sorted((each for each in known if each.curve == full.curve), key=lambda each: each.hours.value)
        if len(curve) > 1:
            amounts = [
                f"of {count_text(each.train_images, 'image') if each.train_images else 'all training images'} "
                f"({_hours(each.hours.value)}) reach {_reached(each, primary)}"
                for each in curve
            ]
            sentences.append(f"Outlines {'; '.join(amounts)}, by {full.method}.")
        if labels:
            sentences += _break_even(labels, curve, gap, primary)
    return (*sentences, *_beaten(known, controls, gap, primary))


def _budget(results: Sequence[MethodResult], gap: GapOf, primary: Column) -> list[str]:
    if len(results) < 2:
        return []
    found = claims(results, gap, primary)
    first = found[0].result
    if len(found) == 1 and found[0].rivals:
        return [
            f"More annotation time did not clearly buy more: no method was shown to beat the cheapest, {first.name} "
            f"({primary.name} {_reached(first, primary)} for {_hours(first.hours.value)})."
        ]
    sentences = []
    for number, claim in enumerate(found):
        best, last = claim.result, number + 1 == len(found)
        until = " or more" if last else f" to {_hours(found[number + 1].result.hours.value)}"
        text = f"With {_hours(best.hours.value)}{until} of annotator time, the best method is {best.name}"
        text += f": {primary.name} {_reached(best, primary)}"
        if claim.gap:
            text += f", better than with less time by {number_text(abs(claim.gap.difference))} {_brackets(claim.gap)}"
        if claim.rivals:
            named = [each.name for each in claim.rivals[:_MOST_NAMED]]
            named += [f"{len(claim.rivals) - _MOST_NAMED} more"] if len(claim.rivals) > _MOST_NAMED else []
            text += f". It cannot be distinguished from {listed(named)}"
        sentences.append(f"{text}.")
    return sentences


def _beaten(
    results: Sequence[MethodResult], controls: Sequence[MethodResult], gap: GapOf, primary: Column
) -> list[str]:
    """Say which methods were not shown to beat the best control."""
    best = max(controls, key=lambda each: each.quality(primary), default=None)
    if best is None:
        return []
    failing = [each for each in results if (found := gap(each, best)) is not None and found.sign != _better(primary)]
    if not failing:
        return []
    if len(failing) == len(results) > 1:
        words = "No method was"
    elif len(failing) > _MOST_NAMED:
        first = sorted(failing, key=lambda each: -each.quality(primary))[:_MOST_NAMED]
        best_of_them = listed([each.name for each in first])
        words = f"{len(failing)} of {len(results)} methods, the best of them {best_of_them}, were not"
    else:
        words = f"{listed([each.name for each in failing])} {'was' if len(failing) == 1 else 'were'} not"
    control = f'"{best.method}"' if "control" in best.method.lower() else f'the control "{best.method}"'
    return [f"{words} shown to beat {control} ({_reached(best, primary)})."]


def _labels(labels: MethodResult, full: MethodResult | None, gap: GapOf, primary: Column) -> str:
    name = primary.name
    text = f"Image-level labels alone reach {name} {_reached(labels, primary)} for {_hours(labels.hours.value)}"
    if not full:
        return f"{text}."
    if primary.higher_is_better and primary.range[0] == 0 and full.interval(name)[0] > 0:
        text += f", {100 * labels.mean(name) / full.mean(name):.0f} % of what full annotation reaches,"
    else:
        text += "; full annotation reaches"
    text += f" {_reached(full, primary)} for {_hours(full.hours.value)}"
    between = gap(labels, full)
    if between is None:
        return f"{text}."
    text += f" (labels minus full: {between.difference:+.3f} {_brackets(between, magnitude=False)})."
    if between.equivalent:
        return f"{text} The two are equivalent within {between.margin:g}."
    return text if between.sign else f"{text} The interval does not tell which of the two is better."


def _break_even(labels: MethodResult, curve: Sequence[MethodResult], gap: GapOf, primary: Column) -> list[str]:
    """Say where a curve overtakes labels, as far as its points are certainly worse or better; else nothing."""
    sides = [
        (each.hours.value, found.sign * _better(primary)) for each in curve if (found := gap(each, labels)) is not None
    ]
    above = min((hours for hours, sign in sides if sign > 0), default=math.inf)
    below = max((hours for hours, sign in sides if sign < 0 and hours < above), default=0.0)
    own = labels.hours.value
    if above <= own:
        return [f"There is no break-even: outlines of {_hours(above)} are better than labels of {_hours(own)}."]
    if math.isinf(above):
        worse = below > 0
        return [f"The break-even is beyond {_hours(below)}: outlines were not better in less time."] if worse else []
    if not below:
        return [f"The break-even is below {_hours(above)}, where outlines are better than labels."]
    points = [QualityPoint(each.key, each.hours.value, each.quality(primary)) for each in curve]
    hours = break_even(points, labels.quality(primary)).hours
    within = f", by interpolation at {_hours(hours)}" if below <= hours <= above else ""
    return [f"The break-even of outlines with labels is between {_hours(below)} and {_hours(above)}{within}."]


def _better(primary: Column) -> int:
    """Return the sign of a gap whose first method is better."""
    return 1 if primary.higher_is_better else -1


def _reached(result: MethodResult, primary: Column) -> str:
    return f"{number_text(result.mean(primary.name))} {interval_text(*result.interval(primary.name))}".rstrip()


def _brackets(gap: Gap, magnitude: bool = True) -> str:
    low, high = (gap.low, gap.high) if gap.difference >= 0 or not magnitude else (-gap.high, -gap.low)
    return interval_text(low, high)


def _hours(hours: float) -> str:
    if hours < 1 and hours > 0:
        return f"{significant_text(round(hours * 60, 1))} min"
    return f"{significant_text(hours)} h"
