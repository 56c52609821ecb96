"""Composes scenes from single digits, as the MICRA-Net paper does with MNIST.

N digits, N drawn from a list of counts, are placed at the points of a random Poisson-disc sample and rotated; then, in
random order, the image is blurred and Poisson noise is added (Bilodeau et al. 2022, Methods, "Modified MNIST").

Digits can come from any source: `composed_samples` takes glyphs and their labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from micraframe.datasets.sources import LazySamples
from micraframe.errors import DataError
from micraframe.objects import bounding_boxes, centroids
from micraframe.parameters import Parameters
from micraframe.runtime.files import digest
from micraframe.types import SPLITS, BoolArray, FloatArray, IntArray, Sample, Split

CLASSES = tuple("0123456789")

INK = 0.5
"""A pixel belongs to a digit if the digit, before blur and noise, is brighter than this."""

LEVELS = 255
"""Grey levels from black to white; the unit of the noise."""


class DigitScene(Parameters):
    """How images are composed, by default as in the paper."""

    size: int = Field(256, ge=16, description="Height and width of an image in pixels.")
    counts: tuple[int | Literal["max"], ...] = Field(
        (1, 2, 3, 4, 5, 10, 15, 20, "max"),
        min_length=1,
        description="Numbers of digits, one of which is drawn for each image; max: as many as fit.",
    )
    radius: float = Field(25.0, ge=1, description="Smallest distance between the centres of two digits in pixels.")
    digits: int = Field(28, ge=8, description="Height and width of a digit with its margin in pixels.")
    rotation: float = Field(30.0, ge=0, le=180, description="Largest rotation of a digit in degrees.")
    blur: float = Field(2.0, ge=0, description="Largest standard deviation of the Gaussian blur in pixels.")
    noise: float = Field(
        math.sqrt(LEVELS) / 2, ge=0, description="Mean of the added Poisson noise in grey levels of 255."
    )

    @model_validator(mode="after")
    def _consistent(self) -> DigitScene:
        if self.digits > self.size:
            raise ValueError(f"digits of {self.digits} px do not fit into images of {self.size} px")
        if any(count != "max" and count < 1 for count in self.counts):
            raise ValueError(f"expected counts of at least 1, or max, got {self.counts}")
        return self


@dataclass(frozen=True, eq=False)
class GlyphSet:
    """Digits to compose scenes from.

    Attributes:
        glyphs: float32 (N, h, w), in [0, 1], white on black, with a margin for the rotation.
        labels: int (N,): which digit it is, 0 to 9.

    Raises:
        DataError: If there are none, or types, shapes or values are wrong.
    """

    glyphs: FloatArray
    labels: npt.NDArray[np.integer]

    def __post_init__(self) -> None:
        if self.glyphs.dtype != np.float32 or self.glyphs.ndim != 3 or len(self.glyphs) == 0:
            raise DataError(
                f"digits: expected glyphs float32 (N, h, w), got {self.glyphs.dtype} of shape {self.glyphs.shape}"
            )
        if self.labels.shape != self.glyphs.shape[:1]:
            raise DataError(f"digits: expected labels of {len(self.glyphs)} glyphs, got shape {self.labels.shape}")
        if not (self.labels.min() >= 0 and self.labels.max() < len(CLASSES)):
            raise DataError(f"digits: expected labels 0 to 9, got {self.labels.min()} to {self.labels.max()}")


def poisson_disc(extent: int, radius: float, count: int | None, rng: np.random.Generator) -> IntArray:
    """Place points one after the other, each uniformly among the places at least `radius` away from all others.

    Args:
        extent: Points are whole numbers from 0 to `extent` - 1 along both axes.
        radius: Smallest distance of two points.
        count: Number of points; None places points until there is no room.
        rng: Random generator.

    Returns:
        int32 (N, 2), where N is less than `count` only if there was no room for more.
    """
    # Taking places in random order and skipping those that are too near is the same as drawing among free places.
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


def compose(digits: GlyphSet, scene: DigitScene, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
    """Compose one image.

    Returns:
        The image, float32 (H, W) in [0, 1], and its instances, int32 (10, H, W): numbered from 1 in each class; 0 is
        background.
    """
    count = scene.counts[rng.integers(len(scene.counts))]
    corners = poisson_disc(scene.size - scene.digits + 1, scene.radius, None if count == "max" else count, rng)
    chosen = rng.integers(len(digits.glyphs), size=len(corners))
    angles = rng.uniform(-scene.rotation, scene.rotation, len(corners))

    image = np.zeros((scene.size, scene.size), np.float32)
    instances = np.zeros((len(CLASSES), scene.size, scene.size), np.int32)
    numbers = [0] * len(CLASSES)
    for (y, x), index, angle in zip(corners, chosen, angles, strict=True):
        glyph = _rotated(digits.glyphs[index], angle, scene.digits)
        label = int(digits.labels[index])
        numbers[label] += 1
        place = np.s_[y : y + scene.digits, x : x + scene.digits]
        np.maximum(image[place], glyph, out=image[place])
        instances[label][place][glyph > INK] = numbers[label]

    if rng.random() < 0.5:
        image = _noisy(_blurred(image, scene.blur, rng), scene.noise, rng)
    else:
        image = _blurred(_noisy(image, scene.noise, rng), scene.blur, rng)
    return np.clip(image, 0, 1), instances


def composed_samples(
    digits: GlyphSet, scene: DigitScene, split: Split, count: int, seed: int, source: str
) -> LazySamples[int]:
    """Return `count` samples of a split, each composed on access.

    A sample depends on the digits, the scene, the seed, the split and its own number, and on nothing else.
    """

    def make(index: int) -> Sample:
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        image, instances = compose(digits, scene, rng)
        masks = instances > 0
        return Sample(
            id=f"{split}-{index:05d}",
            image=image[None],
            labels=np.asarray(masks.any(axis=(1, 2))),
            points=centroids(instances),
            boxes=bounding_boxes(instances),
            masks=masks,
            instances=instances,
            source=source,
        )

    return LazySamples(range(count), make)


def fingerprint(digits: Sequence[GlyphSet], scene: DigitScene, counts: Sequence[int], seed: int) -> str:
    """Return a hash of everything that determines the samples: scene, seed, digits and number of images of each split.

    It includes one composed image, so that a changed composer gives another hash.
    """
    image, instances = compose(digits[0], scene, np.random.default_rng(seed))
    return digest(
        scene.model_dump_json(include=set(DigitScene.model_fields)),
        repr((tuple(counts), seed)),
        *(part.tobytes() for source in digits for part in (source.glyphs, source.labels)),
        image.tobytes(),
        instances.tobytes(),
    )


def _from_first(order: npt.NDArray[np.int64], free: BoolArray) -> npt.NDArray[np.int64]:
    """Return the rest of the order, from its first free position on."""
    chunk = 256
    for start in range(0, len(order), chunk):
        found = free.ravel()[order[start : start + chunk]]
        if found.any():
            return order[start + int(found.argmax()) :]
    return order[:0]


def _rotated(glyph: FloatArray, angle: float, size: int) -> FloatArray:
    """Rotate a glyph about its centre by an angle in degrees, and resize it to (size, size)."""
    height, width = glyph.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, size / max(height, width))
    matrix[:, 2] += (size - width) / 2, (size - height) / 2
    return np.asarray(cv2.warpAffine(glyph, matrix, (size, size), flags=cv2.INTER_LINEAR), np.float32)


def _blurred(image: FloatArray, largest: float, rng: np.random.Generator) -> FloatArray:
    sigma = rng.uniform(0, largest)
    # A narrower Gaussian leaves every pixel as it is, and OpenCV chooses a width by itself when given 0.
    if sigma < 0.05:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def _noisy(image: FloatArray, mean: float, rng: np.random.Generator) -> FloatArray:
    return image + (rng.poisson(mean, image.shape) / LEVELS).astype(np.float32)
