"""Executes a study job by job, and writes its tables. What is done is on disk, and is not done again."""

from __future__ import annotations

import functools
import math
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from micraframe import config
from micraframe.config import Study
from micraframe.pricing import Cost, price
from micraframe.runtime.files import write_json, write_text
from micraframe.runtime.numerics import numerics
from micraframe.study.committed import adopt, combined, forget, runs_of
from micraframe.study.executors import Executor, Local
from micraframe.study.folder import StudyFolder
from micraframe.study.job import fit, run_job
from micraframe.study.pictures import draw
from micraframe.study.plan import Job, StudyRun, check_columns, jobs, method_class, plan, planned_pairs
from micraframe.study.processes import Processes
from micraframe.study.provenance import assemble
from micraframe.study.report import write_report
from micraframe.study.status import status
from micraframe.study.tables import (
    ROWS,
    CostRow,
    Difference,
    StudyTables,
    Summary,
    Values,
    differences,
    summarise,
    table_of,
    write_csv,
)
from micraframe.types import Progress, Work


@dataclass(frozen=True)
class Outcome:
    """The outcome of a study.

    Attributes:
        summary: The table.
        failures: Traceback of each failed run, by the run's name.
        pictures: The pictures that were drawn.
        report: The report's page.
    """

    summary: tuple[Summary, ...]
    failures: dict[str, str]
    pictures: tuple[Path, ...]
    report: Path


def plan_of(
    study: Study, folder: StudyFolder, executor: Executor | None = None, against: Path | None = None
) -> tuple[StudyRun, ...]:
    """Return the runs that `run_study` would find in a folder, and those it would execute; nothing is written."""
    study = config.resolve(study)
    if against is not None:
        study = study.model_copy(update={"comparisons": None, "reference": None, "margin": None})
    return plan(study, numerics(study.device, study.precision, executor.threads if executor else None))


def run_study(
    study: Study,
    output: Path,
    progress: Progress | None = None,
    executor: Executor | None = None,
    against: Path | None = None,
) -> Outcome:
    """Execute every run that is not done yet, and write tables, pictures and report.

    A run that fails leaves its traceback in `runs/KEY/error.txt`, and the others go on. Trained models are kept in
    `models/` by the hash of what determines them: runs that differ only after training share one.

    Args:
        study: The study.
        output: The folder to write to; an earlier run of the same or a similar study there is continued.
        progress: Progress callback.
        executor: Where jobs are executed; None: in this process.
        against: The folder of a committed study, whose results stand beside those of this one; the study then has only
            the new methods.

    Raises:
        ConfigError: As `plan` and, with `against`, as `committed.adopt`.
    """
    progress = progress or Progress()
    study = config.resolve(study)
    folder = StudyFolder(output.absolute())
    processes = Processes(study.device)
    executor = executor or Local(processes)
    folder.write_numerics(numerics(study.device, study.precision, executor.threads))
    if against is None:
        forget(folder)
    else:
        adopt(study, folder, against)
    runs = runs_of(study, folder)
    write_text(folder.config, config.to_yaml(study))
    open_runs = {job[0].training_key: sum(not folder.is_done(run) for run in job) for job in jobs(runs)}
    missing = [job for job in jobs(runs) if open_runs[job[0].training_key]]
    done = sum(folder.is_done(run) for run in runs)
    progress.advance("study", done, len(runs), _remaining(runs, folder, missing))
    work = functools.partial(execute_job, study=study, folder=folder)
    try:
        for job, failures in executor.run(missing, work, progress):
            for run in job:
                if str(run) in failures and not folder.is_done(run):
                    folder.write_error(run, failures[str(run)])
            done += open_runs[job[0].training_key]
            missing = [other for other in missing if other is not job]
            progress.advance("study", done, len(runs), _remaining(runs, folder, missing))
    finally:
        processes.announce(None)
    return write_results(study, runs, folder, progress)


