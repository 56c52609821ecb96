"""`micraframe study`: datasets x methods x seeds, in one command."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from micraframe.cli.output import AsJson, ConfigFile, duration, print_records, progress

if TYPE_CHECKING:
    from micraframe.config import Study
    from micraframe.study.executors import Executor
    from micraframe.study.run import Outcome
    from micraframe.study.status import StudyStatus
    from micraframe.study.tables import Summary

app = typer.Typer(help="Compare methods, each with its training annotation.", no_args_is_help=True)

Output = Annotated[Path, typer.Option(help="Folder for the results; an interrupted study there is continued.")]
Folder = Annotated[Path, typer.Argument(help="Folder of a study, as given to --output.", show_default=False)]


@app.callback()
def _group() -> None:
    """Compare methods, each with its training annotation."""


@app.command()
def run(
    file: ConfigFile,
    output: Output,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and run nothing.")] = False,
    executor: Annotated[
        Literal["local", "dask"], typer.Option(help="Run in this process or on Dask workers.")
    ] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Dask: processes on this machine.")] = 2,
    scheduler: Annotated[str | None, typer.Option(help="Dask: address of a running scheduler instead.")] = None,
    slurm: Annotated[
        Path | None, typer.Option(help="Dask: YAML file of what to request from SLURM instead (queue, cores, ...).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a study, or what is left of it; print and write its tables and report.

    Started by torchrun or accelerate launch, the processes share every training, such as one per GPU.
    """
    from micraframe import config

    chosen = _executor(executor, workers, scheduler, slurm, output, dry_run)
    run_and_print(config.load(Path(file), config.Study), output, as_json, chosen, dry_run)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Print which runs of a study are done, which failed, and how long the rest will take."""
    from micraframe.study.folder import StudyFolder
    from micraframe.study.plan import plan
    from micraframe.study.status import status as status_of

    found = status_of(plan(_study_of(folder)), StudyFolder(folder))
    if as_json:
        print_records(_run_records(found), as_json=True)
        return
    _print_plan(found)


@app.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Write tables, pictures and report again, from the completed runs and the prices in study.yaml; run nothing."""
    from micraframe.study.folder import StudyFolder
    from micraframe.study.plan import plan
    from micraframe.study.run import write_results

    study = _study_of(folder)
    outcome = write_results(study, plan(study), StudyFolder(folder.absolute()), progress())
    _print_outcome(outcome, study, folder, as_json)


def run_and_print(
    study: Study, output: Path, as_json: bool, executor: Executor | None = None, dry_run: bool = False
) -> None:
    """Print a study's plan, run it, print its table, and raise `BatchError` if runs failed."""
    from micraframe.errors import BatchError
    from micraframe.runtime.memory import reuse_freed_memory
    from micraframe.study.folder import StudyFolder
    from micraframe.study.plan import plan
    from micraframe.study.run import follow_study, run_study
    from micraframe.study.status import status as status_of
    from micraframe.training import is_main_process

    if not is_main_process():
        with reuse_freed_memory():
            follow_study(study, output)
        return
    found = status_of(plan(study), StudyFolder(output))
    if dry_run:
        if as_json:
            print_records(_run_records(found), as_json=True)
        else:
            _print_plan(found)
        return
    print(_plan_text(found), file=sys.stderr)
    with reuse_freed_memory():
        outcome = run_study(study, output, progress(), executor)
    _print_outcome(outcome, study, output, as_json)
    if outcome.failures:
        reasons = {
            name: trace.strip().splitlines()[-1].removeprefix("micraframe.errors.")
            for name, trace in outcome.failures.items()
        }
        raise BatchError(f"study in {output}", reasons, len(found.runs) - len(reasons))


def by_method(summary: Iterable[Summary], metrics: Iterable[str]) -> list[dict[str, str]]:
    """Return a record per dataset, annotation and method with fixed thresholds, with a column for each metric."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in summary:
        if row.thresholds != "fixed":
            continue
        record = rows.setdefault(
            (row.dataset, row.annotator, row.method),
            {"method": row.method, "annotation": row.annotator, "dataset": row.dataset, **dict.fromkeys(metrics, "")},
        )
        if row.metric in record and not math.isnan(row.mean):
            record[row.metric] = f"{row.mean:.3f} ±{(row.high - row.low) / 2:.3f}"
    return list(rows.values())


def _executor(
    name: str, workers: int, scheduler: str | None, slurm: Path | None, output: Path, dry_run: bool
) -> Executor | None:
    from micraframe import config
    from micraframe.errors import ConfigError

    if name == "local":
        if scheduler or slurm:
            raise ConfigError("--scheduler and --slurm need --executor dask; add it")
        return None
    if scheduler and slurm:
        raise ConfigError("--scheduler and --slurm are both given; give one of them")
    from micraframe.study.executors import Dask, Slurm, job_script

    request = config.read(slurm, Slurm) if slurm else None
    logs = output / "slurm"
    if request and dry_run:
        # Not on standard output, which may be JSON.
        print(job_script(request, logs), file=sys.stderr)
    return Dask(workers, scheduler, request, logs)


def _study_of(folder: Path) -> Study:
    from micraframe import config
    from micraframe.errors import DataError

    if not (folder / "study.yaml").exists():
        raise DataError(f"{folder}: expected the folder of a study, got one without study.yaml; name its --output")
    return config.load(folder / "study.yaml", config.Study)


def _print_outcome(outcome: Outcome, study: Study, output: Path, as_json: bool) -> None:
    from micraframe.study.plan import check_columns

    if as_json:
        print_records([asdict(row) for row in outcome.summary], as_json=True)
        return
    print_records(by_method(outcome.summary, list(check_columns(study))), as_json=False)
    print("\nOver the test images, ± half the width of the 95 % interval.")
    tables = ", ".join(str(output / f"{name}.csv") for name in ("summary", "statistics", "costs", "rows"))
    print(f"Tables: {tables}")
    for picture in outcome.pictures:
        print(f"Picture: {picture}")
    print(f"Report: {outcome.report}")


def _print_plan(found: StudyStatus) -> None:
    records = _run_records(found)
    # Beside the other columns, there is no room for an error.
    print_records([{key: value for key, value in each.items() if key != "error"} for each in records], as_json=False)
    for each in found.runs:
        if each.error:
            print(f"\n{each.run} failed:\n  {each.error}")
    print()
    print(_plan_text(found))


def _run_records(found: StudyStatus) -> list[dict[str, object]]:
    return [
        {
            "run": str(each.run),
            "state": each.state,
            "trains": each.trains,
            "seconds": each.seconds,
            "error": each.error,
        }
        for each in found.runs
    ]


def _plan_text(found: StudyStatus) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    missing = sum(each.trains for each in found.runs)
    lines = [f"{_count(len(found.runs), 'run')}: {counts}.", f"{_count(found.trainings, 'training')}, {missing} to do."]
    if found.shared:
        lines[-1] += f" {_count(found.shared, 'run')} reuse another run's training: they differ only after it."
    if found.counts["done"] < len(found.runs):
        lines.append(
            "The remaining time is known once the first runs are done."
            if math.isnan(found.seconds)
            else f"About {duration(found.seconds)} remaining on one machine, judging by the completed runs."
        )
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
