"""Figures as SVG: colour is the training annotation and shape the method, the same in every report.

Controls and ceilings are grey. The same figure gives the same bytes on every machine: text is measured with
matplotlib's own font.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from scipy.optimize import isotonic_regression

from micraframe.overlay import FALSE_NEGATIVE, FALSE_POSITIVE
from micraframe.study.report.breakeven import axis_floor
from micraframe.study.report.budget import Crossing
from micraframe.study.report.failures import WITH_CLASS, WITHOUT_CLASS, DatasetFailures
from micraframe.study.report.results import DatasetResults, MethodResult
from micraframe.study.report.wording import annotation_text, percent_text, significant_text

COLOURS: Final = {
    "image-level": "#0072B2",
    "points": "#56B4E9",
    "scribbles": "#009E73",
    "boxes": "#CC79A7",
    "dilated": "#882255",
    "altered": "#999933",
    "polygons": "#E69F00",
    "full": "#D55E00",
}
"""Of core's annotators: Okabe and Ito's colours without their yellow, too light on white, and two of Tol's."""

MARKERS: Final = {
    "micraframe/micra-net": "o",
    "micraframe-unet/unet": "s",
    "micraframe-maskrcnn/mask-rcnn": "D",
    "micraframe-forest/forest": "^",
    "micraframe/self-training": "P",
}
"""Of first-party methods."""

_OTHER_COLOURS = ("#000000", "#661100", "#332288", "#117733")
_OTHER_MARKERS = ("v", "<", ">", "p", "*", "h", "X", "d")
_ROLE_MARKERS = {"control": "x", "ceiling": "_"}
_GREY = "#777777"
# Further lines of one colour differ by their strokes.
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))

KIND_COLOURS: Final = (
    "#e8e8e8",
    *("#{:02x}{:02x}{:02x}".format(*colour) for colour in (FALSE_NEGATIVE, FALSE_POSITIVE)),
    "#56347e",
    "#1a1a1a",
)
"""Of `WITH_CLASS`: ever darker, so that they differ in grey too; too little and too much as in the pictures."""

_WIDTH = 5.0
_DPI = 100

