"""The page: gathers what a study came to and writes it as HTML, with its figures as files beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from micraframe import config, registry
from micraframe.annotators.costs import PRESETS
from micraframe.config import Study
from micraframe.files import write_text
from micraframe.overlay import legend
from micraframe.statistics import RESAMPLES, least_p
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import Cell, label
from micraframe.study.report import wording
from micraframe.study.report.breakeven import Point
from micraframe.study.report.budget import Crossing, Step, crossings, order_at, steps
from micraframe.study.report.definitions import definitions, lower_is_better
from micraframe.study.report.examples import Examples, examples
from micraframe.study.report.figures import Mark, draw_object_f1, draw_quality, inline
from micraframe.study.report.methods_text import methods_text, price_presets
from micraframe.study.report.results import ALPHA, DatasetResults, Result, gather
from micraframe.study.report.tuned import Tuning, tunings
from micraframe.study.tables import Difference, Summary, Values
from micraframe.types import SPLITS, Split

if TYPE_CHECKING:
    from micraframe.study.run import CostRow

_PICTURE_BYTES = 4_500_000
"""What all examples of a page may take together."""

_TASKS = ("image_level", "point", "scribble", "box", "outline")


@dataclass(frozen=True)
class Section:
    """What the page says of one dataset.

    Attributes:
        found: What the study came to.
        sizes: Number of images of each split.
        groups: Number of groups that the test images are of.
        least_p: The smallest p value that a pair of contenders can have after Holm's correction, with so many groups.
        steps: Between which contenders a growing budget switches.
        orders: The same contenders where costs are at their `low` and `high` end, if those are others.
        crossings: Where curves are as good as other contenders.
        quality_svg: Quality against hours; empty where there is nothing to draw.
        object_f1_svg: F1 of objects against IOU; empty where it was measured at fewer than two IOUs.
        tunings: Thresholds.
        examples: Test images.
        colours: CSS colour of each class.
    """

    found: DatasetResults
    sizes: Mapping[Split, int]
    groups: int
    least_p: float
    steps: tuple[Step, ...]
    orders: Mapping[str, tuple[Result, ...]]
    crossings: tuple[Crossing, ...]
    quality_svg: Markup
    object_f1_svg: Markup
    tunings: tuple[Tuning, ...]
    examples: Examples
    colours: Mapping[str, str]


def write_report(
    study: Study,
    cells: Sequence[Cell],
    folder: StudyFolder,
    values: Values,
    summaries: Iterable[Summary],
    differences: Iterable[Difference],
    costs: Iterable[CostRow],
    provenance: Mapping[str, Any],
) -> Path:
    """Write `report.html`, and its figures to `figures`, of the cells that are done.

    The page needs nothing but itself. But for the date, the same results give the same bytes.

    Args:
        study: The study.
        cells: All of it, done or not.
        folder: Where its results are, and the page goes.
        values: The numbers of the cells that are done.
        summaries: Their means.
        differences: Their tests.
        costs: What their annotation costs.
        provenance: Date, machine, datasets with the versions of what took part, as `provenance.json` has it.

    Returns:
        The page's path.
    """
    # What is not written out of the study could not be told of it.
    study = config.resolve(study)
    gathered = gather(cells, folder, summaries, differences, costs, study.primary, study.compared)
    sections = [_section(found, cells, values, folder, _PICTURE_BYTES // len(gathered)) for found in gathered]
    versions = _versions(provenance)
    columns = dict.fromkeys(metric for section in sections for metric in section.found.metrics)
    sizes = {section.found.info.name: section.sizes for section in sections}
    groups = {section.found.info.name: section.groups for section in sections}
    done = [cell for cell in cells if folder.is_done(cell)]
    context = {
        "study": study,
        "sections": sections,
        "done": len(done),
        "planned": len(cells),
        "failures": [(str(cell), folder.error(cell)) for cell in cells if folder.error(cell)],
        "waiting": [str(cell) for cell in cells if not folder.is_done(cell) and not folder.error(cell)],
        "trainings": _trainings(done, folder),
        "annotators": _annotators(study),
        "prices": {name: {task: getattr(PRESETS[name], task) for task in _TASKS} for name in _presets(study)},
        "methods": methods_text(study, cells, sizes, groups, list(columns), versions),
        "yaml": config.to_yaml(study),
        "provenance": provenance,
        "versions": versions,
        "resamples": RESAMPLES,
        "alpha": ALPHA,
    }
    path = folder.path / "report.html"
    write_text(path, _environment().get_template("page.html.jinja").render(context))
    return path


def _section(found: DatasetResults, cells: Sequence[Cell], values: Values, folder: StudyFolder, budget: int) -> Section:
    choice = next(cell.dataset for cell in cells if cell.info.name == found.info.name)
    dataset = registry.build("dataset", choice.name, **choice.params)
    stairs, crossed = steps(found), crossings(found)
    usual = tuple(step.result for step in stairs)
    orders = {end: order for end in ("low", "high") if (order := order_at(found, end)) != usual}
    quality = objects = ""
    if stairs:
        points = [Point(step.result.name, step.result.hours.value, step.result.mean(found.primary)) for step in stairs]
        marks = [
            Mark(each.reached.hours, each.result.mean(found.primary), each.result.hours.value)
            for each in crossed
            if each.reached.status == "reached"
        ]
        quality = draw_quality(found, points, marks)
        write_text(folder.path / "figures" / f"{found.slug}-quality.svg", quality)
    if len(found.object_f1()) > 1:
        objects = draw_object_f1(found)
        write_text(folder.path / "figures" / f"{found.slug}-object-f1.svg", objects)
    groups = len(set(values.clusters(found.info.name))) if found.results else 0
    return Section(
        found=found,
        sizes={split: len(dataset.samples(split)) for split in SPLITS},
        groups=groups,
        least_p=min(least_p(groups) * math.comb(len(found.results), 2), 1.0),
        steps=stairs,
        orders=orders,
        crossings=crossed,
        quality_svg=_inline(quality, _quality_description(found, stairs)),
        object_f1_svg=_inline(objects, f"F1 of objects against IOU on {found.info.name}, a line for each contender"),
        tunings=tunings(found, folder),
        examples=examples(found, values, folder, budget),
        colours={
            name: f"rgb({', '.join(str(round(255 * part)) for part in colour)})"
            for name, colour in legend(found.info.classes).items()
        },
    )


def _inline(svg: str, description: str) -> Markup:
    # Drawn here, with all text in it escaped by matplotlib and `inline`.
    return Markup(inline(svg, description)) if svg else Markup("")


def _quality_description(found: DatasetResults, stairs: Sequence[Step]) -> str:
    told = "; ".join(
        f"from {wording.hours_text(step.result.hours.value)} h {step.result.name} at "
        f"{wording.number_text(step.result.mean(found.primary))}"
        for step in stairs
    )
    return f"{found.primary} against hours of annotation on {found.info.name}. Best within the budget: {told}."


def _trainings(done: Sequence[Cell], folder: StudyFolder) -> list[tuple[str, float]]:
    """Return each training once, by the first cell that it served, with its seconds."""
    first: dict[str, Cell] = {}
    for cell in done:
        first.setdefault(cell.training_key, cell)
    return [(str(cell), folder.training_seconds(cell)) for cell in first.values()]


def _annotators(study: Study) -> list[tuple[str, str, str]]:
    """Return of every annotator its name, whose prices it is reckoned with, and those of its own."""
    choices = [contender.annotator for contender in study.contenders] + ([study.tuning_annotator] if study.tune else [])
    told = {}
    for choice in choices:
        cost = choice.params.get("cost")
        known = cost if isinstance(cost, dict) else {}
        own = ", ".join(f"{key} {value:g} s" for key, value in known.items() if key != "preset" and value is not None)
        name = label(choice, "annotator")
        told[name] = (name, str(known.get("preset", "its own")), own)
    return list(told.values())


def _presets(study: Study) -> list[Any]:
    return [name for name in price_presets(study) if name in PRESETS]


def _versions(provenance: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for dataset in provenance["datasets"].values():
        found |= {key: value for key, value in dataset.items() if key not in ("seed", "data", "licence", "citation")}
    return found


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": wording.number_text,
        "change": wording.change_text,
        "hours": wording.hours_text,
        "hours_range": wording.range_text,
        "seconds": wording.seconds_text,
        "p": wording.p_text,
        "listed": wording.listed,
    }
    environment.globals |= {
        "interval": wording.interval_text,
        "lower_is_better": lower_is_better,
        "definitions": definitions,
    }
    return environment
