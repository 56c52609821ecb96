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
    tile: Annotated[
        int | None, typer.Option(help="Cut larger images into tiles of so many pixels a side. [default: not at all]")
    ] = None,
    halo: Annotated[
        int | None,
        typer.Option(help="Pixels along the inner edges of tiles that are predicted and not used. [default: 64]"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Predict images with a saved model; a bad file is reported at the end and does not stop the others."""
    from pydantic import ValidationError

    from micraframe.batch import predict_files
    from micraframe.batch.predict import TABLE
    from micraframe.errors import BatchError, ConfigError
    from micraframe.registry import explain
    from micraframe.tiling import Tiling

    if tile is None and halo is not None:
        raise ConfigError(f"--halo {halo}: there are no tiles that could have a halo; give their size too: --tile 512")
    try:
        tiling = None if tile is None else Tiling(size=tile) if halo is None else Tiling(size=tile, halo=halo)
    except ValidationError as error:
        given = f"--tile {tile}" + ("" if halo is None else f" --halo {halo}")
        raise ConfigError(f"{given}: {explain(error, Tiling.model_fields)}") from error
    done, failures = predict_files(model, images, output, device, progress(), tiling)
    print(f"{output / TABLE}")
    if failures:
        raise BatchError(f"predict to {output}", failures, done)
