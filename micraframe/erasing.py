"""Erasing: images from which a mask is taken out, and images into which it is pasted."""

from __future__ import annotations

import cv2
import numpy as np

from micraframe.types import BoolArray, FloatArray


def erase(image: FloatArray, donor: FloatArray, mask: BoolArray, dilation: int) -> FloatArray:
    """Return an image with a mask, dilated by a square, filled from another image: see `paste`.

    Args:
        image: float32 (C, H, W).
        donor: float32 (C, H, W).
        mask: bool (H, W).
        dilation: Pixels by which the mask is dilated.
    """
    return paste(image, donor, dilated(mask, dilation))


def dilated(mask: BoolArray, margin: int) -> BoolArray:
    """Return a mask (H, W), dilated by a square that reaches `margin` pixels in each direction."""
    square = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), square) > 0)


def paste(image: FloatArray, other: FloatArray, mask: BoolArray) -> FloatArray:
    """Return an image that shows another one within a mask, float32 (C, H, W).

    The other one is shifted channel by channel so that both have the same mean outside the mask.

    Args:
        image: float32 (C, H, W).
        other: float32 (C, H, W).
        mask: bool (H, W).
    """
    if mask.all():
        return other
    shift = (image[:, ~mask].mean(1, np.float64) - other[:, ~mask].mean(1, np.float64)).astype(np.float32)
    return np.where(mask, other + shift[:, None, None], image)


def repeated(image: FloatArray, size: tuple[int, ...]) -> FloatArray:
    """Return an image of another size (H, W), cut off or repeated at its lower and right edges, float32 (C, H, W)."""
    rows, columns = (np.arange(wanted) % side for wanted, side in zip(size, image.shape[1:], strict=True))
    return image[:, rows[:, None], columns]
