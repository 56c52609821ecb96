"""Masks drawn over images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from micraframe.objects import edges
from micraframe.types import BoolArray, FloatArray, IntArray

COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (136, 34, 85),
    (221, 221, 221),
    (153, 153, 51),
)
"""Okabe and Ito's colours and three of Tol's, which differ for colour-blind readers too; more classes repeat them."""

_OPACITY = 0.35
"""Of the tint of masks; outlines are opaque."""


def to_rgb(image: FloatArray) -> npt.NDArray[np.uint8]:
    """Return an image for display.

    Args:
        image: float32 (C, H, W). One channel is shown in grey, three as red, green and blue, other numbers as their
            mean.

    Returns:
        uint8 (H, W, 3): the 0.5th to the 99.5th percentile, scaled to 0 to 255.
    """
    shown = image if image.shape[0] in (1, 3) else image.mean(0, keepdims=True)
    low, high = np.percentile(shown, (0.5, 99.5))
    scaled = np.clip((shown - low) / (high - low), 0, 1) if high > low else np.zeros_like(shown)
    rgb = np.broadcast_to(scaled, (3, *scaled.shape[1:])).transpose(1, 2, 0)
    return np.round(rgb * 255).astype(np.uint8)


def overlay(image: FloatArray, masks: BoolArray, objects: IntArray | None = None) -> npt.NDArray[np.uint8]:
    """Return the image with each class's mask tinted and outlined in the class's colour.

    Args:
        image: float32 (C, H, W).
        masks: bool (K, H, W).
        objects: int32 (K, H, W), numbered objects in the masks: each is outlined, also where two touch.

    Returns:
        uint8 (H, W, 3).
    """
    canvas: npt.NDArray[Any] = to_rgb(image).astype(np.float32)
    for index, mask in enumerate(masks):
        if not mask.any():
            continue
        colour = np.array(COLOURS[index % len(COLOURS)], np.float32)
        canvas[mask] = (1 - _OPACITY) * canvas[mask] + _OPACITY * colour
        numbered = mask.astype(np.int32) if objects is None else mask + objects[index]
        # What lies around the image is background: a mask that reaches the border has an outline there.
        canvas[mask & edges(np.pad(numbered, 1)[None])[0, 1:-1, 1:-1]] = colour
    return np.round(canvas).astype(np.uint8)


TRUE, PREDICTED = (255, 255, 255), (240, 228, 66)
FALSE_POSITIVE, FALSE_NEGATIVE = (213, 94, 0), (86, 180, 233)
"""Colours of `contours`: of the true and the predicted outline, and of the pixels that are wrong."""


def contours(predicted: BoolArray | None, truth: BoolArray | None) -> npt.NDArray[np.uint8]:
    """Return the outlines of masks, and their errors hatched, on a transparent ground: to lie over the raw image.

    Args:
        predicted: bool (K, H, W); None: nothing was predicted that could be wrong.
        truth: bool (K, H, W); None where it is unknown.

    Returns:
        uint8 (H, W, 4). Of several classes, all outlines are drawn, and a pixel is wrong if it is wrong for any class.
    """
    known = [masks for masks in (predicted, truth) if masks is not None]
    height, width = known[0].shape[1:]
    canvas = np.zeros((height, width, 4), np.uint8)
    y, x = np.indices((height, width))
    if predicted is not None and truth is not None:
        for wrong, colour, stripe in (
            ((predicted & ~truth).any(axis=0), FALSE_POSITIVE, x + y),
            ((truth & ~predicted).any(axis=0), FALSE_NEGATIVE, x - y),
        ):
            canvas[wrong & (stripe % 6 < 2)] = (*colour, 255)
    for masks, colour in ((truth, TRUE), (predicted, PREDICTED)):
        outline = np.zeros((height, width), np.bool_)
        for mask in masks if masks is not None else ():
            outline |= mask & ~ndimage.binary_erosion(mask, iterations=2)
        # A dark rim keeps the outline visible on bright images.
        canvas[ndimage.binary_dilation(outline) & ~outline & (canvas[..., 3] == 0)] = (0, 0, 0, 150)
        canvas[outline] = (*colour, 255)
    return canvas