# Where a method's name or number may be written, relative to its point, and how far away in points.
_SIDES = ((0.75, 0.75), (0.75, -0.75), (-0.75, 0.75), (-0.75, -0.75), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
_AWAY = (9, 14, 22, 32, 45, 60)
_TEXT_HEIGHT = 13.0  # in pixels
_LED = 22.0  # Pixels from a point from which a line leads to its text.

# So many points are a crowd if they lie above each other: horizontally, within so many pixels.
_CROWD = 4
_ABOVE = 12.0
_COLUMNS_AWAY = (22, 32, 44, 14)  # in points, the preferred distance first

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    # The first is matplotlib's own and measures the text; a browser without it uses the next, which is as wide.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 10,
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


def draw_quality(found: DatasetResults, steps: Sequence[MethodResult], marks: Sequence[Crossing]) -> str:
    """Draw the primary metric against annotation time, both with their ranges; return the SVG.

    Args:
        found: The results; a method without the metric is left out.
        steps: The methods that a growing budget switches between: named in the figure.
        marks: Where curves are as good as other methods: all are reached.
    """
    primary = found.primary.name
    shown = [result for result in found.results if not math.isnan(result.mean(primary))]
    floor = axis_floor([value for result in shown for value in result.hours])
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{found.slug}-quality"}):
        handles = _key(shown)
        figure, axis = _figure(len(handles) + 1 + bool(marks))
        axis.set_xscale("log")
        for curve in found.curves():
            points = [result for result in curve if result in shown]
            if len(points) > 1:
                x = [max(result.hours.value, floor) for result in points]
                y = [result.mean(primary) for result in points]
                axis.plot(x, y, color=colour_of(points[-1]), linewidth=1.6, zorder=2.5)
        for result in shown:
            _point(axis, result, primary, floor)
        for mark in marks:
            ends = [max(hours, floor) for hours in (mark.result.hours.value, mark.reached.hours)]
            quality = mark.result.mean(primary)
            axis.plot(ends, [quality] * 2, color="#888888", linewidth=0.7, linestyle=":", zorder=1.5)
            axis.plot(ends[1], quality, marker="|", color="black", markersize=9, markeredgewidth=1.4, zorder=4)
        right = max([floor * 3, *(result.hours.high for result in shown)]) * 1.4
        axis.set_xlim(floor * 0.8, right)
        if steps:
            # Matplotlib's own steps end at the last point, but the budget goes on growing.
            x = [max(step.hours.value, floor) for step in steps] + [right]
            y = [step.mean(primary) for step in (*steps, steps[-1])]
            axis.step(x, y, where="post", color="#999999", linewidth=3.5, alpha=0.45, zorder=1)
        _hours_axis(axis, floor, any(result.hours.low <= 0 for result in shown))
        axis.set_ylabel(primary.replace("_", " "))
        places = [(max(result.hours.value, floor), result.mean(primary)) for result in shown]
        frontier = {step.key for step in steps}
        names = [result.row_name if result.key in frontier else "" for result in shown]
        _write(figure, axis, shown, places, names)
        handles.append(Line2D([], [], color="#999999", linewidth=3.5, alpha=0.45, label="best within the budget"))
        if marks:
            style: dict[str, Any] = {"color": "black", "marker": "|", "markersize": 9, "linestyle": "none"}
            handles.append(Line2D([], [], label="break-even point", **style))
        _legend(figure, handles)
        return _svg(figure, f"{found.slug}-quality")


def draw_object_f1(found: DatasetResults) -> str:
    """Draw F1 of objects against the IoU threshold at which two objects match; return the SVG."""
    columns = found.object_f1()
    shown = [result for result in found.results if any(not math.isnan(result.mean(name)) for _, name in columns)]
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{found.slug}-object-f1"}):
        handles = _key(shown)
        figure, axis = _figure(len(handles))
        ends = []
        for result in shown:
            x, y = [iou for iou, _ in columns], [result.mean(name) for _, name in columns]
            axis.plot(x, y, **_look(result), linestyle=LINES[result.number % len(LINES)], linewidth=1.3)
            ends.append(next((iou, value) for iou, value in zip(x, y, strict=True) if not math.isnan(value)))
        axis.set_xlabel("IoU threshold of a match")
        axis.set_ylabel("F1 of objects")
        axis.margins(x=0.08)
        axis.set_ylim(0, 1.05 * max(axis.get_ylim()[1], 0.1))
        _write(figure, axis, shown, ends, [""] * len(shown))
        _legend(figure, handles)
        return _svg(figure, f"{found.slug}-object-f1")


def draw_failures(slug: str, failures: DatasetFailures) -> str:
    """Draw the share of images of each kind: one bar per method with the class, and one without it; return the SVG."""
    methods = failures.methods
    # The lightest and the darkest colour mean the same in both bars: presence was judged correctly, or wrongly.
    parts: list[tuple[slice, Sequence[str], str, Sequence[float]]]
    parts = [(slice(0, len(WITH_CLASS)), KIND_COLOURS, "images with the class", (0, 0.5, 1))]
    names = list(WITH_CLASS)
    if failures.images[1]:
        ends = KIND_COLOURS[0], KIND_COLOURS[-1]
        parts.append((slice(len(WITH_CLASS), None), ends, "images without it", (0, 1)))
        names[0], names[-1] = (
            f"{one}; {other}" for one, other in zip((names[0], names[-1]), WITHOUT_CLASS, strict=True)
        )
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{slug}-failures", "axes.grid": False, "axes.spines.left": False}):
        figure = Figure(figsize=(_WIDTH, 1.2 + 0.29 * len(methods)), layout="constrained", dpi=_DPI)
        FigureCanvasSVG(figure)
        widths = (3, 1)[: len(parts)]
        (axes,) = figure.subplots(1, len(parts), sharey=True, squeeze=False, width_ratios=widths)
        for axis, width, (kinds, colours, title, ticks) in zip(axes, widths, parts, strict=True):
            for row, method in enumerate(methods):
                _bar(axis, row, method.shares[kinds].tolist(), colours, 0.18 / width)
            axis.set(xlim=(0, 1), ylim=(len(methods) - 0.6, -0.8), yticks=[], xticks=ticks, xlabel=title)
            axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: percent_text(share)))
            axis.tick_params(labelsize=8)
        for row, method in enumerate(methods):
            look: dict[str, Any] = {"fontsize": 7.5, "color": colour_of(method.result), "va": "bottom"}
            # A long name runs on above the other bar.
            axes[0].text(0, row - 0.26, _plain(method.name), **look).set_in_layout(False)
        keys = [Patch(facecolor=colour, edgecolor="#777777", linewidth=0.5) for colour in KIND_COLOURS]
        figure.legend(keys, names, loc="outside lower left", ncols=2, fontsize=9, handlelength=1.2, labelspacing=0.35)
        return _svg(figure, f"{slug}-failures")


