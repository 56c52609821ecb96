"""Images that come one by one, in order and in constant memory: in batches of one size, and with their results.

And a few of many samples, where not all are needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from micraframe.errors import InterfaceError, counted
from micraframe.types import FloatArray

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_PIXELS = 16 * 256 * 256
"""Pixels of the images of a batch: enough to fill the hardware, little enough to keep memory small."""


def with_images(
    images: Iterable[FloatArray], compute: Callable[[Iterator[FloatArray]], Iterator[Result]], name: str
) -> Iterator[tuple[FloatArray, Result]]:
    """Yield each image with its result, for a computation that yields results in order and reads ahead as it likes.

    Args:
        images: The images.
        compute: Yields a result for each image that it reads.
        name: What computes, for error messages.

    Raises:
        InterfaceError: If it yields more results than it has read images, or fewer.
    """
    waiting: deque[FloatArray] = deque()

    def seen() -> Iterator[FloatArray]:
        for image in images:
            waiting.append(image)
            yield image

    for result in compute(seen()):
        if not waiting:
            raise InterfaceError(f"{name}: expected one result for each image, got more")
        yield waiting.popleft(), result
    if waiting:
        raise InterfaceError(
            f"{name}: expected results for all images, got none for the last {counted(len(waiting), 'image')} that it "
            "read"
        )


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


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many of the items, the first one among them, at equal distances."""
    count = min(len(items), most)
    return [items[number * len(items) // count] for number in range(count)]
