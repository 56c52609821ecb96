"""Composes cluttered images from single digits, as the MICRA-Net paper does with MNIST.

N digits, N drawn from a list of counts, are placed at the points of a random Poisson-disc sample and rotated; then, in
random order, the image is blurred and Poisson noise is added (Bilodeau et al. 2022, Methods, "Modified MNIST").

Any source of digits will do: `ComposedSamples` takes glyphs and their labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from micraframe.errors import DataError
from micraframe.files import digest
from micraframe.interfaces import Parameters
from micraframe.objects import bounding_boxes, centroids
from micraframe.types import SPLITS, BoolArray, FloatArray, IntArray, Sample, Split

CLASSES = tuple("0123456789")

INK = 0.5
"""A pixel belongs to a digit where the digit, before blur and noise, is brighter than this."""

LEVELS = 255
"""Grey levels from black to white; the unit of the noise."""


class Recipe(Parameters):
    """How images are composed; the defaults are the paper's."""

    size: int = Field(256, ge=16, description="Height and width of an image, in pixels.")
    counts: tuple[int | Literal["max"], ...] = Field(
        (1, 2, 3, 4, 5, 10, 15, 20, "max"),
        min_length=1,
        description="Numbers of digits, one of which is drawn for each image; max is as many as there is room for.",
    )
    radius: float = Field(25.0, ge=1, description="Least distance between the middles of two digits, in pixels.")
    digits: int = Field(28, ge=8, description="Height and width of a digit with its margin, in pixels.")
    rotation: float = Field(30.0, ge=0, le=180, description="Digits are turned by at most this, in degrees.")
    blur: float = Field(2.0, ge=0, description="Largest standard deviation of the Gaussian blur, in pixels.")
    noise: float = Field(
        math.sqrt(LEVELS) / 2, ge=0, description="Mean of the Poisson noise that is added, in grey levels of 255."
    )

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.digits > self.size:
            raise ValueError(f"digits of {self.digits} px do not fit into images of {self.size} px")
        if any(count != "max" and count < 1 for count in self.counts):
            raise ValueError(f"counts {self.counts}: a count is at least 1, or max")
        return self


@dataclass(frozen=True, eq=False)
class Digits:
    """A source of digits.

    Attributes:
        glyphs: float32 (N, h, w), in [0, 1], white on black, with a margin for turning.
        labels: int (N,): which digit it is, 0 to 9.

    Raises:
        DataError: If there are none, or the two do not fit together.
    """

    glyphs: FloatArray
    labels: npt.NDArray[np.integer]

    def __post_init__(self) -> None:
        if self.glyphs.dtype != np.float32 or self.glyphs.ndim != 3 or len(self.glyphs) == 0:
            raise DataError(f"digits: {self.glyphs.dtype} of shape {self.glyphs.shape}; float32 (N, h, w) is wanted")
        if self.labels.shape != self.glyphs.shape[:1]:
            raise DataError(f"digits: {len(self.glyphs)} glyphs and labels of shape {self.labels.shape}")
        if not (self.labels.min() >= 0 and self.labels.max() < len(CLASSES)):
            raise DataError(f"digits: labels from {self.labels.min()} to {self.labels.max()}; 0 to 9 are wanted")


def poisson_disc(extent: int, radius: float, count: int | None, rng: np.random.Generator) -> IntArray:
    """Throw points one after the other, each uniformly where it is at least `radius` from all others.

    Args:
        extent: Points are whole numbers from 0 to `extent` - 1 in both directions.
        radius: Least distance of two points.
        count: How many to throw; None throws until there is no room.
        rng: Source of chance.

    Returns:
        int32 (N, 2), where N is less than `count` only if there was no room for more.
    """
    # In a random order, whoever is not too near to an earlier one: the same as drawing from what is free.
    order = rng.permutation(extent * extent)
    free = np.ones((extent, extent), np.bool_)
    reach = math.ceil(radius) - 1
    offset = np.arange(-reach, reach + 1)
    far = offset[:, None] ** 2 + offset**2 >= radius * radius
    points: list[tuple[int, int]] = []
    while count is None or len(points) < count:
        order = _from_first(order, free)
        if not len(order):
            break
        y, x = divmod(int(order[0]), extent)
        points.append((y, x))
        top, left = max(0, y - reach), max(0, x - reach)
        near = free[top : y + reach + 1, left : x + reach + 1]
        cut_y, cut_x = top - y + reach, left - x + reach
        near &= far[cut_y : cut_y + near.shape[0], cut_x : cut_x + near.shape[1]]
    return np.array(points, np.int32).reshape(-1, 2)


