"""`micraframe sweep`: where the classes are in an image larger than memory."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from micraframe.cli.output import AsJson, Device, print_records, progress

if TYPE_CHECKING:
    from micraframe.sweep.ome_zarr import NgffVersion
    from micraframe.sweep.run import Mode
    from micraframe.types import Precision


def sweep(
    model: Annotated[Path, typer.Argument(help="Folder of a saved micra-net model.", show_default=False)],
    image: Annotated[
        Path, typer.Argument(help="A TIFF, the folder of a Zarr array or OME-Zarr, a PNG or JPEG.", show_default=False)
    ],
    output: Annotated[Path, typer.Option(help="Folder for the results; an interrupted sweep there is resumed.")],
    mode: Annotated[
        str, typer.Option(help="dense (fast), exact (window by window, as in the paper), or both, to compare them.")
    ] = "dense",
    window: Annotated[
        int | None,
        typer.Option(
            help="Side of a window in pixels; by default that of the training images, where they all have one size.",
            show_default=False,
        ),
    ] = None,
    overlap: Annotated[float, typer.Option(help="Fraction of a window that the next one covers too.")] = 0.75,
    presence_threshold: Annotated[
        float | None,
        typer.Option(
            help="Probability at which a place becomes a proposal; by default the model's, tuned or not.",
            show_default=False,
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(help="Presence thresholds tuned by a study: STUDY/runs/KEY/thresholds.json.", show_default=False),
    ] = None,
    tile: Annotated[
        int, typer.Option(help="Side in pixels of the tiles that are computed at a time; memory grows with it.")
    ] = 1024,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "float32",
    ngff: Annotated[
        str, typer.Option(help="OME-NGFF version of the map: 0.5, or 0.4 for viewers that cannot read Zarr 3.")
    ] = "0.5",
    as_json: AsJson = False,
) -> None:
    """Find where the classes are in a large image: a probability map, and ranked proposals."""
    from micraframe.pipeline import load
    from micraframe.runtime.memory import reuse_freed_memory
    from micraframe.sweep import SweepOptions, sweep_image
    from micraframe.sweep.run import GEOJSON, MAP, OVERLAY, TABLE

    options = SweepOptions(
        mode=cast("Mode", mode),
        window=None if window is None else (window, window),
        overlap=overlap,
        presence_threshold=presence_threshold,
        tile=tile,
        precision=cast("Precision", precision),
        ngff=cast("NgffVersion", ngff),
    )
    pipeline = load(model, device)
    if thresholds is not None:
        from micraframe.tuning import read_thresholds

        pipeline = pipeline.with_thresholds(read_thresholds(thresholds), "validation")

    def say(note: str) -> None:
        typer.echo(note, err=True)

    with reuse_freed_memory():
        report = asdict(sweep_image(pipeline, image, output, options, progress(), say, model))
    agreement = report.pop("agreement") or {}
    flat: dict[str, Any] = report | {f"agreement: {key}": value for key, value in agreement.items()}
    if as_json:
        print_records([flat], as_json)
        return
    print_records([{"sweep": key.replace("_", " "), "value": str(value)} for key, value in flat.items()], as_json)
    print()
    for name in (TABLE, GEOJSON, OVERLAY, MAP):
        print(output / name)