def _bar(axis: Any, row: int, shares: Sequence[float], colours: Sequence[str], least: float) -> None:
    """Draw one stacked bar, with its per cent in each part that is at least so long."""
    left = 0.0
    for share, colour in zip(shares, colours, strict=True):
        if share > 0:
            axis.barh(row, share, 0.44, left, color=colour, edgecolor="#777777", linewidth=0.5, clip_on=False)
        if share >= least:
            look = {"color": "white" if colour in KIND_COLOURS[-2:] else "black", "ha": "center", "va": "center"}
            axis.text(left + share / 2, row, f"{100 * share:.0f}", fontsize=7, **look)
        left += share


def _point(axis: Any, result: MethodResult, metric: str, floor: float) -> None:
    summary = result.summaries["fixed", metric]
    x, y = max(result.hours.value, floor), summary.mean
    colour = colour_of(result)
    axis.hlines(y, max(result.hours.low, floor), max(result.hours.high, floor), color=colour, linewidth=0.9, zorder=2)
    if not math.isnan(summary.low):
        # An interval that holds for the one trained model alone says less: it is dotted.
        style = ":" if summary.conditional else "-"
        axis.vlines(x, summary.low, summary.high, color=colour, linewidth=1.1, linestyle=style, zorder=2)
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
    figure = Figure(figsize=(_WIDTH, 3.5 + 0.2 * math.ceil(entries / 2)), layout="constrained", dpi=_DPI)
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=9, handlelength=1.8, labelspacing=0.35)


def _key(results: Sequence[MethodResult]) -> list[Line2D]:
    """Return what colours and shapes mean: annotations, then methods."""
    ranked = [result for result in results if result.role == "method"]
    annotations = {annotation_text(each.annotator): colour_of(each) for each in ranked}
    methods = {each.component.rpartition("/")[2]: _marker(each) for each in ranked}
    roles = {each.role: _marker(each) for each in results if each.role != "method"}
    patch: dict[str, Any] = {"linestyle": "none", "marker": "s", "markersize": 9}
    shape: dict[str, Any] = {"linestyle": "none", "color": "black", "markerfacecolor": "white", "markersize": 6}
    return [
        *(Line2D([], [], color=colour, label=_plain(name), **patch) for name, colour in annotations.items()),
        *(Line2D([], [], marker=marker, label=_plain(name), **shape) for name, marker in methods.items()),
        *(Line2D([], [], **{**shape, "color": _GREY, "marker": marker}, label=role) for role, marker in roles.items()),
    ]


