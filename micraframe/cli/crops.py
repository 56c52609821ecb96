"""`micraframe crops`: images cut into crops, with a table of labels to fill in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from micraframe.cli.output import progress, wrapped
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
    from micraframe.images import IMAGE_SUFFIXES

    names = [name.strip() for name in classes.split(",")]
    cut = cut_files(images, output, size, stride, names, progress(), scale)
    if cut.small:
        text = f"note: {cut.small} of {counted(cut.images, 'image')} smaller than a crop of {cut.edge} px"
        print(wrapped(f"{text}: not cut on the side that is shorter", "", "  "), file=sys.stderr)
    if cut.skipped:
        listed = ", ".join(cut.skipped[:3]) + (", ..." if len(cut.skipped) > 3 else "")
        text = f"note: {counted(len(cut.skipped), 'file')} skipped, not ending in {', '.join(IMAGE_SUFFIXES)}: {listed}"
        print(wrapped(text, "", "  "), file=sys.stderr)
    written = f"Wrote {counted(cut.crops, 'crop')} of {counted(cut.images, 'image')}."
    print(f"{written} Fill in 1 or 0 in {output / LABELS}, and read it with:\n")
    print("dataset:\n  name: folder\n  params:")
    print(f"    images: {output / IMAGES}\n    labels: {output / LABELS}")
    # The range of a crop is not that of its image: without this, empty crops would be stretched to noise.
    print("    normalisation: {kind: percentile, scope: train}")
    print("    unlabelled: skip  # leaves out crops without a label")
    if scale != 1:
        print(f"    scale: {scale:g}")
    if cut.failures:
        raise BatchError(f"crops to {output}", cut.failures, cut.images)
