"""`micraframe study`: datasets x contenders x seeds, in one command."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from micraframe.cli.output import AsJson, ConfigFile, print_records, progress

if TYPE_CHECKING:
    from micraframe.config import Study
    from micraframe.study.executors import Executor
    from micraframe.study.run import Outcome
    from micraframe.study.status import StudyStatus
    from micraframe.study.tables import Summary

app = typer.Typer(help="Compare methods, each with the annotation it is given.", no_args_is_help=True)

Output = Annotated[Path, typer.Option(help="The folder for results; an interrupted run there is continued.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a study: what --output named.", show_default=False)]


@app.callback()
def _group() -> None:
    """Compare methods, each with the annotation it is given."""


@app.command()
def run(
    file: ConfigFile,
    output: Output,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, and run nothing.")] = False,
    executor: Annotated[Literal["local", "dask"], typer.Option(help="Run here, or on Dask workers.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Dask: processes on this machine.")] = 2,
    scheduler: Annotated[str | None, typer.Option(help="Dask: address of a running scheduler instead.")] = None,
    slurm: Annotated[
        Path | None, typer.Option(help="Dask: a YAML file of what SLURM is asked for instead (queue, cores, ...).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run every cell of a study that is not done yet; print and write the table."""
    from micraframe import config

    chosen = _executor(executor, workers, scheduler, slurm, output, dry_run)
    run_and_print(config.load(Path(file), config.Study), output, as_json, chosen, dry_run)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Print how far a study has come, what failed, and how long the rest will take."""
    from micraframe.study import StudyFolder, plan
    from micraframe.study import status as status_of

    found = status_of(plan(_study_of(folder)), StudyFolder(folder))
    if as_json:
        print_records(_cell_records(found), as_json=True)
        return
    _print_plan(found)


@app.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Write tables, pictures and report of a study anew, of the cells that are done; nothing is run."""
    from micraframe.study import StudyFolder, plan, write_results

    study = _study_of(folder)
    outcome = write_results(study, plan(study), StudyFolder(folder.absolute()), progress())
    _print_outcome(outcome, folder, as_json)


def run_and_print(
    study: Study, output: Path, as_json: bool, executor: Executor | None = None, dry_run: bool = False
) -> None:
    """Print a study's plan, run it, print its table, and raise `BatchError` where cells failed."""
    from micraframe.errors import BatchError
    from micraframe.study import StudyFolder, plan, run_study
    from micraframe.study import status as status_of

    found = status_of(plan(study), StudyFolder(output))
    if dry_run:
        if as_json:
            print_records(_cell_records(found), as_json=True)
        else:
            _print_plan(found)
        return
    print(_plan_text(found), file=sys.stderr)
    outcome = run_study(study, output, progress(), executor)
    _print_outcome(outcome, output, as_json)
    if outcome.failures:
        cells = len({(row.dataset, row.annotator, row.method) for row in outcome.summary})
        reasons = {
            name: trace.strip().splitlines()[-1].removeprefix("micraframe.errors.")
            for name, trace in outcome.failures.items()
        }
        raise BatchError(f"study in {output}", reasons, cells)


def by_method(summary: Iterable[Summary]) -> list[dict[str, str]]:
    """Return a record per dataset, annotator and method with its fixed thresholds, with a column per metric."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in summary:
        # A curve's points belong in the report, not in a table.
        if row.thresholds != "fixed" or "@" in row.metric:
            continue
        record = rows.setdefault(
            (row.dataset, row.annotator, row.method),
            {"method": row.method, "annotator": row.annotator, "dataset": row.dataset},
        )
        known = row.n > 0
        record[row.metric] = f"{row.mean:.3f} ±{(row.high - row.low) / 2:.3f}" if known else ""
    metrics = dict.fromkeys(metric for record in rows.values() for metric in record)
    return [{metric: record.get(metric, "") for metric in metrics} for record in rows.values()]


def _executor(
    name: str, workers: int, scheduler: str | None, slurm: Path | None, output: Path, dry_run: bool
) -> Executor | None:
    from micraframe import config
    from micraframe.errors import ConfigError

    if name == "local":
        if scheduler or slurm:
            raise ConfigError("--scheduler and --slurm are for --executor dask")
        return None
    if scheduler and slurm:
        raise ConfigError("--scheduler and --slurm both say where the workers are: give one of them")
    from micraframe.study.executors import Dask, Slurm, job_script

    asked = config.read(slurm, Slurm) if slurm else None
    logs = output / "slurm"
    if asked and dry_run:
        # Beside the plan, which may be wanted as JSON.
        print(job_script(asked, logs), file=sys.stderr)
    return Dask(workers, scheduler, asked, logs)


def _study_of(folder: Path) -> Study:
    from micraframe import config
    from micraframe.errors import DataError

    if not (folder / "study.yaml").exists():
        raise DataError(f"{folder} is not the folder of a study: it has no study.yaml")
    return config.load(folder / "study.yaml", config.Study)


def _print_outcome(outcome: Outcome, output: Path, as_json: bool) -> None:
    print_records([asdict(row) for row in outcome.summary] if as_json else by_method(outcome.summary), as_json)
    if as_json:
        return
    print("\nMeans over test images, and half the width of their 95 % interval.")
    tables = ", ".join(str(output / f"{name}.csv") for name in ("summary", "statistics", "costs", "rows"))
    print(f"Tables: {tables}")
    for picture in outcome.pictures:
        print(f"Picture: {picture}")
    print(f"Report: {outcome.report}")


def _print_plan(found: StudyStatus) -> None:
    records = _cell_records(found)
    # Beside the other columns, there is no room for an error.
    print_records([{key: value for key, value in each.items() if key != "error"} for each in records], as_json=False)
    for each in found.cells:
        if each.error:
            print(f"\n{each.cell} has failed:\n  {each.error}")
    print()
    print(_plan_text(found))


def _cell_records(found: StudyStatus) -> list[dict[str, object]]:
    return [
        {
            "cell": str(each.cell),
            "state": each.state,
            "trains": each.trains,
            "seconds": each.seconds,
            "error": each.error,
        }
        for each in found.cells
    ]


def _plan_text(found: StudyStatus) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    missing = sum(each.trains for each in found.cells)
    lines = [
        f"{len(found.cells)} cells: {counts}.",
        f"{found.trainings} trainings, {missing} of them to be done; {found.saved} saved, for cells that differ only "
        "after training share one.",
    ]
    seconds = found.seconds
    if found.counts["done"] < len(found.cells):
        lines.append(
            "The time it takes is known once the first cells are done."
            if math.isnan(seconds)
            else f"About {_duration(seconds)} to go on one machine, judged by the cells that are done."
        )
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
