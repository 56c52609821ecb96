"""`micraframe study`: datasets x methods x seeds, in one command."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from micraframe.cli.output import (
    AsJson,
    ConfigFile,
    duration,
    print_json,
    print_table,
    progress,
    refuse_other_configuration,
)
from micraframe.errors import BatchError, ConfigError, DataError, counted

if TYPE_CHECKING:
    from micraframe.config import Study
    from micraframe.study.executors import Executor
    from micraframe.study.run import Outcome
    from micraframe.study.status import StudyStatus
    from micraframe.study.tables import Summary

app = typer.Typer(help="Compare methods, each with its training annotation.", no_args_is_help=True)

Output = Annotated[Path, typer.Option(help="Folder for the results; an interrupted study in it is resumed.")]
Folder = Annotated[Path, typer.Argument(help="Folder of a study: the --output of study run.")]


@app.command()
def run(
    file: ConfigFile,
    output: Output,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and run nothing.")] = False,
    executor: Annotated[
        Literal["local", "dask"], typer.Option(help="Run in this process or on Dask workers.")
    ] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Dask: processes on this machine.")] = 2,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask: address of a running scheduler, instead of local workers.")
    ] = None,
    slurm: Annotated[
        Path | None,
        typer.Option(help="Dask: YAML file with the SLURM request (queue, cores, ...), instead of local workers."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an earlier study of the same data: its --output, or one in benchmarks/studies. Only the "
            "new methods are run, and reported together with its results."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="With --against: a method to run, by its name in tables. Default: all new methods and budgets."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a study, or resume an interrupted one; print and write its tables and report.

    When started by torchrun or accelerate launch, the processes, such as one per GPU, share every training.
    """
    from micraframe import config

    chosen = _executor(executor, workers, scheduler, slurm, output, dry_run)
    study = config.load(Path(file), config.Study)
    if against is not None:
        from micraframe.study.committed import choose_methods, missing_seeds, refuse_same_folder

        refuse_same_folder(output, against)
        for name, seeds in missing_seeds(study, against).items():
            listed = ", ".join(map(str, seeds))
            print(
                f"{against}: {name} lacks seed {listed}, which other methods have; to add it, run a copy of the study "
                f"with seeds: [{listed}] and --method",
                file=sys.stderr,
            )
        study = choose_methods(study, against, method or ())
    elif method:
        raise ConfigError("--method needs --against, the folder of an earlier study; add it")
    run_and_print(study, output, as_json, chosen, dry_run, against)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Print which runs of a study are done, failed, running or interrupted, at which step, and the time remaining."""
    from micraframe.study.committed import runs_of
    from micraframe.study.folder import StudyFolder
    from micraframe.study.status import status as status_of

    found = status_of(runs_of(_study_of(folder), StudyFolder(folder)), StudyFolder(folder))
    _print_plan(found, as_json)


@app.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Rebuild the tables and the report, from completed runs and the prices in study.yaml; nothing is run."""
    from micraframe.study.committed import runs_of
    from micraframe.study.folder import StudyFolder
    from micraframe.study.run import write_results

    study, files = _study_of(folder), StudyFolder(folder.absolute())
    runs = runs_of(study, files)
    if not any(map(files.is_done, runs)):
        raise DataError(
            f"{folder}: expected completed runs of its study.yaml, got none; run it first, with this version of "
            "micraframe and on this kind of machine"
        )
    outcome = write_results(study, runs, files, progress())
    _print_outcome(outcome, study, folder, as_json)


def run_and_print(
    study: Study,
    output: Path,
    as_json: bool,
    executor: Executor | None = None,
    dry_run: bool = False,
    against: Path | None = None,
) -> None:
    """Print a study's plan, run it, and print its table.

    Raises:
        ConfigError: If `output` contains another study.yaml or report, or a method cannot learn from its annotation.
        BatchError: If runs failed.
    """
    from micraframe.config import Study
    from micraframe.runtime.memory import reuse_freed_memory
    from micraframe.study.folder import StudyFolder
    from micraframe.study.plan import check_annotation
    from micraframe.study.run import follow_study, plan_of, run_study
    from micraframe.study.status import status as status_of
    from micraframe.training import is_main_process

    if not is_main_process():
        with reuse_freed_memory():
            follow_study(study, output)
        return
    files = StudyFolder(output.absolute())
    refuse_other_configuration(files.config, Study)
    if (output / "report.html").exists() and not files.config.exists():
        raise ConfigError(
            f"{output / 'report.html'}: expected no file, or the report of a study, got one without study.yaml; choose "
            "another --output, or move it"
        )
    found = status_of(plan_of(study, executor, against), files)
    check_annotation(each.run for each in found.runs if each.trains)
    if dry_run:
        _print_plan(found, as_json)
        return
    print(_plan_text(found), file=sys.stderr)
    with reuse_freed_memory():
        outcome = run_study(study, output, progress(), executor, against)
    _print_outcome(outcome, study, output, as_json)
    if outcome.failures:
        reasons = {
            name: trace.strip().splitlines()[-1].removeprefix("micraframe.errors.")
            for name, trace in outcome.failures.items()
        }
        raise BatchError(f"study in {output}", reasons, len(found.runs) - len(reasons), "runs")


