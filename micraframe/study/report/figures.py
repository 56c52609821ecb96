"""Figures as SVG, readable in black-and-white print and with colour blindness: colour, marker and number agree.

The same figure gives the same bytes on every machine: text is measured with matplotlib's own font.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from micraframe.study.report.breakeven import QualityPoint, axis_floor
from micraframe.study.report.results import DatasetResults, MethodResult
from micraframe.study.report.wording import significant_text

# Okabe and Ito's colours without their yellow, which is too light for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">", "p", "*")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
# The numbers of colours and markers have no common divisor: no two of the first 70 methods look alike. Crosses are not
# among the markers: they mark break-even points.

_WIDTH = 7.6
_DPI = 100

# Where a method's number may be written, relative to its point, and how far away in points.
_DIAGONAL = ((0.75, 0.75), (0.75, -0.75), (-0.75, 0.75), (-0.75, -0.75))
_STRAIGHT = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
_NUMBER_AWAY = (11, 17)
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    # The first is matplotlib's own and measures the text; a browser without it uses the next, which is as wide.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class BreakEvenMark:
    """Where a curve is as good as another method.

    Attributes:
        hours: Of the curve.
        quality: The metric's value.
        other_hours: Of the other method.
    """

    hours: float
    quality: float
    other_hours: float


def draw_quality(found: DatasetResults, steps: Sequence[QualityPoint], marks: Sequence[BreakEvenMark]) -> str:
    """Draw the primary metric against annotation time, both with their ranges; return the SVG.

    Args:
        found: The results; a method without the metric is left out.
        steps: The methods that a growing budget switches between, with the metric as quality.
        marks: Break-even points to mark.
    """
    primary = found.primary.name
    over = "mean over" if found.primary.is_mean else "pooled over"
    shown = [result for result in found.results if not math.isnan(result.mean(primary))]
    floor = axis_floor([value for result in shown for value in result.hours])
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{found.slug}-quality"}):
        figure, axis = _figure(len(shown) + bool(marks) + 1)
        axis.set_xscale("log")
        for curve in found.curves():
            points = [result for result in curve if result in shown]
            if len(points) > 1:
                axis.plot(
                    [max(result.hours.value, floor) for result in points],
                    [result.mean(primary) for result in points],
                    color=_colour(points[-1]),
                    linewidth=1.6,
                    zorder=2.5,
                )
        for result in shown:
            _point(axis, result, primary, floor)
        for mark in marks:
            ends = [max(mark.other_hours, floor), max(mark.hours, floor)]
            axis.plot(ends, [mark.quality] * 2, color="#888888", linewidth=0.7, linestyle=":", zorder=1.5)
            axis.plot(ends[1], mark.quality, marker="x", color="black", markersize=6, markeredgewidth=1.4, zorder=4)
        right = max([floor * 3, *(result.hours.high for result in shown)]) * 1.4
        axis.set_xlim(floor * 0.8, right)
        if steps:
            # Matplotlib's own steps end at the last point, but the budget goes on growing.
            x = [max(step.hours, floor) for step in steps] + [right]
            y = [step.quality for step in steps] + [steps[-1].quality]
            axis.step(x, y, where="post", color="#999999", linewidth=3.5, alpha=0.45, zorder=1)
        _hours_axis(axis, floor, any(result.hours.low <= 0 for result in shown))
        axis.set_ylabel(f"{primary.replace('_', ' ')}, {over} images with 95 % interval")
        places = [(max(result.hours.value, floor), result.mean(primary)) for result in shown]
        _number(figure, axis, shown, places, _DIAGONAL + _STRAIGHT)
        extra = [Line2D([], [], color="#999999", linewidth=3.5, alpha=0.45, label="best within the budget")]
        if marks:
            extra.append(
                Line2D([], [], color="black", marker="x", linestyle="none", label="break-even point of a curve")
            )
        _legend(figure, [_handle(result, line=False) for result in shown] + extra)
        return _svg(figure, f"{found.slug}-quality")


def draw_object_f1(found: DatasetResults) -> str:
    """Draw F1 of objects against the IoU threshold at which two objects match; return the SVG."""
    columns = found.object_f1()
    shown = [result for result in found.results if any(not math.isnan(result.mean(name)) for _, name in columns)]
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{found.slug}-object-f1"}):
        figure, axis = _figure(len(shown))
        ends = []
        for result in shown:
            x, y = [iou for iou, _ in columns], [result.mean(name) for _, name in columns]
            axis.plot(x, y, **_look(result), linestyle=_line(result), linewidth=1.3)
            ends.append(next((iou, value) for iou, value in zip(x, y, strict=True) if not math.isnan(value)))
        axis.set_xlabel("IoU threshold of a match")
        axis.set_ylabel("F1 of objects")
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        axis.margins(x=0.06)
        # Lines begin on the left.
        _number(figure, axis, shown, ends, tuple((-x, y) for x, y in _STRAIGHT + _DIAGONAL))
        _legend(figure, [_handle(result, line=True) for result in shown])
        return _svg(figure, f"{found.slug}-object-f1")


def _point(axis: Any, result: MethodResult, metric: str, floor: float) -> None:
    summary = result.summaries["fixed", metric]
    x, y = max(result.hours.value, floor), summary.mean
    colour = _colour(result)
    axis.hlines(y, max(result.hours.low, floor), max(result.hours.high, floor), color=colour, linewidth=0.9, zorder=2)
    if not math.isnan(summary.low):
        axis.vlines(x, summary.low, summary.high, color=colour, linewidth=0.9, zorder=2)
    axis.plot(x, y, **_look(result), linestyle="none", zorder=3)


def _hours_axis(axis: Any, floor: float, zero: bool) -> None:
    axis.set_xlabel("annotation time (hours, logarithmic)")
    low, high = axis.get_xlim()
    subs = (1.0,) if high / low > 1e4 else (1.0, 2.0, 5.0)
    ticks = [tick for tick in LogLocator(subs=subs).tick_values(low, high) if low <= tick <= high]
    if zero:
        ticks = [floor, *(tick for tick in ticks if tick > floor * 1.5)]
    axis.set_xticks(ticks)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0" if zero and x == floor else significant_text(x)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _figure(entries: int) -> tuple[Figure, Any]:
    rows = math.ceil(entries / 2)
    figure = Figure(figsize=(_WIDTH, 4.3 + 0.19 * rows), layout="constrained", dpi=_DPI)
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=8, handlelength=3.2, labelspacing=0.35)


def _handle(result: MethodResult, line: bool) -> Line2D:
    style: Any = _line(result) if line else "none"
    return Line2D([], [], **_look(result), linestyle=style, label=_plain(f"{result.number}  {result.name}"))


def _look(result: MethodResult) -> dict[str, Any]:
    index = result.number - 1
    colour = _colour(result)
    filled = (index // len(COLOURS)) % 2 == 0
    return {
        "color": colour,
        "marker": MARKERS[index % len(MARKERS)],
        "markerfacecolor": colour if filled else "white",
        "markeredgecolor": colour,
        "markersize": 6,
    }


def _colour(result: MethodResult) -> str:
    return COLOURS[(result.number - 1) % len(COLOURS)]


def _line(result: MethodResult) -> Any:
    return LINES[(result.number - 1) % len(LINES)]


def _number(
    figure: Figure,
    axis: Any,
    results: Sequence[MethodResult],
    places: Sequence[tuple[float, float]],
    sides: Sequence[tuple[float, float]],
) -> None:
    """Write each method's number beside its point, on the first side where it covers least."""
    figure.draw_without_rendering()
    pixels = axis.transData.transform(np.array(places, np.float64).reshape(-1, 2))
    # Occupied places, in pixels: the points, then the numbers written so far.
    taken = [(float(x), float(y)) for x, y in pixels]
    offsets = [(radius * x, radius * y) for radius in _NUMBER_AWAY for x, y in sides]
    for index, (result, place) in enumerate(zip(results, places, strict=True)):
        x, y = taken[index]
        others = taken[:index] + taken[index + 1 :]
        spots = [(x + dx * _DPI / 72, y + dy * _DPI / 72) for dx, dy in offsets]
        covered = [sum(abs(u - s) < 15 and abs(v - t) < 13 for s, t in others) for u, v in spots]
        best = int(np.argmin(covered))
        taken.append(spots[best])
        axis.annotate(
            str(result.number),
            place,
            xytext=offsets[best],
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            zorder=5,
            annotation_clip=False,
        )


def _plain(text: str) -> str:
    # A dollar sign would start a formula.
    return text.replace("$", r"\$")


def _svg(figure: Figure, name: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue().decode("utf-8")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # Several figures share a page: their ids must differ.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    # A figure's style rule would apply to the whole page.
    text = re.sub(r'<defs>\s*<style type="text/css">.*?</style>\s*</defs>\s*', "", text, count=1, flags=re.DOTALL)
    return text.replace("<svg ", '<svg style="stroke-linejoin: round; stroke-linecap: butt" ', 1)


def inline(svg: str, description: str) -> Markup:
    """Return a figure as part of a page: without the file's header, scaled to the page, described for screen readers.

    Args:
        svg: The SVG of a whole figure.
        description: What the figure shows.
    """
    body = svg[svg.index("<svg ") :]
    body = re.sub(r'\s(width|height)="[\d.]+pt"', "", body, count=2)
    # Matplotlib escapes all text in a figure.
    return Markup(body.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1))
