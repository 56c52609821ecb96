"""Grouping images that come one by one into batches of one size, in order and in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from micraframe.types import FloatArray

BATCH_PIXELS = 16 * 256 * 256
"""Pixels of the images of a batch: enough to fill the hardware, little enough to keep memory small."""


def batches(images: Iterable[FloatArray]) -> Iterator[list[FloatArray]]:
    """Yield runs of consecutive images, float32 (C, H, W), of one shape."""
    batch: list[FloatArray] = []
    for image in images:
        full = len(batch) * image[0].size >= BATCH_PIXELS
        if batch and (full or image.shape != batch[0].shape):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch
