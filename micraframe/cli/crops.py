"""`micraframe crops`: images cut into crops, with a table of labels to fill in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micraframe.cli.output import progress
from micraframe.errors import BatchError, counted


def crops(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    classes: Annotated[str, typer.Option(help="Names of the classes, separated by commas: ring,fiber.")],
    output: Annotated[Path, typer.Option(help="New folder for crops and labels.csv.")],
    size: Annotated[int, typer.Option(min=8, help="Height and width of a crop in pixels, after --scale.")] = 128,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Distance from one crop to the next in pixels, after --scale. Default: side by side."),
    ] = None,
    scale: Annotated[
        float,
        typer.Option(
            help="Factor by which training will resize the images, such as 0.25: crops are cut that much larger, and "
            "keep the pixels of the files."
        ),
    ] = 1.0,
) -> None:
    """Cut images into crops and write a table to fill in: for each crop, 1 or 0 in the column of each class.

    The dataset folder reads crops and labels.csv, and keeps all crops of an image in one split. Images that cannot be
    read are listed at the end.
    """
    from micraframe.batch.cut import IMAGES, LABELS, cut_files

    names = [name.strip() for name in classes.split(",")]
    count, done, failures = cut_files(images, output, size, stride, names, progress(), scale)
    print(
        f"Wrote {counted(count, 'crop')} of {counted(done, 'image')}. Fill in 1 or 0 in {output / LABELS}, and read it "
        "with:\n"
    )
    print("dataset:\n  name: folder\n  params:")
    print(f"    images: {output / IMAGES}\n    labels: {output / LABELS}")
    # The range of a crop is not that of its image: without this, empty crops would be stretched to noise.
    print("    normalisation: {kind: percentile, scope: train}")
    print("    unlabelled: skip  # leaves out crops without a label")
    if scale != 1:
        print(f"    scale: {scale:g}")
    if failures:
        raise BatchError(f"crops to {output}", failures, done)
