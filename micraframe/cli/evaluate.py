"""`micraframe evaluate`: predictions against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micraframe.cli.output import AsJson, print_records


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="The folder that predict wrote.", show_default=False)],
    truth: Annotated[
        Path,
        typer.Argument(
            help="A CSV of labels (image, and 0 or 1 per class), or a folder of masks named as the images "
            "(for several classes: in a folder per class).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="A CSV for the numbers of every image and class; beside it, of a model that finds points, "
            "precision_recall.csv.",
            show_default=False,
        ),
    ] = None,
    distance: Annotated[
        float, typer.Option(min=0, help="Pixels by which a point may miss the middle of a true object.")
    ] = 10.0,
    instances: Annotated[
        bool, typer.Option("--instances", help="True masks hold numbered objects; else each connected piece is one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare predictions with the truth: accuracy, F1 and IOU per image and class, undefined ones left out.

    Points are compared too, where the model finds such: precision, recall and F1, and precision against recall.
    """
    from micraframe.batch import evaluate_files
    from micraframe.batch.evaluate import CURVES, CurvePoint, Measured, curve_points, means, pooled
    from micraframe.errors import BatchError, ConfigError
    from micraframe.study.tables import write_csv

    if output is not None and output.name == CURVES:
        raise ConfigError(f"--output {output}: the curves are written to that name; name another file")
    measured, curves, failures = evaluate_files(predictions, truth, distance, instances)
    done = len({number.image for number in measured})
    print_records([*means(measured), *pooled(curves, done)], as_json)
    if output is not None:
        write_csv(output, measured, Measured)
        if curves:
            write_csv(output.with_name(CURVES), curve_points(curves), CurvePoint)
    if failures:
        raise BatchError(f"evaluate {predictions}", failures, done)
