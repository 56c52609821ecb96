"""Cuts images into crops, and decides which classes a crop contains."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.errors import DataError
from micraframe.objects import bounding_boxes, centroids
from micraframe.runtime.files import digest
from micraframe.types import BoolArray, FloatArray, ImagePart, IntArray, Sample

POSITIVE, NEGATIVE, AMBIGUOUS = 1, 0, -1
"""The answers of `judge_windows`: enough of the class, none of it, or some but not enough."""

Crop = TypeVar("Crop")
Amounts = npt.NDArray[Any]
PositiveRule = Literal["share", "object", "visible"]

Handling = Literal["drop", "positive", "negative"]
"""How an ambiguous image or crop is treated."""


class Window(NamedTuple):
    """A part of an image: its first row and column, height and width."""

    y: int
    x: int
    height: int
    width: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns: `array[..., *window.place]` cuts it out."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


@dataclass(frozen=True)
class Cropping:
    """How an image becomes samples.

    Attributes:
        size: Height and width of a crop in pixels; None keeps images whole.
        stride: Distance from one crop to the next, at most `size`; None places crops side by side.
        most: Largest number of crops of one image, chosen at random; None keeps all.
        seed: Determines that choice, together with the image's name.
    """

    size: int | None = None
    stride: int | None = None
    most: int | None = None
    seed: int = 0

    def windows(self, size: tuple[int, int]) -> list[Window]:
        """Return the windows of an image (H, W)."""
        return grid(size, self.size, self.stride or self.size) if self.size else [Window(0, 0, *size)]

    def choose(self, crops: Sequence[Crop], name: str) -> list[Crop]:
        """Return the crops of an image to keep, in order; the choice does not depend on other images."""
        if not self.most or self.most >= len(crops):
            return list(crops)
        rng = np.random.default_rng([self.seed, int(digest(name)[:15], 16)])
        return [crops[index] for index in sorted(rng.choice(len(crops), self.most, replace=False))]


@dataclass(frozen=True)
class LabelRule:
    """When a class counts as present in an image or a crop.

    Attributes:
        kind: The amount that is compared with `least`. `share`: the annotated fraction of the crop's pixels; `object`:
            the annotated area in pixels; `visible`: the largest fraction of any one object that lies inside the crop.
        least: The smallest sufficient value: one number, or one per class. An amount of 0 never suffices.
    """

    kind: PositiveRule = "share"
    least: float | tuple[float, ...] = 0.0


def field_of(crop: str) -> str:
    """Return the name of the image that a crop was cut from, or nothing if the name is not one of a crop.

    Args:
        crop: Name without suffix, `NAME@yYxX` for a crop whose upper left pixel is (Y, X).
    """
    match = re.fullmatch(r"(.+)@y\d+x\d+", crop, re.DOTALL)
    return match[1] if match else ""


def grid(size: tuple[int, int], crop: int, stride: int) -> list[Window]:
    """Cover an image with square crops, row by row.

    The last row and column of crops are moved inwards, so that the crops cover every pixel and none lies outside the
    image. If an image is smaller than a crop, the crop has the height or width of the image.

    Args:
        size: (H, W) of the image.
        crop: Height and width of a crop.
        stride: Distance from one crop to the next, at most `crop`.
    """
    height, width = (min(crop, length) for length in size)
    rows, columns = (
        [*range(0, length - edge, stride), length - edge] for length, edge in zip(size, (height, width), strict=True)
    )
    return [Window(y, x, height, width) for y in rows for x in columns]


def judge_windows(
    annotation: ImageAnnotation, size: tuple[int, int], windows: Sequence[Window], rule: LabelRule
) -> npt.NDArray[np.int8]:
    """Decide for each window and class whether the window contains the class.

    Args:
        annotation: The whole image's annotation. Masks are used if there are any, else boxes, else points.
        size: (H, W) of the image.
        windows: The N windows.
        rule: When a class counts as present.

    Returns:
        int8 (N, K): `NEGATIVE`, `POSITIVE` or `AMBIGUOUS`.

    Raises:
        DataError: If the rule is about areas but there are only points.
    """
    measure = _visible_fractions(annotation) if rule.kind == "visible" else _areas(annotation, size, rule)
    amount = np.array([measure(window) for window in windows])
    pixels = np.array([[window.height * window.width] for window in windows])
    least = np.asarray(rule.least) * (pixels if rule.kind == "share" else 1)
    return np.where(amount == 0, NEGATIVE, np.where(amount >= least, POSITIVE, AMBIGUOUS)).astype(np.int8)


def resolve_ambiguous(answers: npt.NDArray[np.int8], handling: Handling) -> BoolArray | None:
    """Return labels, bool (K,), from one window's answers (K,); None if an ambiguous window is to be dropped."""
    ambiguous = answers == AMBIGUOUS
    if ambiguous.any() and handling == "drop":
        return None
    return np.asarray((answers == POSITIVE) | (ambiguous & (handling == "positive")))


