"""Large fields with few white blood cells, composed of pieces of real smears: a stand-in for `em-axon`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.image_dataset import ImageDatasetParams
from micraframe.datasets.sources import SourceImage, read_annotation, read_scaled
from micraframe.datasets.splits import random_splits
from micraframe.errors import DataError
from micraframe.images import scaled_size
from micraframe.runtime.files import digest
from micraframe.types import SPLITS, FloatArray, Normalisation, Split
from micraframe_paper.datasets.defaults import default
from micraframe_paper.datasets.fields import MarkedFields, MarkedFieldsParams
from micraframe_paper.datasets.folders import BloodCells

MOST_CELLS = 10
"""Largest number of cells in a field; the mean is 3. Both are those of the paper's tiles."""

Places = npt.NDArray[np.intp]
"""First row and column of windows, (N, 2)."""


@dataclass(frozen=True, eq=False)
class SmearCells:
    """A smear: its name, its image's size (H, W), and the boxes of its cells, float32 (N, 4): (y0, x0, y1, x1)."""

    name: str
    size: tuple[int, int]
    boxes: FloatArray


@dataclass(frozen=True)
class Piece:
    """A piece of a smear: the smear, the first row and column, and the cell that it shows, if any."""

    smear: int
    y: int
    x: int
    cell: int | None = None


@final
class BloodMosaic(MarkedFields["BloodMosaic.Params"]):
    """A stand-in for sparse detection on real images: fields of 1024 px with 1 to 10 white blood cells, 3 on average.

    No field was ever seen by a microscope: each is a square of pieces of BCCD's smears, with the seams between them.
    All pieces have the same size and lie anywhere in their smears, so that a seam says nothing about cells. Every cell
    that fits into a piece is used once, at a random place in its piece; all other pieces show none. Smears are divided
    among the splits first. Fields of one split share smears, so that intervals over fields are too narrow. A few white
    cells at the borders of smears have no box: finding them counts as wrong.
    """

    normalisation = Normalisation("fixed", scale=(255.0,))

    class Params(MarkedFieldsParams):
        root: str = default(MarkedFieldsParams, "root", "$MICRAFRAME_DATA/bccd_blood")
        target: Literal["WBC", "Platelets"] = Field(
            "WBC", description="The cells to find. Some platelets have no box, so that they are in other pieces too."
        )
        scale: float = default(ImageDatasetParams, "scale", 0.25)
        piece: int = Field(64, ge=8, description="Side of a piece in pixels of the resized smears.")
        pieces: int = Field(16, ge=4, description="Number of pieces along each side of a field.")
        valid: float = default(ImageDatasetParams, "valid", 0.2)
        test: float = default(ImageDatasetParams, "test", 0.2)
        cut: int = default(MarkedFieldsParams, "cut", 128)
        crop: int = default(MarkedFieldsParams, "crop", 64)
        margin: int = default(MarkedFieldsParams, "margin", 24)
        licence: str = default(MarkedFieldsParams, "licence", BloodCells.Params.model_fields["licence"].default)
        citation: str = default(MarkedFieldsParams, "citation", BloodCells.Params.model_fields["citation"].default)

        @model_validator(mode="after")
        def _trains(self) -> BloodMosaic.Params:
            if self.valid + self.test >= 1:
                raise ValueError(f"valid {self.valid} and test {self.test} leave nothing for training")
            return self

    def class_name(self) -> str:
        """Return the name of the only class."""
        return self.params.target

    def default_name(self) -> str:
        """Return the dataset's name."""
        return "blood-mosaic"

    def scale(self) -> float:
        """Return the factor by which smears were resized."""
        return self.params.scale

    def fields(self) -> list[SourceImage]:
        """Return all fields, each composed on access.

        Raises:
            DataError: If a file is missing or broken, or no piece of a split shows a cell, or none shows no cell.
        """
        params = self.params
        smears = BloodCells(BloodCells.Params(root=params.root, kinds=(params.target,))).sources()
        read = functools.lru_cache(len(smears))(lambda index: read_scaled(smears[index], params.scale)[0])
        names = [smear.name for smear in smears]
        shares: dict[Split, float] = {
            "train": 1 - params.valid - params.test,
            "valid": params.valid,
            "test": params.test,
        }
        splits = random_splits(names, shares, params.seed)
        described = [_describe(smear, params.scale) for smear in smears]
        fields = []
        for split in SPLITS:
            chosen = [index for index, other in enumerate(splits) if other == split]
            rng = np.random.default_rng([params.seed, int(digest(split)[:15], 16)])
            planned = plan(described, chosen, params.piece, params.pieces, rng) if chosen else []
            for number, pieces in enumerate(planned):
                name = f"{split}{number:03}"
                annotation = _annotation(pieces, described, params.piece, params.pieces)
                fields.append(
                    SourceImage(
                        name,
                        functools.partial(compose, pieces, read, params.piece, params.pieces),
                        functools.partial(_same, annotation),
                        group=name,
                        split=split,
                        files=tuple(path for index in chosen for path in smears[index].files),
                    )
                )
        return fields


