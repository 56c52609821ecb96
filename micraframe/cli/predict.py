"""`micraframe predict`: masks, objects and tables for image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from micraframe.cli.output import Device, progress
from micraframe.errors import BatchError, ConfigError

if TYPE_CHECKING:
    from micraframe.pipeline import Pipeline

Tuned = Literal["validation", "negatives", "expected-share"]

_INSTEAD = "Use this {} instead of the model's: NAME, or NAME:KEY=VALUE,..."
Head = Annotated[str | None, typer.Option(help=f"{_INSTEAD.format('head')}, such as instance:split=watershed.")]
Combiner = Annotated[str | None, typer.Option(help=_INSTEAD.format("combiner"))]
Extractor = Annotated[str | None, typer.Option(help=_INSTEAD.format("extractor"))]
StudyOrigin = Annotated[
    Tuned | None,
    typer.Option(
        help="Which of these thresholds: tuned on validation images, or by image-level labels alone, which is what the "
        "others are. Default: validation."
    ),
]


def predict(
    model: Annotated[Path, typer.Argument(help="A saved model's folder.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    output: Annotated[Path, typer.Option(help="Folder for the results.")],
    head: Head = None,
    combiner: Combiner = None,
    extractor: Extractor = None,
    thresholds: Annotated[
        Path | None, typer.Option(help="Thresholds tuned by a study: STUDY/runs/KEY/thresholds.json.")
    ] = None,
    origin: StudyOrigin = None,
    tile: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Cut larger images into tiles with sides of this many pixels; 0: do not cut. Default: as saved with "
            "the model.",
        ),
    ] = None,
    halo: Annotated[
        int | None,
        typer.Option(
            help="Margin, in pixels, that is scored but discarded where tiles overlap. Default: 64, or a quarter "
            "of a tile if that is less."
        ),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Also write the score maps, as float32 TIFF; not with head classification.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Predict images with a saved model.

    For each image, it writes masks (TIFF, 0 and 255), numbered objects (TIFF), outlines (GeoJSON for QuPath) and an
    overlay (PNG), depending on the head; for all images, predictions.csv, objects.csv and points.csv.
    Everything is in pixels of the image file.

    An image that fails is reported at the end and does not stop the others. Predicting into the same folder again
    replaces the earlier predictions, and no other files.
    """
    from micraframe.batch import predict_files
    from micraframe.batch.predict import TABLES
    from micraframe.pipeline import load
    from micraframe.runtime.memory import reuse_freed_memory

    others = choices(head=head, combiner=combiner, extractor=extractor)
    pipeline = with_study_thresholds(load(model, device, tiling=_tiling(tile, halo), **others), thresholds, origin)
    with reuse_freed_memory():
        done, failures = predict_files(pipeline, images, output, scores, progress())
    for name in TABLES:
        if (output / name).exists():
            print(output / name)
    if failures:
        raise BatchError(f"predict to {output}", failures, done)


def choices(**texts: str | None) -> dict[str, Any]:
    """Return the components that options name, without those that are not given."""
    from micraframe.config import parse_choice

    return {option: parse_choice(text) for option, text in texts.items() if text is not None}


def with_study_thresholds(pipeline: Pipeline, path: Path | None, origin: Tuned | None) -> Pipeline:
    """Return the pipeline with the thresholds that a study tuned for one of its runs, if a path is given."""
    from micraframe.tuning import read_thresholds

    if path is None:
        if origin is not None:
            raise ConfigError(f"--origin {origin}: expected --thresholds too; add STUDY/runs/KEY/thresholds.json")
        return pipeline
    return pipeline.with_thresholds(read_thresholds(path, origin or "validation"), origin or "validation")


def _tiling(tile: int | None, halo: int | None) -> Any:
    """Return the tiling that options describe: None without tiles, or `KEEP` for the model's own."""
    from pydantic import ValidationError

    from micraframe.pipeline import KEEP
    from micraframe.registry import explain
    from micraframe.tiling import Tiling

    if not tile:
        if halo is not None:
            raise ConfigError(f"--halo {halo}: expected --tile too; add the size of the tiles: --tile 512")
        return KEEP if tile is None else None
    given = {"size": tile} | ({} if halo is None else {"halo": halo})
    try:
        return Tiling(**given)
    except ValidationError as error:
        words = f"--tile {tile}" + ("" if halo is None else f" --halo {halo}")
        raise ConfigError(f"{words}: {explain(error, Tiling.model_fields)}") from error
