"""`micraframe study`: datasets x contenders x seeds, in one command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from micraframe.cli.output import AsJson, ConfigFile, print_records, progress

if TYPE_CHECKING:
    from micraframe.config import Study
    from micraframe.study.tables import Summary

app = typer.Typer(help="Compare methods, each with the annotation it is given.", no_args_is_help=True)

Output = Annotated[Path, typer.Option(help="The folder for results; an interrupted run there is continued.")]


@app.callback()
def _group() -> None:
    """Compare methods, each with the annotation it is given."""


@app.command()
def run(file: ConfigFile, output: Output, as_json: AsJson = False) -> None:
    """Run every cell of a study that is not done yet; print and write the table."""
    from micraframe import config

    run_and_print(config.load(Path(file), config.Study), output, as_json)


def run_and_print(study: Study, output: Path, as_json: bool) -> None:
    """Run a study, print its table, and raise `BatchError` where cells failed."""
    from micraframe.errors import BatchError
    from micraframe.study import run_study

    outcome = run_study(study, output, progress())
    print_records([asdict(row) for row in outcome.summary] if as_json else by_method(outcome.summary), as_json)
    if not as_json:
        print("\nMeans over test images, and half the width of their 95 % interval.")
        print(f"Tables: {output / 'summary.csv'}, {output / 'rows.csv'}, {output / 'costs.csv'}")
        for picture in outcome.pictures:
            print(f"Picture: {picture}")
    if outcome.failures:
        cells = len({(row.dataset, row.annotator, row.method) for row in outcome.summary})
        reasons = {
            name: trace.strip().splitlines()[-1].removeprefix("micraframe.errors.")
            for name, trace in outcome.failures.items()
        }
        raise BatchError(f"study in {output}", reasons, cells)


def by_method(summary: Iterable[Summary]) -> list[dict[str, str]]:
    """Return a record per dataset, annotator and method, with a column per metric."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in summary:
        record = rows.setdefault(
            (row.dataset, row.annotator, row.method),
            {"method": row.method, "annotator": row.annotator, "dataset": row.dataset},
        )
        known = row.n > 0
        record[row.metric] = f"{row.mean:.3f} ±{(row.high - row.low) / 2:.3f}" if known else ""
    metrics = dict.fromkeys(metric for record in rows.values() for metric in record)
    return [{metric: record.get(metric, "") for metric in metrics} for record in rows.values()]
