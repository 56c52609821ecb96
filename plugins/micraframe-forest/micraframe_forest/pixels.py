"""Training pixels: which pixels each kind of annotation covers, and a balanced choice among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from micraframe.errors import DataError
from micraframe.objects import fill
from micraframe.types import BoolArray, FloatArray, Sample

Indices = npt.NDArray[np.int64]


class AnnotatedPixels(NamedTuple):
    """The annotation of an image, per pixel.

    Attributes:
        masks: bool (K, H, W): the pixels of each class.
        where: bool (H, W): the annotated pixels; the others are unknown.
    """

    masks: BoolArray
    where: BoolArray


class ChosenPixels(NamedTuple):
    """Training pixels of one image.

    Attributes:
        sample: Index of the sample.
        pixels: int64 (n,): indices into the flat image, ascending.
        weights: float64 (n,): number of annotated pixels that each stands for.
    """

    sample: int
    pixels: Indices
    weights: npt.NDArray[np.float64]


def annotated_pixels(sample: Sample, point_radius: float, background_distance: float | None) -> AnnotatedPixels:
    """Return the pixels of a sample's strongest annotation: masks, else instances, else boxes, else points.

    Boxes are filled. A point annotates the disc around it, and, with `background_distance`, the pixels far from all
    points are background; the rest is unknown. An image without any point is all background.

    Args:
        sample: Has `ignore` if only some of its pixels are annotated, as with scribbles.
        point_radius: Radius of the discs, in pixels.
        background_distance: Pixels farther than this from all points are background; None if points carry no
            information about the background.
    """
    size = (sample.image.shape[1], sample.image.shape[2])
    where = sample.counted
    if sample.masks is not None:
        return AnnotatedPixels(sample.masks, where)
    if sample.instances is not None:
        return AnnotatedPixels(sample.instances > 0, where)
    if sample.boxes is not None:
        return AnnotatedPixels(fill(sample.boxes, size), where)
    assert sample.points is not None
    distances = np.stack([distance(points, size) for points in sample.points])
    nearest = distances.min(axis=0)
    masks = distances <= point_radius
    far = np.isinf(nearest) if background_distance is None else nearest > background_distance
    return AnnotatedPixels(masks, where & (masks.any(axis=0) | far))


def distance(points: FloatArray, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return each pixel's distance, (H, W), to the pixel of the nearest point (y, x); infinity without points."""
    nearest = np.rint(points).astype(int)
    inside = nearest[((nearest >= 0) & (nearest < size)).all(axis=1)]
    if not len(inside):
        return np.full(size, np.inf)
    elsewhere = np.ones(size, np.bool_)
    elsewhere[tuple(inside.T)] = False
    return np.asarray(ndimage.distance_transform_edt(elsewhere))


def choose(
    samples: Sequence[Sample],
    annotated: Callable[[Sample], AnnotatedPixels],
    pixels: int,
    classes: Sequence[str],
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[ChosenPixels]:
    """Choose annotated pixels at random, shared as equally as possible between the background and the classes.

    It takes one pass over the samples, in memory that does not grow with their number.

    Args:
        samples: Training samples.
        annotated: Returns the annotated pixels of a sample.
        pixels: Maximum number of pixels.
        classes: Names of the K classes.
        seed: Determines the choice.
        progress: Called with the number of samples read so far.

    Returns:
        Pixels in the order of the samples; samples without a chosen pixel are left out.

    Raises:
        DataError: If no pixel belongs to any class, a class has no pixel without it, or there are points and no
            background.
    """
    groups = len(classes) + 1  # the background, and each class
    counts = np.zeros(groups, np.int64)
    negatives = np.zeros(groups - 1, np.int64)
    points_only = False
    kept = [(np.zeros(0), np.zeros(0, np.int64)) for _ in range(groups)]
    for number, sample in enumerate(samples):
        masks, where = annotated(sample)
        order = np.random.default_rng([seed, number]).random(where.size)
        for group, mask in enumerate([~masks.any(axis=0), *masks]):
            found = np.flatnonzero(mask & where)
            counts[group] += found.size
            keys, codes = kept[group]
            # A sample's and a pixel's index in one number.
            joined = np.concatenate([keys, order[found]]), np.concatenate([codes, number * _PIXELS + found])
            kept[group] = _lowest(*joined, pixels)
        negatives += [np.count_nonzero(where & ~mask) for mask in masks]
        points_only |= sample.masks is None and sample.instances is None and sample.boxes is None
        progress(number + 1)
    _check(counts, negatives, classes)
    if points_only and not counts[0]:
        raise DataError(
            "expected annotated background, got only points, which mark the classes; set background_distance, add "
            "images without objects, or choose another annotator, such as `annotator: full`"
        )
    chosen, weights = [], []
    for (keys, codes), count, share in zip(kept, counts.tolist(), shares(counts.tolist(), pixels), strict=True):
        chosen.append(_lowest(keys, codes, share)[1])
        weights.append(np.full(share, count / max(share, 1)))
    # A pixel has the same key in all its groups, so the group that is sampled most densely decides.
    codes, of = np.unique(np.concatenate(chosen), return_inverse=True)
    weight = np.full(len(codes), np.inf)
    np.minimum.at(weight, of, np.concatenate(weights))
    owner, pixel = np.divmod(codes, _PIXELS)
    return [
        ChosenPixels(int(number), pixel[mine], weight[mine])
        for number in np.unique(owner)
        for mine in [owner == number]
    ]


_PIXELS = 2**40
"""More pixels than an image has."""


def shares(counts: Sequence[int], total: int) -> list[int]:
    """Divide a total into equal shares, none larger than its count; any remainder goes to the others."""
    result = [0] * len(counts)
    for done, index in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        result[index] = min(counts[index], total // (len(counts) - done))
        total -= result[index]
    return result


def _lowest(keys: npt.NDArray[np.float64], codes: Indices, count: int) -> tuple[npt.NDArray[np.float64], Indices]:
    """Return the `count` lowest keys and their codes: with random keys, a random choice."""
    if len(keys) <= count:
        return keys, codes
    lowest = np.argsort(keys, kind="stable")[:count]
    return keys[lowest], codes[lowest]


def _check(counts: Indices, negatives: Indices, classes: Sequence[str]) -> None:
    if not counts[1:].any():
        raise DataError(
            f"expected annotated pixels of {', '.join(classes)}, got none in the training images; add images, or "
            "choose another annotator, such as `annotator: full`"
        )
    for name, positive, negative in zip(classes, counts[1:], negatives, strict=True):
        if positive and not negative:
            raise DataError(
                f"class {name!r}: expected annotated pixels outside the class, but all {positive} are inside; add "
                "images or strokes without it, set background_distance (points), or choose another annotator, such as "
                "`annotator: full`"
            )
