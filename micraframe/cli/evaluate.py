"""`micraframe evaluate`: predictions against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micraframe.cli.output import AsJson, print_measures


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="The folder that predict wrote.", show_default=False)],
    truth: Annotated[
        Path,
        typer.Argument(
            help="A CSV of labels (image, and 0 or 1 per class), or a folder of masks named like the images "
            "(with several classes, in a folder for each).",
            show_default=False,
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="What to measure, as NAME or NAME:KEY=VALUE; repeat it for more. By default classification, overlap "
            "and, if there are predicted points, detection.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Also write the statistics of every image and class to this CSV and, if there are predicted points, "
            "their precision-recall curves to precision_recall.csv in the same folder.",
            show_default=False,
        ),
    ] = None,
    distance: Annotated[
        float,
        typer.Option(
            min=0, help="Largest distance, in pixels, of a predicted point from the centre of its true object."
        ),
    ] = 10.0,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="True masks contain numbered objects; otherwise each connected component is one."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure predictions against the truth: presence of classes, masks and points.

    With several classes, the last row of a metric averages over them. Images that could not be evaluated are listed
    at the end, with the reason. `micraframe show metric NAME` defines the numbers.
    """
    from micraframe import registry
    from micraframe.batch import evaluate_files
    from micraframe.batch.evaluate import CURVES, CurvePoint, ImageStatistic, curve_points
    from micraframe.config import parse_choice
    from micraframe.errors import BatchError, ConfigError
    from micraframe.runtime.tables import write_csv

    if output is not None and output.name == CURVES:
        raise ConfigError(f"--output {output}: the curves are written to a file of this name; choose another name")
    choices = [parse_choice(text) for text in metric or ()]
    found = evaluate_files(predictions, truth, choices, distance, instances)
    components = {str(row["component"]) for row in found.records}
    summaries = {name: registry.catalog().find("metric", name).component.summary for name in components}
    print_measures(found.records, "component", as_json, summaries)
    if output is not None:
        write_csv(output, found.measured, ImageStatistic)
        if found.curves:
            write_csv(output.with_name(CURVES), curve_points(found.curves), CurvePoint)
    if found.failures:
        raise BatchError(f"evaluate {predictions}", found.failures, found.done)
