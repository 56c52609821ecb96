"""Runs a study job by job, and writes its tables. What is done is on the disk, and is not done again."""

from __future__ import annotations

import functools
import math
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from micraframe import config
from micraframe.config import Study
from micraframe.errors import ConfigError
from micraframe.files import write_json, write_text
from micraframe.modelfile import provenance as provenance_of
from micraframe.study.bills import annotation_cost, tuning_cost
from micraframe.study.cell import run_job
from micraframe.study.executors import Executor, Local
from micraframe.study.folder import StudyFolder
from micraframe.study.pictures import draw
from micraframe.study.plan import Cell, Job, jobs, plan
from micraframe.study.report import write_report
from micraframe.study.status import status
from micraframe.study.tables import Difference, Row, Summary, Values, differences, summarise, write_csv
from micraframe.types import Progress


@dataclass(frozen=True)
class CostRow:
    """What the annotation of one cell costs: of its training and validation samples together.

    With thresholds tuned on `validation` images, the labels that these were tuned on as well.
    """

    dataset: str
    annotator: str
    method: str
    seed: int
    thresholds: str
    decisions: int
    seconds: float
    seconds_low: float
    seconds_high: float


@dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes:
        summary: The table.
        failures: Traceback of each cell that failed, by the cell's name.
        pictures: The pictures that were drawn.
        report: The page with all of it.
    """

    summary: tuple[Summary, ...]
    failures: dict[str, str]
    pictures: tuple[Path, ...]
    report: Path


def run_study(
    study: Study, output: Path, progress: Progress | None = None, executor: Executor | None = None
) -> Outcome:
    """Run every cell that is not done yet, and write the tables, pictures and report.

    A cell that fails leaves its traceback in `cells/KEY/error.txt`, and the rest goes on. Trained models are kept in
    `models/`, by the hash of what determines them: cells that differ only in what comes after training share one.

    Args:
        study: What to run.
        output: The folder to write to; an earlier run of the same or a similar study there is continued.
        progress: Whom to tell.
        executor: Where to run the jobs; None for this process.
    """
    progress = progress or Progress()
    study = config.resolve(study)
    cells = plan(study)
    folder = StudyFolder(output.absolute())
    write_text(folder.config, config.to_yaml(study))
    open_cells = {job[0].training_key: sum(not folder.is_done(cell) for cell in job) for job in jobs(cells)}
    missing = [job for job in jobs(cells) if open_cells[job[0].training_key]]
    done = sum(folder.is_done(cell) for cell in cells)
    progress.advance("study", done, len(cells), _to_go(cells, folder, missing))
    work = functools.partial(_work, study=study, folder=folder)
    for job, failures in (executor or Local()).run(missing, work, progress):
        for cell in job:
            if str(cell) in failures and not folder.is_done(cell):
                folder.write_error(cell, failures[str(cell)])
        done += open_cells[job[0].training_key]
        missing = [other for other in missing if other is not job]
        progress.advance("study", done, len(cells), _to_go(cells, folder, missing))
    return write_results(study, cells, folder, progress)


def write_results(study: Study, cells: Sequence[Cell], folder: StudyFolder, progress: Progress) -> Outcome:
    """Write tables, pictures and report of the cells that are done."""
    done = [cell for cell in cells if folder.is_done(cell)]
    failures = {str(cell): error for cell in cells if (error := folder.error(cell))}
    progress.advance("tables", 0, 1)
    write_csv(folder.table("rows"), _all_rows(done, folder), Row)
    values = Values(_all_rows(done, folder))
    measured = dict.fromkeys(metric for group in values.groups() for metric in values.metrics(group))
    if measured and study.primary not in measured:
        raise ConfigError(
            f"primary: no metric of this study measures {study.primary!r}; there are: {', '.join(measured)}"
        )
    summary = tuple(summarise(values))
    wanted = [name for name in dict.fromkeys([study.primary, *study.compared]) if name in measured]
    write_csv(folder.table("summary"), summary, Summary)
    tests = differences(values, wanted)
    write_csv(folder.table("statistics"), tests, Difference)
    bills = costs(done, study, folder)
    write_csv(folder.table("costs"), bills, CostRow)
    provenance = _provenance(cells, failures)
    write_json(folder.path / "provenance.json", provenance)
    pictures = draw(done, study, folder)
    report = write_report(study, cells, folder, values, summary, tests, bills, provenance)
    progress.advance("tables", 1, 1)
    return Outcome(summary, failures, pictures, report)


def costs(cells: Sequence[Cell], study: Study, folder: StudyFolder) -> list[CostRow]:
    """Return what the annotation of cells that are done costs, at the study's prices."""
    found = []
    for cell in cells:
        named = (cell.info.name, cell.annotator, cell.method, cell.seed)
        cost = annotation_cost(cell, folder)
        found.append(CostRow(*named, "fixed", **vars(cost)))
        if "validation" in folder.thresholds(cell):
            found.append(CostRow(*named, "validation", **vars(cost + tuning_cost(cell, study, folder))))
    return found


def _to_go(cells: Sequence[Cell], folder: StudyFolder, missing: Iterable[Job]) -> dict[str, float]:
    """Return how long the missing jobs will take, as a number worth showing; none while nothing is known by which."""
    names = {str(cell) for job in missing for cell in job}
    seconds = sum(each.seconds for each in status(cells, folder).cells if str(each.cell) in names)
    return {} if not names or math.isnan(seconds) else {"minutes to go on one machine": seconds / 60}


def _work(job: tuple[Cell, ...], progress: Progress, study: Study, folder: StudyFolder) -> dict[str, str]:
    return run_job(job, study, folder, progress)


def _all_rows(cells: Sequence[Cell], folder: StudyFolder) -> Iterator[Row]:
    for cell in cells:
        yield from folder.rows(cell)


def _origin(cell: Cell) -> dict[str, str]:
    told = provenance_of(cell.seed, cell.info.fingerprint)
    del told["seed"]  # the study has several, which are named beside
    return told


def _provenance(cells: Sequence[Cell], failures: dict[str, str]) -> dict[str, object]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
            "python": platform.python_version(),
        },
        "datasets": {
            cell.info.name: _origin(cell) | {"licence": cell.info.licence, "citation": cell.info.citation}
            for cell in cells
        },
        "seeds": sorted({cell.seed for cell in cells}),
        "cells": {str(cell): cell.key for cell in cells},
        "failures": sorted(failures),
    }