def _look(result: MethodResult) -> dict[str, Any]:
    return {"color": colour_of(result), "marker": _marker(result), "markersize": 6.5}


def colour_of(result: MethodResult) -> str:
    """Return the colour of a method's annotation; grey of controls and ceilings."""
    if result.role != "method":
        return _GREY
    return COLOURS.get(result.annotator) or _chosen(_OTHER_COLOURS, result.annotator)


def _marker(result: MethodResult) -> str:
    return _ROLE_MARKERS.get(result.role) or MARKERS.get(result.component) or _chosen(_OTHER_MARKERS, result.component)


def _chosen(options: Sequence[str], name: str) -> str:
    # By the name and not by the order: a component looks the same in every report.
    return options[zlib.crc32(name.encode()) % len(options)]


class Box(NamedTuple):
    """A rectangle in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def covered(self, others: Sequence[Box]) -> float:
        """Return the area in which it overlaps others."""
        return sum(
            max(min(self.right, other.right) - max(self.left, other.left), 0)
            * max(min(self.top, other.top) - max(self.bottom, other.bottom), 0)
            for other in others
        )

    def outside(self, frame: Box) -> float:
        """Return how far it reaches beyond a frame."""
        beyond = (
            frame.left - self.left,
            self.right - frame.right,
            frame.bottom - self.bottom,
            self.top - frame.top,
        )
        return sum(max(each, 0.0) for each in beyond)


def _write(
    figure: Figure,
    axis: Any,
    results: Sequence[MethodResult],
    places: Sequence[tuple[float, float]],
    names: Sequence[str],
) -> None:
    """Write each method's number, and the name if there is one, beside its point; far from it, a line leads there."""
    figure.draw_without_rendering()
    frame = Box(*axis.get_window_extent().extents)
    pixels = axis.transData.transform(np.array(places, np.float64).reshape(-1, 2))
    texts = [f"{result.number}  {name}".rstrip() for result, name in zip(results, names, strict=True)]
    boxes = place_labels(pixels, texts, [bool(name) for name in names], frame)
    for result, name, text, place, (x, y), box in zip(results, names, texts, places, pixels, boxes, strict=True):
        colour = colour_of(result)
        side = 0.0 if box.left > x else 1.0 if box.right < x else 0.5
        distance = math.hypot(box.left + side * (box.right - box.left) - x, (box.bottom + box.top) / 2 - y)
        line = {"arrowstyle": "-", "linewidth": 0.6, "color": colour, "relpos": (side, 0.5), "shrinkA": 0, "shrinkB": 0}
        axis.annotate(
            _plain(text),
            place,
            xytext=((box.left - x) * 72 / _DPI, ((box.bottom + box.top) / 2 - y) * 72 / _DPI),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=9 if name else 8,
            fontweight="bold" if name else "normal",
            color=colour,
            # Thin lines of other methods must not strike a number out.
            bbox=None if name else {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.3},
            arrowprops=line if distance > _LED else None,
            zorder=5,
            annotation_clip=False,
        )


def place_labels(points: npt.NDArray[np.float64], texts: Sequence[str], first: Sequence[bool], frame: Box) -> list[Box]:
    """Return where the texts of points are written: near their points, and where they cover least.

    At least `_CROWD` points above each other have their texts in columns beside them, in the points' order.

    Args:
        points: (N, 2): (x, y) in pixels, y upwards.
        texts: Of each point.
        first: Whether a text is a long one: it is in no column, and is placed after the columns, but before other
            single texts.
        frame: What texts should not leave.
    """
    found: dict[int, Box] = {}
    # Occupied are the points, then also the texts placed so far.
    taken = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in points.tolist()]

    def keep(placed: Mapping[int, Box]) -> None:
        found.update(placed)
        taken.extend(placed.values())

    lone = np.flatnonzero(first).tolist()
    for crowd in _crowds(points, [index for index in range(len(texts)) if not first[index]]):
        if len(crowd) >= _CROWD:
            keep(_columns(points, texts, crowd, taken, frame))
        else:
            lone += crowd
    for index in lone:
        keep({index: _beside(points[index], texts[index], taken, frame)})
    return [found[index] for index in range(len(texts))]


