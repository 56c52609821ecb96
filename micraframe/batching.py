"""Images that come one by one, in batches to compute on: of one size each, in order, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from micraframe.errors import ModelError
from micraframe.types import FloatArray, check_image

BATCH_PIXELS = 16 * 256 * 256
"""Pixels of the images of a batch: enough to fill the hardware, little enough to keep memory small."""


def batches(images: Iterable[FloatArray], channels: int) -> Iterator[list[FloatArray]]:
    """Yield runs of neighbouring images of one size.

    Args:
        images: Each float32 (C, H, W).
        channels: The number of channels C that a model learned from.

    Raises:
        DataError: If an image is not as it must be.
        ModelError: If it has another number of channels.
    """
    batch: list[FloatArray] = []
    for number, image in enumerate(images):
        check_image(image, f"image {number}")
        if image.shape[0] != channels:
            raise ModelError(
                f"image {number} has {image.shape[0]} channels; the model learned from images of {channels}"
            )
        full = len(batch) * image[0].size >= BATCH_PIXELS
        if batch and (full or image.shape != batch[0].shape):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch
