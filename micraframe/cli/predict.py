"""`micraframe predict`: masks and scores of image files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micraframe.cli.output import Device, progress


def predict(
    model: Annotated[Path, typer.Argument(help="A saved model's folder.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.", show_default=False)],
    output: Annotated[Path, typer.Option(help="The folder for masks (TIFF), overlays (PNG) and predictions.csv.")],
    device: Device = "auto",
) -> None:
    """Predict images with a saved model; a bad file is reported at the end and does not stop the others."""
    from micraframe.batch import predict_files
    from micraframe.batch.predict import TABLE
    from micraframe.errors import BatchError

    done, failures = predict_files(model, images, output, device, progress())
    print(f"{output / TABLE}")
    if failures:
        raise BatchError(f"predict to {output}", failures, done)
