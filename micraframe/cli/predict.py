"""`micraframe predict`: masks, objects and tables for image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from micraframe.cli.output import Device, progress

if TYPE_CHECKING:
    from micraframe.pipeline import Pipeline

Combiner = Annotated[
    str | None,
    typer.Option(help="Another combiner than the model's: NAME, or NAME:KEY=VALUE,...", show_default=False),
]
Extractor = Annotated[
    str | None,
    typer.Option(help="Another extractor than the model's: NAME, or NAME:KEY=VALUE,...", show_default=False),
]


def predict(
    model: Annotated[Path, typer.Argument(help="A saved model's folder.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    head: Annotated[
        str | None,
        typer.Option(
            help="Another head than the model's: NAME, or NAME:KEY=VALUE,..., such as instance:split=watershed.",
            show_default=False,
        ),
    ] = None,
    combiner: Combiner = None,
    extractor: Extractor = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(help="Thresholds tuned by a study: STUDY/runs/KEY/thresholds.json.", show_default=False),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Cut larger images into tiles of this many pixels a side; 0: do not cut. By default as the model was "
            "saved.",
            show_default=False,
        ),
    ] = None,
    halo: Annotated[
        int | None,
        typer.Option(
            help="Pixels along the inner edges of a tile that are scored but not used; 64 by default.",
            show_default=False,
        ),
    ] = None,
    scores: Annotated[bool, typer.Option("--scores", help="Also write the score maps, as float32 TIFF.")] = False,
    device: Device = "auto",
) -> None:
    """Predict images with a saved model.

    For each image, it writes masks (TIFF, 0 and 255), numbered objects (TIFF), outlines (GeoJSON for QuPath) and an
    overlay (PNG), as far as the head makes them; for all images, predictions.csv, objects.csv and points.csv.
    Everything is in pixels of the image file.

    An image that fails is reported at the end and does not stop the others. Predicting again into the same folder
    replaces the earlier predictions and no other files.
    """
    from micraframe.batch import predict_files
    from micraframe.batch.predict import TABLES
    from micraframe.errors import BatchError
    from micraframe.runtime.memory import reuse_freed_memory

    pipeline = load_pipeline(model, device, head, combiner, extractor, _tiling(tile, halo))
    if thresholds is not None:
        from micraframe.tuning import read_thresholds

        pipeline = pipeline.with_thresholds(read_thresholds(thresholds), "validation")
    with reuse_freed_memory():
        done, failures = predict_files(pipeline, images, output, scores, progress())
    for name in TABLES:
        if (output / name).exists():
            print(output / name)
    if failures:
        raise BatchError(f"predict to {output}", failures, done)


def load_pipeline(
    model: Path, device: str, head: str | None, combiner: str | None, extractor: str | None, tiling: Any
) -> Pipeline:
    """Load a saved model with the components that options name in place of its own.

    Args:
        model: A saved model's folder.
        device: `auto`, or a torch device.
        head: A head, as `parse_choice` reads it; None for the model's own.
        combiner: A combiner, likewise.
        extractor: An extractor, likewise.
        tiling: Another tiling, None for none, or `micraframe.pipeline.KEEP`.
    """
    from micraframe import pipeline
    from micraframe.config import parse_choice

    overrides = {name: parse_choice(text) for name, text in _named(combiner=combiner, extractor=extractor)}
    chosen = None if head is None else parse_choice(head)
    return pipeline.load(model, device, head=chosen, tiling=tiling, **overrides)


def _named(**options: str | None) -> list[tuple[str, str]]:
    return [(name, text) for name, text in options.items() if text is not None]


def _tiling(tile: int | None, halo: int | None) -> Any:
    """Return the tiling that options describe: None for none, or `KEEP` for that of the model."""
    from pydantic import ValidationError

    from micraframe.errors import ConfigError
    from micraframe.pipeline import KEEP
    from micraframe.registry import explain
    from micraframe.tiling import Tiling

    if not tile:
        if halo is not None:
            raise ConfigError(f"--halo {halo}: expected --tile too; give the size of the tiles: --tile 512")
        return KEEP if tile is None else None
    given = {"size": tile} | ({} if halo is None else {"halo": halo})
    try:
        return Tiling(**given)
    except ValidationError as error:
        words = f"--tile {tile}" + ("" if halo is None else f" --halo {halo}")
        raise ConfigError(f"{words}: {explain(error, Tiling.model_fields)}") from error
