"""Blood smears with Plasmodium vivax: BBBC041, boxes of infected cells against all others."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
from pydantic import Field

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.crops import Handling, PositiveRule
from micraframe.datasets.image_dataset import ImageDataset, ImageDatasetParams
from micraframe.datasets.normalisation import NormalisationParams
from micraframe.datasets.paths import images_in
from micraframe.datasets.sources import SourceImage
from micraframe.datasets.splits import random_splits
from micraframe.datasets.tables import BOX_COLUMNS, CLASS_COLUMN, check_images, columns_of, read_table, row_objects
from micraframe.errors import DataError, reason_of
from micraframe.images import read_image, read_size
from micraframe.types import FloatArray, Split
from micraframe_paper.datasets.defaults import default
from micraframe_paper.download import RemoteFile, Terms, fetch, root_of

TERMS: Final = Terms(
    "p-vivax",
    licence="CC BY-NC-SA 3.0",
    citation="J. Hung et al., Applying Faster R-CNN for object detection on malaria images, arXiv:1804.09548, 2018; "
    "image set BBBC041v1 of the Broad Bioimage Benchmark Collection, V. Ljosa et al., Nature Methods 9, 637, 2012",
    page="https://bbbc.broadinstitute.org/BBBC041",
)

_ARCHIVE: Final = "https://data.broadinstitute.org/bbbc/BBBC041/malaria.zip"

FILES: Final = tuple(
    RemoteFile(f"malaria/{name}", _ARCHIVE, archive=True, other_names=(name,))
    for name in ("training.json", "test.json", "images")
)
"""The annotation of both sets, and the folder of images; the publisher gives no checksum of the archive."""

TABLE: Final = "boxes.csv"
"""The annotation of a folder in the other layout: a table of boxes beside the folder `images`."""

INFECTED: Final = ("gametocyte", "ring", "trophozoite", "schizont")
"""BBBC041's categories of infected cells that the paper counts: the 303 of its test images. Cells that are `difficult`,
whose category the annotators could not tell, are not among them."""


@dataclass(frozen=True, eq=False)
class Smear:
    """The annotation of one image.

    Attributes:
        path: Path of the image, relative to the folder that holds the annotation file.
        size: (H, W) of the image.
        boxes: Per category, float32 (N, 4): (y0, x0, y1, x1); they may reach beyond the image.
    """

    path: str
    size: tuple[int, int]
    boxes: Mapping[str, FloatArray]


def read_smears(path: Path) -> list[Smear]:
    """Read an annotation file of BBBC041.

    It is a list of `{"image": {"pathname", "shape": {"r", "c"}}, "objects": [{"category", "bounding_box": {"minimum":
    {"r", "c"}, "maximum": {"r", "c"}}}]}`, with rows r and columns c.

    Raises:
        DataError: If it cannot be read, or is not of this form.
    """
    try:
        return [_smear(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected BBBC041's annotation, a list of images with their objects, got something else "
            f"({reason_of(error, typed=True)}); download it again from {TERMS.page}"
        ) from error


def _smear(entry: Any) -> Smear:
    image, boxes = entry["image"], dict[str, list[list[float]]]()
    for each in entry["objects"]:
        corners = each["bounding_box"]["minimum"], each["bounding_box"]["maximum"]
        boxes.setdefault(each["category"], []).append([float(corner[axis]) for corner in corners for axis in "rc"])
    size = int(image["shape"]["r"]), int(image["shape"]["c"])
    arrays = {category: np.array(several, np.float32) for category, several in boxes.items()}
    return Smear(image["pathname"].lstrip("/"), size, arrays)


def read_boxes_table(folder: Path) -> list[Smear]:
    """Read the annotation of a folder with `boxes.csv` and `images`; an image without a row has no boxes.

    Raises:
        DataError: If a file is missing or broken, or the table is about an image that is not there.
    """
    table, images = read_table(folder / TABLE), images_in(folder / "images")
    if CLASS_COLUMN not in columns_of(table):
        raise DataError(
            f"{folder / TABLE}: expected a column {CLASS_COLUMN!r}, got {', '.join(columns_of(table))}; add it, with "
            "the category of each cell"
        )
    check_images(table, images, str(folder / "images"))
    categories = sorted({row.cells[CLASS_COLUMN] for rows in table.values() for row in rows})
    smears = []
    for name, path in images.items():
        size = read_size(path)
        boxes = row_objects(table.get(name, ()), BOX_COLUMNS, categories, size)
        found = dict(zip(categories, boxes, strict=True))
        smears.append(Smear(path.relative_to(folder).as_posix(), size, found))
    return smears


@final
class PVivax(ImageDataset["PVivax.Params"]):
    """Giemsa-stained blood smears of three laboratories, with a box around every cell; one class: infected.

    Bilodeau et al. 2022, Methods, "P. Vivax": each image and channel has mean 0 and standard deviation 1; a crop of
    256 px is positive if it shows at least 5 % of an infected cell, otherwise negative. Test images are those of
    `test.json`; `valid` is the share of `training.json`'s images for validation, and `test` does not matter.

    A folder with a table `boxes.csv` (image, class, xmin, ymin, xmax, ymax) and a folder `images` is read too, and
    divided at random by `valid` and `test`.
    """

    path_params = ("root",)

    class Params(ImageDatasetParams):
        root: str = Field(
            "",
            description="Folder of training.json, test.json and images, or of boxes.csv and images; empty: BBBC041 is "
            "downloaded.",
        )
        infected: tuple[str, ...] = Field(
            INFECTED, min_length=1, description="Categories that count as infected; all others are the rest."
        )
        crop: int | None = default(ImageDatasetParams, "crop", 256)
        positive_rule: PositiveRule = default(ImageDatasetParams, "positive_rule", "visible")
        visible: float = default(ImageDatasetParams, "visible", 0.05)
        ambiguous_train_crops: Literal["drop", "negative"] = default(
            ImageDatasetParams, "ambiguous_train_crops", "negative"
        )
        ambiguous_test_crops: Handling = default(ImageDatasetParams, "ambiguous_test_crops", "negative")
        normalisation: NormalisationParams = default(
            ImageDatasetParams, "normalisation", NormalisationParams(kind="mean-sd", per_channel=True)
        )
        licence: str = default(ImageDatasetParams, "licence", TERMS.licence)
        citation: str = default(ImageDatasetParams, "citation", TERMS.citation)

    def default_name(self) -> str:
        """Return the dataset's name."""
        return TERMS.dataset

    def classes(self) -> tuple[str, ...]:
        """Return the name of the only class."""
        return ("infected",)

    def sources(self) -> list[SourceImage]:
        """Return all images, in the order of their files' annotation.

        Raises:
            DataError: If a file is missing or broken, or cannot be downloaded.
        """
        root = root_of(self.params.root)
        if root and (root / TABLE).is_file():
            return [self._source(root, smear, None, (root / TABLE,)) for smear in read_boxes_table(root)]
        training, testing, _ = fetch(FILES, root, TERMS)
        train, test = read_smears(training), read_smears(testing)
        valid = self.params.valid
        shares: dict[Split, float] = {"train": 1 - valid, "valid": valid, "test": 0}
        splits = random_splits([smear.path for smear in train], shares, self.params.seed)
        return [
            *(self._source(training.parent, *each, (training,)) for each in zip(train, splits, strict=True)),
            *(self._source(testing.parent, smear, "test", (testing,)) for smear in test),
        ]

    def _source(self, folder: Path, smear: Smear, split: Split | None, tables: Sequence[Path]) -> SourceImage:
        path = folder / smear.path
        empty = np.zeros((0, 4), np.float32)
        boxes = np.concatenate([empty, *(smear.boxes.get(name, empty) for name in self.params.infected)])
        annotation = ImageAnnotation(boxes=(boxes,), size=smear.size)
        read = functools.partial(read_image, path)
        return SourceImage(path.stem, read, lambda: annotation, split=split, files=(path, *tables))