def crop_boxes(boxes: FloatArray, window: Window) -> FloatArray:
    """Return the boxes (y0, x0, y1, x1), float32 (N, 4), in a window's coordinates.

    A box is clipped to the window; one that lies outside it is dropped.
    """
    clipped, inside = _clipped(boxes, window)
    return clipped[inside]


def _clipped(boxes: FloatArray, window: Window) -> tuple[FloatArray, BoolArray]:
    """Return boxes (N, 4), clipped and in a window's coordinates, and which of them have pixels there, (N,)."""
    corner = np.array([window.y, window.x, window.y, window.x], np.float32)
    end = np.array([window.height, window.width] * 2, np.float32)
    clipped = np.clip(boxes - corner, 0, end)
    return clipped, np.asarray((clipped[:, 2:] > clipped[:, :2]).all(axis=1))


def crop_points(points: FloatArray, window: Window) -> FloatArray:
    """Return the points (y, x), float32 (N, 2), in a window's coordinates; those outside its pixels are dropped."""
    moved = points - np.array([window.y, window.x], np.float32)
    return moved[((moved >= -0.5) & (moved < np.array([window.height, window.width]) - 0.5)).all(axis=1)]


def crop_sample(sample: Sample, window: Window, objects: IntArray | None = None) -> Sample:
    """Return a part of a sample, without labels; it shares no memory with the whole.

    Arrays are cut, boxes clipped, and boxes and points outside the window dropped. Its id says where it was cut.

    Args:
        sample: The whole image.
        window: The window to cut out.
        objects: Numbered objects of the whole image, int32 (K, H, W); the part records which of them it shows. Where
            only boxes are known, it records which of these.
    """
    place = (..., *window.place)
    shown: Iterable[npt.NDArray[np.integer]] = ()
    if objects is not None:
        shown = (np.unique(labels[labels > 0]) for labels in objects[place])
    elif sample.boxes is not None and sample.masks is None and sample.instances is None:
        shown = (np.flatnonzero(_clipped(part, window)[1]) for part in sample.boxes)
    return dataclasses.replace(
        sample,
        id=f"{sample.id}@y{window.y}x{window.x}",
        image=sample.image[place].copy(),
        labels=None,
        masks=None if sample.masks is None else sample.masks[place].copy(),
        instances=None if sample.instances is None else sample.instances[place].copy(),
        ignore=None if sample.ignore is None else sample.ignore[place].copy(),
        boxes=None if sample.boxes is None else tuple(crop_boxes(part, window) for part in sample.boxes),
        points=None if sample.points is None else tuple(crop_points(part, window) for part in sample.points),
        part=ImagePart(
            sample.id, frozenset((index, number) for index, several in enumerate(shown) for number in several.tolist())
        ),
    )


def with_objects(sample: Sample) -> Sample:
    """Return the sample with points and boxes derived from its instances, if it has instances and lacks either."""
    if sample.instances is None:
        return sample
    return dataclasses.replace(
        sample,
        points=centroids(sample.instances) if sample.points is None else sample.points,
        boxes=bounding_boxes(sample.instances) if sample.boxes is None else sample.boxes,
    )


def _areas(annotation: ImageAnnotation, size: tuple[int, int], rule: LabelRule) -> Callable[[Window], Amounts]:
    """Return a function from a window to the annotated area of each class, (K,), in pixels."""
    if annotation.points_only and rule != LabelRule():
        raise DataError("points have no area: use positive_rule: visible, or positive_rule: share with share: 0")
    covered = annotation.coverage(size)
    return lambda window: np.count_nonzero(covered[..., *window.place], axis=(1, 2))


def _visible_fractions(annotation: ImageAnnotation) -> Callable[[Window], Amounts]:
    """Return a function from a window to the largest fraction, per class, of one object inside it; a point counts 1."""
    if annotation.masks is not None:
        numbered = annotation.numbered()
        totals = [np.bincount(labels.ravel())[1:] for labels in numbered]
        return lambda window: np.array(
            [_largest_part(*pair, window) for pair in zip(numbered, totals, strict=True)], np.float64
        )
    if annotation.boxes is not None:
        boxes = annotation.boxes
        return lambda window: np.array([_inside(part, window).max(initial=0.0) for part in boxes], np.float64)
    points = annotation.points or ()
    return lambda window: np.array([len(crop_points(part, window)) > 0 for part in points], np.float64)


def _largest_part(labels: IntArray, total: Amounts, window: Window) -> float:
    inside = np.bincount(labels[window.place].ravel(), minlength=len(total) + 1)[1:]
    return float((inside / np.maximum(total, 1)).max(initial=0.0))


def _inside(boxes: FloatArray, window: Window) -> Amounts:
    """Return the fraction of each box that lies inside the window, (N,)."""
    corner, end = np.array([window.y, window.x]), np.array([window.y + window.height, window.x + window.width])
    sides = np.clip(boxes[:, 2:], corner, end) - np.clip(boxes[:, :2], corner, end)
    return np.asarray(np.prod(sides, axis=1) / np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
