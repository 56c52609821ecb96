"""Cuts image files into crops, with a table to fill in by hand: what each crop contains."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe.datasets.crops import Cropping
from micraframe.datasets.paths import images_in
from micraframe.datasets.tables import CLASS_COLUMN, CROP_COLUMNS, GROUP_COLUMN, IMAGE_COLUMNS, SPLIT_COLUMN
from micraframe.errors import BatchError, ConfigError, DataError, MicraframeError, counted
from micraframe.images import IMAGE_SUFFIXES, read_image, read_planes, write_png, write_tiff
from micraframe.runtime.files import atomic_folder, refuse_existing
from micraframe.types import Progress

IMAGES: Final = "images"
LABELS: Final = "labels.csv"

HEADER: Final = (IMAGE_COLUMNS[0], *CROP_COLUMNS, GROUP_COLUMN)
"""The columns of the table before those of the classes."""


class CutFiles(NamedTuple):
    """The result of `cut_files`.

    Attributes:
        crops: Number of crops.
        images: Number of images that they are of.
        failures: The reason for each failure, by the name of the image file.
        edge: Height and width of a crop in pixels of the files.
        small: Number of images that are less high or wide than that.
        skipped: Names of the folder's files that do not end as an image does.
    """

    crops: int
    images: int
    failures: dict[str, str]
    edge: int
    small: int
    skipped: list[str]


def cut_files(
    images: Path,
    output: Path,
    size: int,
    stride: int | None,
    classes: Sequence[str],
    progress: Progress | None = None,
    scale: float = 1.0,
) -> CutFiles:
    """Cut every image of a folder into crops, which the dataset `folder` reads.

    Writes crops to `images/NAME@yYxX.png`, in the values of the file: as PNG if these have 8 or 16 bits and one channel
    or three, otherwise as TIFF, in 32 bits. `labels.csv` has a row for each: `image`, the file; `source`, the image
    that it was cut from; `y` and `x`, its first row and column there; `group`, which keeps the crops of an image in one
    split; and an empty column for each class. The crops cover the image as those of a dataset do.

    Args:
        images: The folder.
        output: Folder to write to, new or empty; it appears when everything is written.
        size: Height and width of a crop in pixels; an image that is smaller is one crop.
        stride: Distance from one crop to the next, at most `size`; None places them side by side.
        classes: Names of the classes.
        progress: Progress callback.
        scale: The `scale` that the dataset will have, after which size and stride count. Crops are not resized, so that
            the model knows the scale of its files: one of 64 px at a scale of 0.25 is cut with 256 px.

    Raises:
        ConfigError: If the output folder holds anything, the stride is larger than a crop, or a class cannot be a
            column.
        DataError: If there are no images, or they differ in their number of channels, which no training accepts.
        BatchError: If none of them can be cut.
    """
    _check(output, size, stride, classes, scale)
    files = images_in(images)
    edge = round(size / scale)
    cropping = Cropping(edge, stride and max(1, round(stride / scale)))
    progress = progress or Progress()
    failures: dict[str, str] = {}
    channels: dict[int, Path] = {}
    count = small = 0
    with atomic_folder(output) as folder:
        (folder / IMAGES).mkdir()
        with (folder / LABELS).open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow([*HEADER, *classes])
            for number, path in enumerate(files.values(), start=1):
                try:
                    planes = _planes(path)
                    rows = _cut(path, planes, folder / IMAGES, cropping)
                except (MicraframeError, MemoryError) as error:
                    failures[str(path)] = str(error) or "too large for memory; cut it into smaller images"
                else:
                    table.writerows([*row, *[""] * len(classes)] for row in rows)
                    count += len(rows)
                    small += min(planes.shape[1:]) < edge
                    channels.setdefault(len(planes), path)
                if len(channels) > 1:
                    (expected, first), (got, other) = channels.items()
                    raise DataError(
                        f"{other}: expected {counted(expected, 'channel')}, as in {first}, got {got}; save all images "
                        "with the same channels, or cut each kind in a folder of its own"
                    )
                progress.advance("crops", number, len(files))
        if not count:
            raise BatchError(f"crops of {images}", failures, 0)
    others = sorted(path for path in images.iterdir() if path.is_file() and not path.name.startswith("."))
    skipped = [path.name for path in others if path.suffix.lower() not in IMAGE_SUFFIXES]
    return CutFiles(count, len(files) - len(failures), failures, edge, small, skipped)


def _planes(path: Path) -> npt.NDArray[Any]:
    """Return an image (C, H, W) as it is written: in 8 or 16 bits as in its file, otherwise as float32."""
    planes = read_planes(path)
    if planes.dtype == np.bool_:
        planes = planes.astype(np.uint8)
    elif planes.dtype not in (np.uint8, np.uint16):
        planes = read_image(path)
    return planes


def _cut(
    path: Path, planes: npt.NDArray[Any], folder: Path, cropping: Cropping
) -> list[tuple[str, str, int, int, str]]:
    """Write the crops of an image, and return their rows."""
    picture = planes.dtype != np.float32 and len(planes) in (1, 3)
    rows = []
    for window in cropping.windows((planes.shape[1], planes.shape[2])):
        name = f"{path.stem}@y{window.y}x{window.x}{'.png' if picture else '.tif'}"
        crop = planes[:, *window.place]
        if picture:
            write_png(folder / name, np.moveaxis(crop, 0, -1) if len(crop) == 3 else crop[0])
        else:
            write_tiff(folder / name, crop)
        rows.append((name, path.name, window.y, window.x, path.stem))
    return rows


def _check(output: Path, size: int, stride: int | None, classes: Sequence[str], scale: float) -> None:
    if not 0 < scale < np.inf:
        raise ConfigError(f"expected a scale above 0, got {scale:g}")
    if stride is not None and not 1 <= stride <= size:
        raise ConfigError(f"expected a stride from 1 to the size of a crop, {size}, got {stride}")
    taken = {*HEADER, *IMAGE_COLUMNS, SPLIT_COLUMN, CLASS_COLUMN}
    if not classes or len(set(classes)) != len(classes) or not all(classes) or taken & set(classes):
        raise ConfigError(
            f"expected distinct names of classes, other than {', '.join(sorted(taken))}, got {', '.join(classes)!r}"
        )
    refuse_existing(output, "because labels that were filled in are never replaced")