def places(size: tuple[int, int], side: int, boxes: FloatArray, inside: int | None = None) -> Places:
    """Return the first row and column of every square window of an image (H, W) that touches no box.

    Args:
        size: (H, W) of the image.
        side: Side of the windows.
        boxes: float32 (N, 4): (y0, x0, y1, x1), end exclusive.
        inside: The box that must lie wholly inside the window instead.
    """
    y, x = np.ogrid[: max(0, size[0] - side + 1), : max(0, size[1] - side + 1)]
    allowed = (y >= 0) & (x >= 0)
    for index, (y0, x0, y1, x1) in enumerate(boxes):
        if index == inside:
            allowed = allowed & (y <= y0) & (x <= x0) & (y + side >= y1) & (x + side >= x1)
        else:
            allowed = allowed & ((y + side <= y0) | (y >= y1) | (x + side <= x0) | (x >= x1))
    return np.argwhere(allowed)


def plan(
    smears: Sequence[SmearCells], chosen: Sequence[int], side: int, count: int, rng: np.random.Generator
) -> list[list[Piece]]:
    """Return the fields of a split, each as count x count pieces, row by row.

    A field has 1 + Poisson(2) cells, at most `MOST_CELLS`, until every cell that fits into a piece is used.

    Args:
        smears: All smears.
        chosen: Indices of the split's smears.
        side: Side of a piece in pixels.
        count: Number of pieces along each side of a field.
        rng: Makes the random choices.

    Raises:
        DataError: If no piece shows a cell, or none shows no cell.
    """
    empty = [(index, found) for index in chosen if len(found := places(smears[index].size, side, smears[index].boxes))]
    cells = [
        (index, cell, found)
        for index in chosen
        for cell in range(len(smears[index].boxes))
        if len(found := places(smears[index].size, side, smears[index].boxes, cell))
    ]
    if not empty or not cells:
        raise DataError(
            f"expected pieces of {side} px of {len(chosen)} smears with and without a cell, got {len(cells)} cells "
            f"that fit and {len(empty)} smears with room beside them; set another size of pieces, or another scale"
        )
    order = rng.permutation(len(cells)).tolist()
    fields = []
    while order:
        used = [order.pop() for _ in range(min(len(order), MOST_CELLS, 1 + int(rng.poisson(2))))]
        drawn = [empty[index] for index in rng.integers(len(empty), size=count**2)]
        pieces = [Piece(index, *_any(found, rng)) for index, found in drawn]
        for position, number in zip(rng.choice(count**2, len(used), replace=False), used, strict=True):
            index, cell, found = cells[number]
            pieces[position] = Piece(index, *_any(found, rng), cell)
        fields.append(pieces)
    return fields


def compose(pieces: Sequence[Piece], read: Callable[[int], FloatArray], side: int, count: int) -> FloatArray:
    """Return a field, float32 (C, count * side, count * side), of its pieces.

    Args:
        pieces: The pieces, row by row.
        read: Returns the image of a smear, float32 (C, H, W).
        side: Side of a piece in pixels.
        count: Number of pieces along each side.
    """
    cut = [read(piece.smear)[:, piece.y : piece.y + side, piece.x : piece.x + side] for piece in pieces]
    rows = [np.concatenate(cut[start : start + count], axis=2) for start in range(0, len(cut), count)]
    return np.concatenate(rows, axis=1)


def _annotation(pieces: Sequence[Piece], smears: Sequence[SmearCells], side: int, count: int) -> ImageAnnotation:
    """Return the boxes of a field's cells, and their centres as points."""
    shown = [
        smears[piece.smear].boxes[piece.cell] + np.tile([row * side - piece.y, column * side - piece.x], 2)
        for (row, column), piece in zip(np.ndindex(count, count), pieces, strict=True)
        if piece.cell is not None
    ]
    boxes = np.array(shown, np.float32).reshape(-1, 4)
    points = ((boxes[:, :2] + boxes[:, 2:] - 1) / 2).astype(np.float32)
    return ImageAnnotation(boxes=(boxes,), points=(points,), size=(count * side, count * side))


def _describe(smear: SourceImage, scale: float) -> SmearCells:
    annotation = read_annotation(smear, 1)
    assert annotation.size is not None
    size = scaled_size(annotation.size, scale)
    boxes = annotation.resized(annotation.size, size).boxes
    assert boxes is not None
    return SmearCells(smear.name, size, boxes[0])


def _any(found: Places, rng: np.random.Generator) -> tuple[int, int]:
    y, x = found[rng.integers(len(found))].tolist()
    return y, x


def _same(annotation: ImageAnnotation) -> ImageAnnotation:
    return annotation