def compose(digits: Digits, recipe: Recipe, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
    """Compose one image.

    Returns:
        The image, float32 (H, W) in [0, 1], and its digits, int32 (10, H, W): in each class numbered from 1, 0 is
        background.
    """
    count = recipe.counts[rng.integers(len(recipe.counts))]
    corners = poisson_disc(recipe.size - recipe.digits + 1, recipe.radius, None if count == "max" else count, rng)
    chosen = rng.integers(len(digits.glyphs), size=len(corners))
    angles = rng.uniform(-recipe.rotation, recipe.rotation, len(corners))

    image = np.zeros((recipe.size, recipe.size), np.float32)
    instances = np.zeros((len(CLASSES), recipe.size, recipe.size), np.int32)
    numbers = [0] * len(CLASSES)
    for (y, x), index, angle in zip(corners, chosen, angles, strict=True):
        glyph = _turned(digits.glyphs[index], angle, recipe.digits)
        label = int(digits.labels[index])
        numbers[label] += 1
        place = np.s_[y : y + recipe.digits, x : x + recipe.digits]
        np.maximum(image[place], glyph, out=image[place])
        instances[label][place][glyph > INK] = numbers[label]

    if rng.random() < 0.5:
        image = _noisy(_blurred(image, recipe.blur, rng), recipe.noise, rng)
    else:
        image = _blurred(_noisy(image, recipe.noise, rng), recipe.blur, rng)
    return np.clip(image, 0, 1), instances


class ComposedSamples(Sequence[Sample]):
    """The samples of one split, composed when they are asked for.

    A sample depends on the digits, the recipe, the seed, the split and its own number, and on nothing else.
    """

    def __init__(self, digits: Digits, recipe: Recipe, split: Split, count: int, seed: int, source: str) -> None:
        self._digits = digits
        self._recipe = recipe
        self._split = split
        self._count = count
        self._seed = seed
        self._source = source

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        chosen = range(self._count)[index]
        return self._sample(chosen) if isinstance(chosen, int) else [self._sample(i) for i in chosen]

    def _sample(self, index: int) -> Sample:
        rng = np.random.default_rng([self._seed, SPLITS.index(self._split), index])
        image, instances = compose(self._digits, self._recipe, rng)
        masks = instances > 0
        return Sample(
            id=f"{self._split}-{index:05d}",
            image=image[None],
            labels=np.asarray(masks.any(axis=(1, 2))),
            points=centroids(instances),
            boxes=bounding_boxes(instances),
            masks=masks,
            instances=instances,
            source=self._source,
        )


def fingerprint(digits: Sequence[Digits], recipe: Recipe, counts: Sequence[int], seed: int) -> str:
    """Return a hash of all that determines the samples: for each split its digits and how many images there are.

    One composed image is part of it, so that another version of the composer gives another hash.
    """
    image, instances = compose(digits[0], recipe, np.random.default_rng(seed))
    return digest(
        recipe.model_dump_json(include=set(Recipe.model_fields)),
        repr((tuple(counts), seed)),
        *(part.tobytes() for source in digits for part in (source.glyphs, source.labels)),
        image.tobytes(),
        instances.tobytes(),
    )


def _from_first(order: npt.NDArray[np.int64], free: BoolArray) -> npt.NDArray[np.int64]:
    """Return the order from the first position on that is free."""
    chunk = 256
    for start in range(0, len(order), chunk):
        found = free.ravel()[order[start : start + chunk]]
        if found.any():
            return order[start + int(found.argmax()) :]
    return order[:0]


def _turned(glyph: FloatArray, angle: float, size: int) -> FloatArray:
    """Turn a glyph about its middle by degrees, and bring it to (size, size)."""
    height, width = glyph.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, size / max(height, width))
    matrix[:, 2] += (size - width) / 2, (size - height) / 2
    return np.asarray(cv2.warpAffine(glyph, matrix, (size, size), flags=cv2.INTER_LINEAR), np.float32)


def _blurred(image: FloatArray, largest: float, rng: np.random.Generator) -> FloatArray:
    sigma = rng.uniform(0, largest)
    # A narrower Gaussian leaves every pixel as it is, and OpenCV takes 0 to mean "choose".
    if sigma < 0.05:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def _noisy(image: FloatArray, mean: float, rng: np.random.Generator) -> FloatArray:
    return image + (rng.poisson(mean, image.shape) / LEVELS).astype(np.float32)
