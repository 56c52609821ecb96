"""The page: collects the results of a study and writes them as HTML, with the figures as files beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from micraframe import config, registry
from micraframe.config import Study
from micraframe.overlay import FALSE_NEGATIVE, FALSE_POSITIVE, PREDICTED
from micraframe.pricing import unit_price
from micraframe.runtime.files import write_text
from micraframe.selection import CRITERIA
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import StudyRun
from micraframe.study.report import wording
from micraframe.study.report.budget import BudgetStep, Crossing, crossings, other_orders, steps
from micraframe.study.report.classes import ClassResults, class_results
from micraframe.study.report.criteria import MethodCriteria, method_criteria
from micraframe.study.report.examples import ExampleImage, examples
from micraframe.study.report.failures import WITH_CLASS, WITHOUT_CLASS, DatasetFailures, dataset_failures
from micraframe.study.report.figures import colour_of, draw_failures, draw_object_f1, draw_quality, inline
from micraframe.study.report.methods_text import DatasetSize, methods_text
from micraframe.study.report.planned import planning
from micraframe.study.report.results import ALPHA, DatasetResults, MethodResult, gather
from micraframe.study.report.tuned import MethodThresholds, method_thresholds
from micraframe.study.report.verdict import verdict
from micraframe.study.tables import StudyTables, Values
from micraframe.types import SPLITS, Origin, Task

_PICTURE_BYTES = 600_000
"""Upper bound for all examples of a page together, so that the page stays below 1 MiB."""


@dataclass(frozen=True)
class DatasetSection:
    """What the page shows of one dataset.

    Attributes:
        found: The results.
        size: Number of images and groups.
        answer: What the results say, in sentences.
        steps: The methods that a growing budget switches between.
        orders: These methods at other plausible timings, described, if they differ from `steps`.
        crossings: Where curves are as good as other methods.
        quality_svg: Quality against annotation time; empty where there is nothing to draw.
        object_f1_svg: F1 of objects against IoU; empty where it was measured at fewer than two IoUs.
        failures: How often methods fail, and how; None where it is unknown.
        failures_svg: The same as a figure; empty where it is unknown.
        classes: Results class by class.
        thresholds: Thresholds of each method.
        tuned_metrics: Metrics to compare between origins of thresholds.
        criteria: What labels alone say of each method; empty unless the study asks for it.
        examples: Test images.
        names: Method + annotation in words by its name in the tables of differences.
    """

    found: DatasetResults
    size: DatasetSize
    answer: tuple[str, ...]
    steps: tuple[BudgetStep, ...]
    orders: Mapping[str, tuple[MethodResult, ...]]
    crossings: tuple[Crossing, ...]
    quality_svg: Markup
    object_f1_svg: Markup
    failures: DatasetFailures | None
    failures_svg: Markup
    classes: ClassResults
    thresholds: tuple[MethodThresholds, ...]
    tuned_metrics: tuple[str, ...]
    criteria: tuple[MethodCriteria, ...]
    examples: tuple[ExampleImage, ...]
    names: Mapping[str, str]

    @property
    def several(self) -> bool:
        """Whether there is more than one class."""
        return len(self.found.info.classes) > 1

    @property
    def by_labels(self) -> tuple[Origin, ...]:
        """The origins of thresholds that need image-level labels alone, where any method has such thresholds."""
        origins: tuple[Origin, ...] = ("negatives", "expected-share")
        return tuple(origin for origin in origins if any(origin in each.texts for each in self.thresholds))

    @property
    def conditional(self) -> bool:
        """Whether any interval of the primary metric holds for one trained model only."""
        primary = ("fixed", self.found.primary.name)
        return any(each.summaries[primary].conditional for each in self.found.results if primary in each.summaries)


def write_report(
    study: Study,
    runs: Sequence[StudyRun],
    folder: StudyFolder,
    tables: StudyTables,
    provenance: Mapping[str, Any],
) -> Path:
    """Write `report.html` from the completed runs, and its figures to `figures`.

    The page is self-contained. Apart from the date, the same results give the same bytes.

    Args:
        study: The study.
        runs: All its runs, completed or not.
        folder: Where the results are and the page goes.
        tables: The results of the completed runs.
        provenance: Date, machine, and datasets with the versions of the software, as in `provenance.json`.

    Returns:
        The page's path.
    """
    # The methods section is written from the study, so every default must be written out.
    study = config.resolve(study)
    gathered = gather(study, runs, folder, tables)
    budget = _PICTURE_BYTES // len(gathered)
    sections = [_section(found, runs, folder, tables.values, budget) for found in gathered]
    columns = {column.name: column for section in sections for column in section.found.metrics}
    sizes = {section.found.info.name: section.size for section in sections}
    versions: Mapping[str, str] = provenance["versions"]
    completed = [run for run in runs if folder.is_done(run)]
    plans = planning(study, runs, folder)
    failed_runs = [(str(run), error) for run in runs if (error := folder.error(run))]
    context = {
        "study": study,
        "names": ", ".join(section.found.info.name for section in sections),
        "sections": sections,
        "combinations": len({(run.method, run.annotator) for run in runs if run.kind == "method"}),
        "planning": plans,
        "done": len(completed),
        "planned": len(runs),
        "progress": progress_text(len(completed), len(runs), len(failed_runs)),
        "failed_runs": failed_runs,
        "waiting": [str(run) for run in runs if not folder.is_done(run) and not folder.error(run)],
        "trainings": _trainings(completed, folder),
        "prices": {task: unit_price(task, study.prices) for task in get_args(Task)},
        "criteria": CRITERIA,
        "with_class": WITH_CLASS,
        "without_class": WITHOUT_CLASS,
        "methods": methods_text(study, runs, plans, sizes, columns, versions),
        "yaml": config.to_yaml(study),
        "provenance": provenance,
        "versions": versions,
        "tables": _files(folder, "*.csv*"),
        "drawings": _files(folder, "figures/*.svg", "pictures/*.png"),
        "alpha": ALPHA,
        "colours": {
            name: f"rgb{colour}"
            for name, colour in (("predicted", PREDICTED), ("positive", FALSE_POSITIVE), ("negative", FALSE_NEGATIVE))
        },
    }
    path = folder.path / "report.html"
    write_text(path, _environment().get_template("page.html.jinja").render(context))
    return path


def progress_text(completed: int, planned: int, failed: int) -> str:
    """Return how many runs of a study have completed, as a sentence."""
    if completed == planned:
        return "The only run completed." if planned == 1 else f"All {planned:,} runs completed."
    failures = f"; {failed:,} failed" if failed else ""
    return f"{completed:,} of {wording.count_text(planned, 'run')} completed{failures}."


def _section(
    found: DatasetResults, runs: Sequence[StudyRun], folder: StudyFolder, values: Values, budget: int
) -> DatasetSection:
    choice = next(run.dataset for run in runs if run.info.name == found.info.name)
    dataset = registry.build("dataset", choice.name, **choice.params)
    groups = len(set(values.clusters(found.info.name))) if found.results else 0
    size = DatasetSize({split: len(dataset.samples(split)) for split in SPLITS}, groups)
    primary = found.primary.name
    stairs, crossed = steps(found), crossings(found)
    usual = tuple(step.result for step in stairs)
    quality = objects = failed = Markup("")
    if not all(math.isnan(each.mean(primary)) for each in found.results):
        drawn = draw_quality(found, usual, _marks(found, crossed))
        write_text(folder.path / "figures" / f"{found.slug}-quality.svg", drawn)
        quality = inline(drawn, _quality_description(found, usual))
    if len(found.object_f1()) > 1:
        drawn = draw_object_f1(found)
        write_text(folder.path / "figures" / f"{found.slug}-object-f1.svg", drawn)
        objects = inline(drawn, f"F1 of objects against IoU on {found.info.name}, one line per method")
    failures = dataset_failures(found, values)
    if failures:
        drawn = draw_failures(found.slug, failures)
        write_text(folder.path / "figures" / f"{found.slug}-failures.svg", drawn)
        failed = inline(drawn, f"Failures by kind on {found.info.name}, one bar per method; the table has the numbers")
    measured = {metric for result in found.results for origin, metric in result.summaries if origin == "fixed"}
    everything = (*found.results, *found.variants)
    return DatasetSection(
        found=found,
        size=size,
        answer=verdict(found.ranked, found.controls, found.gap, found.primary),
        steps=stairs,
        orders=other_orders(found),
        crossings=crossed,
        quality_svg=quality,
        object_f1_svg=objects,
        failures=failures,
        failures_svg=failed,
        classes=class_results(found, values),
        thresholds=method_thresholds(found, folder),
        tuned_metrics=tuple(name for name in dict.fromkeys([primary, "correct"]) if name in measured),
        criteria=method_criteria(everything, folder),
        examples=examples(found, values, folder, budget),
        names={each.key: each.name for each in everything},
    )


def _marks(found: DatasetResults, crossed: Sequence[Crossing]) -> list[Crossing]:
    """Return where curves overtake the best method that learns from image-level labels."""
    labels = [each.result for each in crossed if each.result.annotator == "image-level"]
    best = max(labels, key=lambda result: result.quality(found.primary), default=None)
    return [each for each in crossed if each.result is best and each.reached.status == "reached"]


def _files(folder: StudyFolder, *patterns: str) -> tuple[str, ...]:
    """Return the files beside the page whose paths match."""
    return tuple(
        sorted(path.relative_to(folder.path).as_posix() for each in patterns for path in folder.path.glob(each))
    )


def _quality_description(found: DatasetResults, best: Sequence[MethodResult]) -> str:
    primary = found.primary.name
    described = "; ".join(
        f"from {wording.significant_text(each.hours.value)} h {each.name}, {wording.number_text(each.mean(primary))}"
        for each in best
    )
    return f"{primary} against annotation time on {found.info.name}. Best within the budget: {described}."


def _trainings(completed: Sequence[StudyRun], folder: StudyFolder) -> list[tuple[str, float]]:
    """Return each training once, by the first run that used it, with its seconds."""
    first: dict[str, StudyRun] = {}
    for run in completed:
        first.setdefault(run.training_key, run)
    return [(str(run), folder.training_seconds(run)) for run in first.values()]


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
        "significant": wording.significant_text,
        "seconds": wording.seconds_text,
        "count": wording.count_text,
        "p": wording.p_text,
        "p_value": lambda p: wording.p_text(p).removeprefix("p = ").removeprefix("p "),
        "colour": colour_of,
        "percent": wording.percent_text,
        "listed": wording.listed,
    }
    environment.globals["interval"] = wording.interval_text
    return environment
