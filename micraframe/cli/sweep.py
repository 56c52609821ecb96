"""`micraframe sweep`: where in an image larger than memory to look."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from micraframe.cli.output import AsJson, Device, print_records, progress

if TYPE_CHECKING:
    from micraframe.config import Precision
    from micraframe.sweep.run import Mode


def sweep(
    model: Annotated[Path, typer.Argument(help="A saved model's folder, of micra-net.", show_default=False)],
    image: Annotated[
        Path, typer.Argument(help="A TIFF, the folder of a Zarr array or OME-Zarr, a PNG or JPEG.", show_default=False)
    ],
    output: Annotated[Path, typer.Option(help="The folder for results; an interrupted sweep there is continued.")],
    mode: Annotated[
        str, typer.Option(help="dense (fast), exact (window by window, as the paper does), or both, compared.")
    ] = "dense",
    window: Annotated[
        int | None,
        typer.Option(
            help="Side of a window in pixels, that of the training images; needed unless the dataset was cut to crops.",
            show_default=False,
        ),
    ] = None,
    overlap: Annotated[float, typer.Option(help="Share of a window that the next one covers too.")] = 0.75,
    threshold: Annotated[float, typer.Option(help="On the probability, for proposals.")] = 0.5,
    tile: Annotated[
        int, typer.Option(help="Side in pixels of what is computed at a time; memory grows with it.")
    ] = 1024,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "float32",
    as_json: AsJson = False,
) -> None:
    """Find where in a large image the classes are: a probability map, and ranked proposals."""
    from micraframe.sweep import Options, sweep_file
    from micraframe.sweep.run import GEOJSON, MAP, OVERLAY, TABLE

    options = Options(
        cast("Mode", mode),
        None if window is None else (window, window),
        overlap,
        threshold,
        tile,
        cast("Precision", precision),
    )
    report = asdict(
        sweep_file(model, image, output, options, device, progress(), lambda note: typer.echo(note, err=True))
    )
    agreement = report.pop("agreement") or {}
    flat: dict[str, Any] = report | {f"agreement: {key}": value for key, value in agreement.items()}
    if as_json:
        print_records([flat], as_json)
        return
    print_records([{"sweep": key.replace("_", " "), "value": str(value)} for key, value in flat.items()], as_json)
    print()
    for name in (TABLE, GEOJSON, OVERLAY, MAP):
        print(output / name)