def _crowds(points: npt.NDArray[np.float64], indices: Sequence[int]) -> list[list[int]]:
    """Return these points by what is above each other, the largest first; in each, from the top, then by index."""
    crowds: list[list[int]] = []
    for index in sorted(indices, key=lambda index: points[index, 0]):
        if not crowds or points[index, 0] - points[crowds[-1][0], 0] > _ABOVE:
            crowds.append([])
        crowds[-1].append(index)
    return sorted(
        (sorted(crowd, key=lambda index: (-points[index, 1], index)) for crowd in crowds),
        key=lambda crowd: (-len(crowd), min(crowd)),
    )


def _beside(point: npt.NDArray[np.float64], text: str, taken: Sequence[Box], frame: Box) -> Box:
    """Return where a text near its point covers least."""
    (x, y), width = point.tolist(), _text_width(text)
    spots = []
    for away in _AWAY:
        for dx, dy in _SIDES:
            u, v = x + dx * away * _DPI / 72, y + dy * away * _DPI / 72
            left = u if dx > 0 else u - width if dx < 0 else u - width / 2
            spots.append(Box(left, v - _TEXT_HEIGHT / 2, left + width, v + _TEXT_HEIGHT / 2))
    return min(spots, key=lambda spot: spot.covered(taken) + 100 * spot.outside(frame))


def _columns(
    points: npt.NDArray[np.float64], texts: Sequence[str], crowd: Sequence[int], taken: Sequence[Box], frame: Box
) -> dict[int, Box]:
    """Return where a crowd's texts cover least in columns beside it: by turns right and left, or on one side."""
    options = []
    for away in _COLUMNS_AWAY:
        for sides in ((1, -1), (1,), (-1,)):
            placed: dict[int, Box] = {}
            for turn, side in enumerate(sides):
                placed |= _column(points, texts, crowd[turn :: len(sides)], side * away * _DPI / 72, frame)
            options.append(placed)

    def cost(placed: Mapping[int, Box]) -> float:
        # The less texts are moved, the shorter their lines: so in two columns, unless one of them covers something.
        moved = sum(abs((box.bottom + box.top) / 2 - float(points[index, 1])) for index, box in placed.items())
        return moved + sum(20 * box.covered(taken) + 1000 * box.outside(frame) for box in placed.values())

    return min(options, key=cost)


def _column(
    points: npt.NDArray[np.float64], texts: Sequence[str], members: Sequence[int], away: float, frame: Box
) -> dict[int, Box]:
    """Return texts below each other, in the order of their points and as little above or below them as possible."""
    if not members:
        return {}
    height = frame.top - frame.bottom
    # Rather above each other than outside.
    steps = min(_TEXT_HEIGHT, (height - _TEXT_HEIGHT) / max(len(members) - 1, 1)) * np.arange(len(members))
    # How far below the frame's top the middle of each text is: at least a step below the one before.
    below = isotonic_regression(frame.top - points[list(members), 1] - steps).x + steps
    below = np.maximum(np.minimum(below, height - _TEXT_HEIGHT / 2 - steps[::-1]), _TEXT_HEIGHT / 2 + steps)
    x = float(points[list(members), 0].mean()) + away
    widths = [_text_width(texts[index]) for index in members]
    return {
        index: Box(left, middle - _TEXT_HEIGHT / 2, left + width, middle + _TEXT_HEIGHT / 2)
        for index, width, middle in zip(members, widths, (frame.top - below).tolist(), strict=True)
        for left in [x if away > 0 else x - width]
    }


def _text_width(text: str) -> float:
    return 6.6 * len(text) + 2


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
