"""A dataset: images, and what is known about them."""

from __future__ import annotations

from functools import partial
from typing import final

import numpy as np
from pydantic import Field

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.image_dataset import ImageDataset, ImageDatasetParams
from micraframe.datasets.sources import SourceImage
from micraframe.types import FloatArray, IntArray


@final
class Discs(ImageDataset["Discs.Params"]):
    """Images of one class, discs: a bright disc in noise, or, in every third image, noise alone."""

    class Params(ImageDatasetParams):
        images: int = Field(20, ge=5, description="Number of images.")

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        return ("disc",)

    def sources(self) -> list[SourceImage]:
        """Return all images with their readers.

        If yours read files, name these in `files=(path,)`: a changed file is then another dataset.
        """
        numbers = range(self.params.images)
        return [SourceImage(f"disc-{number:03}", partial(image, number), partial(truth, number)) for number in numbers]

    def has_instances(self) -> bool:
        """Return that discs are numbered."""
        return True


def image(number: int) -> FloatArray:
    """Return an image, float32 (1, 64, 64)."""
    noise = np.random.default_rng([number, 0]).normal(0.2, 0.05, (1, 64, 64))
    return (noise + 0.5 * disc(number)).astype(np.float32)


def truth(number: int) -> ImageAnnotation:
    """Return what is known about an image."""
    return ImageAnnotation(instances=disc(number))


def disc(number: int) -> IntArray:
    """Return 1 in an image's disc of radius 7, which every third image lacks, and 0 around it, int32 (1, 64, 64)."""
    y, x = np.random.default_rng([number, 1]).uniform(10, 54, 2)
    rows, columns = np.mgrid[:64, :64]
    inside = np.hypot(rows - y, columns - x) < 7 * (number % 3 > 0)
    return np.array(inside[None], np.int32)
