"""Large images, tile by tile: every method's are cut, joined and decided on in the same way.

A method predicts each tile as if it were an image; score maps are joined along the middles of the tiles' overlaps, and
the method's head decides once, on the whole. So a difference between methods is never one in how images were cut. Only
what no head decides for, such as the controls, sees images whole.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from pydantic import Field, model_validator

from micraframe.errors import DataError
from micraframe.interfaces import Fitted, Parameters
from micraframe.types import FloatArray, Part, Prediction, ScoreMap, Span, Status, check_image

ALIGNMENT: Final = 32
"""Tiles begin at multiples of so many pixels, which the strides of usual networks divide: the cells that are pooled in
a tile are then those of the whole image."""


class Tiling(Parameters):
    """How large images are cut. An image that is no larger than a tile is not, nor one that is a little larger."""

    size: int = Field(
        512,
        ge=2 * ALIGNMENT,
        description=f"Side of a tile in pixels, halo included; the last of a row may have up to {ALIGNMENT - 1} more.",
    )
    halo: int = Field(
        64,
        ge=0,
        description="Pixels along a tile's inner edges that are predicted and not used, at least. As far as the method "
        "looks, tiles agree with the whole; half of the largest object, it is found whole.",
    )

    @model_validator(mode="after")
    def _moves_on(self) -> Tiling:
        if self.step < ALIGNMENT:
            raise ValueError(
                f"tiles of {self.size} pixels with halos of {self.halo} leave less than {ALIGNMENT} pixels to use; "
                f"choose a size of at least {2 * self.halo + ALIGNMENT}, or a smaller halo"
            )
        return self

    @property
    def step(self) -> int:
        """Pixels from one tile to the next."""
        return (self.size - 2 * self.halo) // ALIGNMENT * ALIGNMENT


def predict(fitted: Fitted, images: Iterable[FloatArray], tiling: Tiling | None = None) -> Iterator[Prediction]:
    """Yield a prediction for each image, in order; those of images larger than a tile are joined from its tiles'.

    The network's memory is that of a tile; image, score map and masks are held whole. What a method scales by the
    image's own maximum, as MICRA-Net does its maps, is scaled tile by tile, and what it does not explain in a tile, for
    the class is not found there, is blank there.

    Args:
        fitted: A method that has learned. Without a head, which could decide on what was joined, it sees images whole.
        images: Each float32 (C, H, W).
        tiling: How images are cut; None: they are not.

    Raises:
        DataError: If the method has a head and shows no score map that could be joined.
    """
    if tiling is None or fitted.head is None:
        yield from fitted.predict(images)
        return
    for number, image in enumerate(images):
        check_image(image, f"image {number}")
        rows, columns = (lay(side, tiling) for side in image.shape[1:])
        if len(rows) == len(columns) == 1:
            yield from fitted.predict([image])
        else:
            yield _predict_tiled(fitted, image, list(itertools.product(rows, columns)))


def is_cut(size: tuple[int, int], tiling: Tiling | None) -> bool:
    """Return whether an image of this size, (H, W), is cut."""
    return tiling is not None and any(len(lay(side, tiling)) > 1 for side in size)


def lay(side: int, tiling: Tiling) -> list[tuple[Span, Span]]:
    """Return the tiles along a side: which pixels each predicts, and which of them are used, every pixel once."""
    if side <= tiling.size:
        return [((0, side), (0, side))]
    last = (side - tiling.size) // ALIGNMENT * ALIGNMENT
    starts = [*range(0, last, tiling.step), last]
    ends = [*(start + tiling.size for start in starts[:-1]), side]
    middles = [(start + end) // 2 for start, end in zip(starts[1:], ends, strict=False)]
    used = itertools.pairwise([0, *middles, side])
    return list(zip(zip(starts, ends, strict=True), used, strict=True))


def stitch(parts: Sequence[Part], size: tuple[int, int]) -> ScoreMap:
    """Return the score map of an image of which every pixel is used in one part.

    A class that was not explained in a part speaks for no pixel of it. A class is `ok` where it is in any part.

    Args:
        parts: The score maps of the tiles.
        size: (H, W) of the image.
    """
    classes = tuple(sorted({index for part in parts for index in part.score_map.classes}))
    values, coarse = np.zeros((2, len(classes), *size), np.float32)
    found: dict[int, Status] = {}
    for part in parts:
        rows, columns = slice(*part.used_rows), slice(*part.used_columns)
        here = part.inside
        for row, index in enumerate(part.score_map.classes):
            plane = classes.index(index)
            values[plane, rows, columns] = part.score_map.values[row][here]
            coarse[plane, rows, columns] = part.score_map.coarse[row][here]
            status = part.score_map.status[row]
            found[index] = status if status == "ok" else found.get(index, status)
    return ScoreMap(classes, values, coarse, tuple(found[index] for index in classes))


def _predict_tiled(fitted: Fitted, image: FloatArray, tiles: Sequence[Any]) -> Prediction:
    assert fitted.head is not None
    cut = (image[:, slice(*rows), slice(*columns)] for (rows, _), (columns, _) in tiles)
    parts: list[Part] = []
    method = ""
    for ((rows, used_rows), (columns, used_columns)), prediction in zip(tiles, fitted.predict(cut), strict=True):
        if prediction.score_map is None:
            raise DataError(
                f"{prediction.method or type(fitted).__name__} shows no score map, so that tiles cannot be joined; "
                "predict without tiles"
            )
        method = prediction.method
        parts.append(Part(rows, columns, used_rows, used_columns, prediction.scores, prediction.score_map))
    scores = np.max([part.scores for part in parts], axis=0)
    score_map, scores = fitted.joined(stitch(parts, (image.shape[1], image.shape[2])), scores, parts)
    return dataclasses.replace(fitted.head.decide(score_map, scores, image), score_map=score_map, method=method)
