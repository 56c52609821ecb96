"""`micraframe evaluate`: predictions against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micraframe import registry
from micraframe.cli.output import AsJson, print_measures
from micraframe.errors import BatchError, ConfigError


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="The folder that predict wrote.")],
    truth: Annotated[
        Path,
        typer.Argument(
            help="A folder of masks named like the images (with several classes, in a folder for each), or a CSV: of "
            "labels (image, and 0 or 1 per class), boxes (image, class, xmin, ymin, xmax, ymax) or points (image, "
            "class, x, y)."
        ),
    ],
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="What to measure: NAME,NAME, or NAME:KEY=VALUE; repeat it for more. Default: what the truth allows: "
            "classification; with masks, also overlap; with numbered objects, also counts and objects; with boxes or "
            "points, also counts and detection."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Also write the statistics of every image and class to this new CSV and, if positions are measured, "
            "their precision-recall curves beside it, to NAME-precision_recall.csv."
        ),
    ] = None,
    distance: Annotated[
        float,
        typer.Option(
            min=0,
            help="Largest distance, in pixels, of a predicted point from the centre of its true object; choose about "
            "the radius of an object.",
        ),
    ] = 10.0,
    instances: Annotated[
        bool | None,
        typer.Option(
            "--instances/--binary",
            help="True masks contain numbered objects; or all values other than 0 mean the class, and each connected "
            "component is an object. Default: --binary, but masks with several such values are refused.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure predictions against the truth: presence of classes, masks, objects, counts and positions.

    With several classes, the last row of a metric averages over them. Images that could not be evaluated are listed
    at the end, with the reason. `micraframe show metric NAME` defines the numbers.
    """
    from micraframe.batch import evaluate_files
    from micraframe.batch.evaluate import CurvePoint, ImageStatistic, curve_points
    from micraframe.config import parse_choice
    from micraframe.runtime.tables import write_csv

    written = [] if output is None else [output, output.with_name(f"{output.stem}-precision_recall.csv")]
    for path in written:
        if path.exists():
            raise ConfigError(f"{path}: expected no such file yet; choose another --output, or remove it")
    # Commas separate names, and the parameters of one metric.
    words = [part for text in metrics or () for part in ([text] if ":" in text else text.split(","))]
    choices = [parse_choice(word.strip()) for word in words]
    found = evaluate_files(predictions, truth, choices, distance, instances)
    failed = BatchError(f"evaluate {predictions}", found.failures, found.done) if found.failures else None
    if failed and not found.done:
        raise failed
    components = {str(row["component"]) for row in found.records}
    headings = {name: f"{name}: {registry.catalog().find('metric', name).component.summary}" for name in components}
    print_measures(found.records, "component", as_json, headings)
    if written:
        write_csv(written[0], found.measured, ImageStatistic)
        if found.curves:
            write_csv(written[1], curve_points(found.curves), CurvePoint)
    if failed:
        raise failed