def follow_study(study: Study, output: Path) -> None:
    """Take part in the trainings of a study that another process of the same `torchrun` executes with `run_study`.

    Args:
        study: The study.
        output: The folder that the other process writes to.
    """
    study = config.resolve(study)
    folder, processes = StudyFolder(output.absolute()), Processes(study.device)
    while (key := processes.await_training()) is not None:
        # Not before: the first process writes what the keys are made with.
        run = next(run for run in runs_of(study, folder) if run.training_key == key)
        try:
            fit(run, study, folder, Progress())
        except Exception:
            # The first process records the failure of the run. If this one fails alone, only it can say why.
            traceback.print_exc()


def write_results(study: Study, runs: Sequence[StudyRun], folder: StudyFolder, progress: Progress) -> Outcome:
    """Write tables, pictures and report of the completed runs; annotates and trains nothing."""
    runs = [run for run in runs if not _shows_nothing(run, folder)]
    done = [run for run in runs if folder.is_done(run)]
    failures = {str(run): error for run in runs if (error := folder.error(run))}
    progress.advance("tables", 0, 1)
    study, metrics = combined(study, runs, folder)
    rows = pl.concat([ROWS.to_frame(), *(folder.rows(run) for run in done)])
    write_csv(folder.table("rows"), rows)
    values = Values(rows, metrics, {_key(run): _model_of(run) for run in done})
    tables = StudyTables(
        values,
        tuple(summarise(values)),
        tuple(differences(values, list(check_columns(study)), planned_pairs(study, runs), study.margin)),
        tuple(cost for run in done for cost in costs(run, study, folder)),
    )
    write_csv(folder.table("summary"), table_of(tables.summaries, Summary))
    write_csv(folder.table("statistics"), table_of(tables.differences, Difference))
    write_csv(folder.table("costs"), table_of(tables.costs, CostRow))
    provenance = assemble(runs, folder, failures)
    write_json(folder.path / "provenance.json", provenance)
    pictures = draw(done, study, folder)
    report = write_report(study, runs, folder, tables, provenance)
    progress.advance("tables", 1, 1)
    return Outcome(tables.summaries, failures, pictures, report)


def _shows_nothing(run: StudyRun, folder: StudyFolder) -> bool:
    """Return whether this is the ceiling of an annotation that shows no place."""
    return run.kind == "ceiling" and folder.is_done(run) and folder.rows(run).is_empty()


def _key(run: StudyRun) -> tuple[str, str, str, int]:
    return run.info.name, run.annotator, run.method, run.seed


def _model_of(run: StudyRun) -> str:
    """Return the identity of a run's trained model; "" where nothing is random."""
    fixed = run.kind == "ceiling" or method_class(run.compared.method).deterministic
    return "" if fixed else run.training_key


def costs(run: StudyRun, study: Study, folder: StudyFolder) -> list[CostRow]:
    """Return the cost of a completed run's annotation at the study's prices."""
    training, tuning = folder.training_work(run), folder.tuning_work(run)
    found = [_cost("fixed", training, run, study)]
    if "validation" in folder.thresholds(run):
        found.append(_cost("validation", (*training, *tuning), run, study))
    return found


def _cost(thresholds: str, work: Sequence[Work], run: StudyRun, study: Study) -> CostRow:
    total = sum((price(each, study.prices) for each in work), Cost())
    decisions = sum(each.decisions for each in work)
    names = (run.info.name, run.annotator, run.method, run.seed, thresholds)
    return CostRow(*names, decisions, float(total.seconds), float(total.low), float(total.high))


def _remaining(runs: Sequence[StudyRun], folder: StudyFolder, missing: Iterable[Job]) -> dict[str, float]:
    """Return how long the missing jobs will take, as a number worth showing; none while nothing tells."""
    names = {str(run) for job in missing for run in job}
    seconds = sum(each.seconds for each in status(runs, folder).runs if str(each.run) in names)
    return {} if not names or math.isnan(seconds) else {"minutes remaining on one machine": seconds / 60}


def execute_job(
    job: Job, progress: Progress, processes: Processes | None = None, *, study: Study, folder: StudyFolder
) -> dict[str, str]:
    """Execute a job of a study, as `run_job`; with study and folder given, it is an executor's `JobFunction`."""
    return run_job(job, study, folder, progress, processes)
