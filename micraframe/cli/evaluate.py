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
        Path | None, typer.Option(help="A CSV for the numbers of every image and class.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare predictions with the truth: accuracy, F1 and IOU per image and class, undefined ones left out."""
    from micraframe.batch import evaluate_files
    from micraframe.batch.evaluate import Measured, means
    from micraframe.errors import BatchError
    from micraframe.study.tables import write_csv

    measured, failures = evaluate_files(predictions, truth)
    print_records(means(measured), as_json)
    if output is not None:
        write_csv(output, measured, Measured)
    if failures:
        raise BatchError(f"evaluate {predictions}", failures, len({number.image for number in measured}))