def by_method(summary: Iterable[Summary], metrics: Iterable[str]) -> list[dict[str, str]]:
    """Return a record per dataset, annotation and method with fixed thresholds, with a column for each metric.

    Numbers whose interval holds for the one trained model alone have an asterisk.
    """
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in summary:
        if row.thresholds != "fixed":
            continue
        record = rows.setdefault(
            (row.dataset, row.annotator, row.method),
            {"method": row.method, "annotation": row.annotator, "dataset": row.dataset, **dict.fromkeys(metrics, "")},
        )
        if row.metric in record and not math.isnan(row.mean):
            interval = "" if math.isnan(row.low) else f" ({row.low:.3f} to {row.high:.3f})"
            record[row.metric] = f"{row.mean:.3f}{interval}{'*' if row.conditional else ''}"
    return list(rows.values())


def _executor(
    name: str, workers: int, scheduler: str | None, slurm: Path | None, output: Path, dry_run: bool
) -> Executor | None:
    from micraframe import config

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
    from micraframe.study.folder import StudyFolder

    if not (folder / "study.yaml").exists():
        if StudyFolder(folder).numerics() is not None:
            raise DataError(
                f"{folder}: this study was interrupted before its first run, and nothing is done yet; run the same "
                "command again to start it"
            )
        raise DataError(f"{folder}: expected the folder of a study, got one without study.yaml; name its --output")
    return config.load(folder / "study.yaml", config.Study)


def _print_outcome(outcome: Outcome, study: Study, output: Path, as_json: bool) -> None:
    from micraframe.study.plan import check_columns

    if as_json:
        print_json([asdict(row) for row in outcome.summary])
        return
    print_table(by_method(outcome.summary, list(check_columns(study))))
    print("\nMean over trained models, with the 95 % interval over models and groups of test images.")
    if any(row.conditional for row in outcome.summary):
        print("* One trained model: the interval covers test images only, not differences between trainings.")
    tables = ", ".join(str(output / f"{name}.csv") for name in ("summary", "statistics", "costs", "rows"))
    print(f"Tables: {tables}")
    for picture in outcome.pictures:
        print(f"Picture: {picture}")
    print(f"Report: {outcome.report}")


def _print_plan(found: StudyStatus, as_json: bool) -> None:
    records = [
        {
            "run": str(each.run),
            "state": each.state,
            "step": each.step,
            "trains": each.trains,
            "seconds": each.seconds,
            "error": each.error,
        }
        for each in found.runs
    ]
    if as_json:
        print_json(records)
        return
    # Errors are too long for a column.
    print_table([{key: value for key, value in each.items() if key != "error"} for each in records])
    for each in found.runs:
        if each.error:
            print(f"\n{each.run} failed:\n  {each.error}")
    print()
    print(_plan_text(found))


def _plan_text(found: StudyStatus) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    missing = sum(each.trains for each in found.runs)
    lines = [
        f"{counted(len(found.runs), 'run')}: {counts}.",
        f"{counted(found.trainings, 'training')}, {missing} to do.",
    ]
    if found.shared:
        reuse = f"{counted(found.shared, 'run')} reuse{'s' if found.shared == 1 else ''}"
        lines[-1] += f" {reuse} the training of another run, from which only later steps differ."
    if found.counts["done"] < len(found.runs):
        lines.append(
            "The remaining time is known once the first runs are done."
            if math.isnan(found.seconds)
            else f"About {duration(found.seconds)} remaining on one machine, judging by the completed runs."
        )
    return "\n".join(lines)
