"""Large images, tile by tile: how they are cut, and how the scores of the tiles are merged. Pure arithmetic.

A model scores each tile as if it were an image, scores are merged along the middles of the overlaps, and the head
decides once, on the whole. All methods are tiled alike, so a difference between methods is never one in tiling.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from pydantic import Field, model_validator

from micraframe.interfaces import ScoredTile
from micraframe.parameters import Parameters
from micraframe.types import Scores, Status

ALIGNMENT: Final = 32
"""Tiles begin at multiples of this many pixels, which the strides of usual networks divide: cells that are pooled in a
tile are then those of the whole image."""

Span = tuple[int, int]
"""The first pixel along a side and, exclusive, the last."""

PlacedSpan = tuple[Span, Span]
"""What a tile covers along a side, and which of that is used."""


class Tiling(Parameters):
    """How large images are cut. An image no larger than a tile, or only a little larger, is not."""

    size: int = Field(
        512,
        ge=ALIGNMENT,
        description=f"Side of a tile in pixels, halo included; the last of a row may have up to {ALIGNMENT - 1} more.",
    )
    halo: int = Field(
        64,
        ge=0,
        description="Pixels along a tile's inner edges that are scored but not used, at least. As large as the "
        "receptive field, tiles agree with the whole image; as half an object, objects are found whole. "
        "Default: 64, but at most a quarter of a tile, and 32 used pixels remain.",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_halo(cls, value: Any) -> Any:
        """Choose a halo that leaves used pixels in a tile of any valid size."""
        if isinstance(value, dict) and "halo" not in value and isinstance(size := value.get("size"), int):
            return value | {"halo": max(0, min(64, size // 4, (size - ALIGNMENT) // 2))}
        return value

    @model_validator(mode="after")
    def _advances(self) -> Tiling:
        if self.step < ALIGNMENT:
            raise ValueError(
                f"expected at least {ALIGNMENT} used pixels per tile, got size {self.size} with halo {self.halo}; "
                f"choose a size of at least {2 * self.halo + ALIGNMENT}, or a smaller halo"
            )
        return self

    @property
    def step(self) -> int:
        """Pixels from one tile to the next."""
        return (self.size - 2 * self.halo) // ALIGNMENT * ALIGNMENT

    def cuts(self, size: tuple[int, int]) -> bool:
        """Return whether an image of this size, (H, W), is cut."""
        return any(len(lay(side, self)) > 1 for side in size)


def lay(side: int, tiling: Tiling) -> list[PlacedSpan]:
    """Return the tiles along a side: the pixels that each covers, and those of them that are used, every pixel once."""
    if side <= tiling.size:
        return [((0, side), (0, side))]
    last = (side - tiling.size) // ALIGNMENT * ALIGNMENT
    starts = [*range(0, last, tiling.step), last]
    ends = [*(start + tiling.size for start in starts[:-1]), side]
    middles = [(start + end) // 2 for start, end in zip(starts[1:], ends, strict=False)]
    used = itertools.pairwise([0, *middles, side])
    return list(zip(zip(starts, ends, strict=True), used, strict=True))


def stitch(tiles: Sequence[ScoredTile], size: tuple[int, int]) -> Scores:
    """Return the scores of an image of which every pixel is used in one tile.

    Presence is the highest of the tiles. A class that was not explained in a tile has a map of 0 there. A class is `ok`
    where it is in any tile. There is a coarse map if all tiles have one in
    which a class was explained.

    Args:
        tiles: The scores of the tiles.
        size: (H, W) of the image.
    """
    classes = tuple(sorted({index for tile in tiles for index in tile.scores.classes}))
    maps, coarse = np.zeros((2, len(classes), *size), np.float32)
    found: dict[int, Status] = {}
    for tile in tiles:
        here, there = tile.used, (slice(*tile.used_rows), slice(*tile.used_columns))
        for row, index in enumerate(tile.scores.classes):
            plane = classes.index(index)
            maps[plane][there] = tile.scores.maps[row][here]
            if tile.scores.coarse is not None:
                coarse[plane][there] = tile.scores.coarse[row][here]
            status = tile.scores.status[row]
            found[index] = status if status == "ok" else found.get(index, status)
    return Scores(
        np.max([tile.scores.presence for tile in tiles], axis=0),
        classes,
        maps,
        tuple(found[index] for index in classes),
        None if any(tile.scores.coarse is None for tile in tiles if tile.scores.classes) else coarse,
    )
