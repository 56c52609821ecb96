"""Training targets: for each pixel and class, present, absent or unknown, from a sample's annotation."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe.errors import DataError
from micraframe.objects import fill
from micraframe.types import FloatArray, Sample

ABSENT: Final = 0
PRESENT: Final = 1
UNKNOWN: Final = 2

TargetArray = npt.NDArray[np.uint8]
"""(K, H, W) of `ABSENT`, `PRESENT` and `UNKNOWN`. Each class has a plane of its own, so classes may overlap."""


class Counts(NamedTuple):
    """Numbers of annotated pixels in the training samples, int64 (K,) each."""

    absent: npt.NDArray[np.int64]
    present: npt.NDArray[np.int64]


def pixel_targets(sample: Sample, point_radius: float, background_distance: float | None) -> TargetArray:
    """Return the targets of a sample, from its strongest annotation.

    Masks (outlines, polygons and scribbles included) annotate every pixel; so do boxes, which are filled. A point
    annotates the pixels within `point_radius`, and, with `background_distance`, those far from all points; the rest is
    unknown. A class without a point is absent from the image. Ignored pixels are always unknown.

    Args:
        sample: A sample with masks, boxes or points.
        point_radius: Radius of the discs in pixels.
        background_distance: A class is absent from pixels that are farther than this from all of its points, in
            pixels; None if points carry no information about the background.
    """
    size = (sample.image.shape[1], sample.image.shape[2])
    if sample.masks is not None:
        targets = sample.masks.astype(np.uint8)
    elif sample.boxes is not None:
        targets = fill(sample.boxes, size).astype(np.uint8)
    else:
        assert sample.points is not None
        targets = np.stack([discs(points, size, point_radius, background_distance) for points in sample.points])
    if sample.ignore is not None:
        targets[:, sample.ignore] = UNKNOWN
    return targets


def discs(points: FloatArray, size: tuple[int, int], radius: float, background_distance: float | None) -> TargetArray:
    """Return targets from the points of one class, uint8 (H, W): a disc around each point is present.

    Args:
        points: float32 (N, 2): (y, x).
        size: (H, W).
        radius: Radius of the discs in pixels; at least 1, so that the disc of a point between pixels is not empty.
        background_distance: See `pixel_targets`.
    """
    if not len(points):
        return np.full(size, ABSENT, np.uint8)
    rows, columns = np.ogrid[: size[0], : size[1]]
    nearest = np.full(size, np.inf)
    for y, x in points.astype(float):
        np.minimum(nearest, (rows - y) ** 2 + (columns - x) ** 2, out=nearest)
    targets = np.full(size, UNKNOWN, np.uint8)
    if background_distance is not None:
        targets[nearest > background_distance**2] = ABSENT
    targets[nearest <= radius**2] = PRESENT
    return targets


def count(targets: TargetArray) -> Counts:
    """Return the numbers of absent and present pixels of a sample (K, H, W)."""
    return Counts(*(np.count_nonzero(targets == value, axis=(1, 2)) for value in (ABSENT, PRESENT)))


def check_counts(counts: Counts, names: tuple[str, ...]) -> None:
    """Raise `DataError` unless every class has pixels that show where it is absent."""
    for name, absent, present in zip(names, *counts, strict=True):
        if not absent and not present:
            raise DataError(
                f"class {name!r}: expected annotated pixels, got none in the training samples; choose another "
                "annotator, such as `annotator: full`"
            )
        if not absent:
            raise DataError(
                f"class {name!r}: expected annotated pixels outside the class, but all {present} are inside; add "
                "images or strokes without it, set background_distance (points), or choose another annotator, such as "
                "`annotator: full`"
            )


def log_odds(counts: Counts, weights: FloatArray) -> FloatArray:
    """Return the constant logits, float32 (K,), with the lowest loss over all pixels: log(w present / absent).

    Args:
        counts: Counts of the training samples. Half a pixel is added to each, so that the odds are finite.
        weights: (K,): w, the weights of present pixels.
    """
    odds: FloatArray = np.log(weights * (counts.present + 0.5) / (counts.absent + 0.5)).astype(np.float32)
    return odds
