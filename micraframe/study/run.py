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
from micraframe.study.committed import (
    ROWS_FILE,
    RUNS_FILE,
    adopt,
    combined,
    compared_runs,
    export,
    forget,
    refuse_same_folder,
    runs_of,
)
from micraframe.study.executors import Executor, Local
from micraframe.study.folder import StudyFolder
from micraframe.study.job import fit, run_job
from micraframe.study.models import write_models
from micraframe.study.pictures import draw
from micraframe.study.plan import Job, StudyRun, build_metrics, check_columns, jobs, method_class, plan, planned_pairs
from micraframe.study.processes import Processes
from micraframe.study.provenance import assemble
from micraframe.study.report import write_report
from micraframe.study.report.planned import record_plan
from micraframe.study.report.results import role_of
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


def plan_of(study: Study, executor: Executor | None = None, against: Path | None = None) -> tuple[StudyRun, ...]:
    """Return the runs that `run_study` would execute unless they are done, after the same checks; writes nothing."""
    study = config.resolve(study)
    computed_with = numerics(study.device, study.precision, executor.threads if executor else None)
    return plan(study, computed_with) if against is None else compared_runs(study, against, computed_with)[-1]


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
        against: The folder of an earlier study, whose results stand beside those of this one; the study then has only
            the new methods.

    Raises:
        ConfigError: As `plan` and, with `against`, as `committed.adopt`.
    """
    if against is not None:
        refuse_same_folder(output, against)
    progress = progress or Progress()
    study = config.resolve(study)
    folder = StudyFolder(output.absolute())
    processes = Processes(study.device)
    executor = executor or Local(processes)
    folder.write_numerics(numerics(study.device, study.precision, executor.threads))
    has_results = any(folder.path.glob("runs/*/done.json"))
    if against is None:
        forget(folder)
    else:
        adopt(study, folder, against)
    runs = runs_of(study, folder)
    write_text(folder.config, config.to_yaml(study))
    if not has_results:
        record_plan(study, runs, folder)
    open_runs = {job[0].training_key: sum(not folder.is_done(run) for run in job) for job in jobs(runs)}
    missing = [job for job in jobs(runs) if open_runs[job[0].training_key]]
    done = len(runs) - sum(open_runs.values())
    progress.advance("study", done, len(runs), _remaining(runs, folder, missing))
    work = functools.partial(run_job, study=study, folder=folder)
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
    """Write tables, pictures, report and the record of the completed runs; annotates and trains nothing."""
    complete = [run for run in runs if folder.is_done(run)]  # once: it hashes all results
    hidden = {run.key for run in complete if _shows_nothing(run, folder)}
    runs, done = ([run for run in some if run.key not in hidden] for some in (runs, complete))
    failures = {str(run): error for run in runs if (error := folder.error(run))}
    progress.advance("tables", 0, 1)
    study, columns = combined(study, runs, folder)
    rows = pl.concat([ROWS.to_frame(), *(folder.rows(run) for run in done)])
    write_csv(folder.table("rows"), rows)
    contacts = {
        run.info.name: name
        for run in done
        for name, role in zip(run.info.classes, run.info.roles, strict=True)
        if role == "contact"
    }
    values = Values(rows, build_metrics(study), {run.names: _model_of(run) for run in done}, columns, contacts)
    ranked = {job[0].names[:3] for job in jobs(done) if role_of(job[0]) == "method"}
    tables = StudyTables(
        values,
        tuple(summarise(values)),
        tuple(differences(values, list(check_columns(study)), planned_pairs(study, runs), study.margin, ranked)),
        tuple(cost for run in done for cost in costs(run, study, folder)),
    )
    write_csv(folder.table("summary"), table_of(tables.summaries, Summary))
    write_csv(folder.table("statistics"), table_of(tables.differences, Difference))
    write_csv(folder.table("costs"), table_of(tables.costs, CostRow))
    if criteria := [table for run in done if len(table := folder.criteria(run))]:
        write_csv(folder.table("criteria"), pl.concat(criteria))
    else:
        folder.table("criteria").unlink(missing_ok=True)
    provenance = assemble(runs, folder, failures)
    write_json(folder.path / "provenance.json", provenance)
    pictures = draw(done, study, folder)
    write_models(runs, study, folder, progress)
    report = write_report(study, runs, folder, tables, provenance)
    if complete:
        export(study, complete, rows, folder)
    else:
        for name in (ROWS_FILE, RUNS_FILE):
            (folder.path / name).unlink(missing_ok=True)
    progress.advance("tables", 1, 1)
    return Outcome(tables.summaries, failures, pictures, report)


def _shows_nothing(run: StudyRun, folder: StudyFolder) -> bool:
    """Return whether a completed run is the ceiling of an annotation that carries no location."""
    return run.kind == "ceiling" and folder.rows(run).is_empty()


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
    return CostRow(*run.names, thresholds, decisions, float(total.seconds), float(total.low), float(total.high))


def _remaining(runs: Sequence[StudyRun], folder: StudyFolder, missing: Iterable[Job]) -> dict[str, float]:
    """Return how long the missing jobs will take, for the progress callback; empty until a run has completed."""
    names = {str(run) for job in missing for run in job}
    seconds = sum(each.seconds for each in status(runs, folder).runs if str(each.run) in names)
    return {} if not names or math.isnan(seconds) else {"minutes remaining on one machine": seconds / 60}
