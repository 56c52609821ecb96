"""An overview of the whole image, with the probability map and the proposals on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from micraframe.overlay import to_rgb
from micraframe.sweep.image import LargeImage
from micraframe.sweep.proposals import Proposal, colour
from micraframe.types import FloatArray

SIDE = 1600
"""Longest side of the picture in pixels."""

NUMBERED = 50
"""Number of proposals that are labelled with their rank."""


def shrink(image: LargeImage) -> tuple[FloatArray, int]:
    """Return the mean of every block of pixels, float32 (C, h, w) of at most `SIDE`, and the side of a block."""
    factor = -(-max(image.height, image.width) // SIDE)
    strip = factor * max(1, 512 // factor)
    columns = np.arange(0, image.width, factor)
    strips = []
    for top in range(0, image.height, strip):
        part = image.read(top, min(top + strip, image.height), 0, image.width)
        rows = np.arange(0, part.shape[1], factor)
        sums = np.add.reduceat(np.add.reduceat(part, rows, 1), columns, 2)
        counts = np.diff([*rows, part.shape[1]])[:, None] * np.diff([*columns, image.width])
        strips.append(sums / counts)
    return np.concatenate(strips, 1).astype(np.float32), factor


def draw(
    small: FloatArray,
    factor: int,
    probability: FloatArray,
    block: int,
    proposals: Sequence[Proposal],
    classes: Sequence[str],
) -> npt.NDArray[np.uint8]:
    """Return the image, uint8 (h, w, 3), tinted by the probability of each class, with a box around every proposal.

    Args:
        small: float32 (C, h, w): the shrunken image.
        factor: Pixels of the image per pixel of the shrunken one.
        probability: float32 (K, block rows, block columns), in [0, 1].
        block: Pixels of the image per block.
        proposals: Best first.
        classes: Names of the K classes.
    """
    canvas: npt.NDArray[Any] = to_rgb(small).astype(np.float32)
    height, width = canvas.shape[:2]
    rows = np.minimum(np.arange(height) * factor // block, probability.shape[1] - 1)
    columns = np.minimum(np.arange(width) * factor // block, probability.shape[2] - 1)
    for index, plane in enumerate(probability):
        opacity = 0.5 * plane[np.ix_(rows, columns)][..., None]
        canvas = (1 - opacity) * canvas + opacity * np.array(colour(index), np.float32)
    painted = np.ascontiguousarray(np.round(canvas).astype(np.uint8))
    for one in reversed(proposals):  # the best last, on top
        line = colour(classes.index(one.class_))
        corner = (one.x // factor, one.y // factor)
        opposite = ((one.x + one.width - 1) // factor, (one.y + one.height - 1) // factor)
        cv2.rectangle(painted, corner, opposite, line, 2)
        if one.rank <= NUMBERED:
            origin = (corner[0] + 4, corner[1] + 16)
            cv2.putText(painted, str(one.rank), origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5, line, 1, cv2.LINE_AA)
    return painted
