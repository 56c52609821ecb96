"""Which pixels to learn from: what each kind of annotation says of them, and a balanced choice of a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from micraframe.annotators.boxes import fill
from micraframe.errors import DataError
from micraframe.types import BoolArray, FloatArray, Sample

Indices = npt.NDArray[np.int64]


class Known(NamedTuple):
    """What an annotation says of the pixels of an image.

    Attributes:
        masks: bool (K, H, W): the pixels of each class.
        where: bool (H, W): the pixels of which it is said; of the others nothing is known.
    """

    masks: BoolArray
    where: BoolArray


class Chosen(NamedTuple):
    """Pixels of one image.

    Attributes:
        sample: Index of the sample.
        pixels: int64 (n,): indices into the flat image, ascending.
        weights: float64 (n,): how many pixels of the training images each stands for.
    """

    sample: int
    pixels: Indices
    weights: npt.NDArray[np.float64]


def known(sample: Sample, point_radius: float, background_distance: float | None) -> Known:
    """Return what a sample's strongest annotation says: masks, else objects, else boxes, else points.

    Boxes are taken for filled. A point speaks for a disc about it; of the rest nothing is known but what is farther
    from all points than an object reaches. In an image without any point there are no objects, and all is background.

    Args:
        sample: With `ignore` where only some of its pixels are annotated, as by scribbles.
        point_radius: Of the discs, in pixels.
        background_distance: Pixels farther than this from all points are background; None: points do not say.

    Raises:
        DataError: If there is no such annotation.
    """
    size = (sample.image.shape[1], sample.image.shape[2])
    where = np.ones(size, np.bool_) if sample.ignore is None else ~sample.ignore
    if sample.masks is not None:
        return Known(sample.masks, where)
    if sample.instances is not None:
        return Known(sample.instances > 0, where)
    if sample.boxes is not None:
        return Known(fill(sample.boxes, size), where)
    if sample.points is None:
        raise DataError(
            f"sample {sample.id!r} has no masks, instances, boxes or points, of which a forest learns; choose an "
            "annotator that gives them (image-level labels are not enough)"
        )
    distances = np.stack([distance(points, size) for points in sample.points])
    nearest = distances.min(axis=0)
    masks = distances <= point_radius
    far = np.isinf(nearest) if background_distance is None else nearest > background_distance
    return Known(masks, where & (masks.any(axis=0) | far))


def distance(points: FloatArray, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return each pixel's distance, (H, W), to the pixel of the nearest point (y, x); infinity where there is none."""
    nearest = np.rint(points).astype(int)
    inside = nearest[((nearest >= 0) & (nearest < size)).all(axis=1)]
    if not len(inside):
        return np.full(size, np.inf)
    elsewhere = np.ones(size, np.bool_)
    elsewhere[tuple(inside.T)] = False
    return np.asarray(ndimage.distance_transform_edt(elsewhere))


def choose(
    samples: Sequence[Sample],
    know: Callable[[Sample], Known],
    pixels: int,
    classes: Sequence[str],
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Chosen]:
    """Choose pixels at random, as many of the background and of each class as there are and the number allows.

    One pass over the samples, in memory that does not grow with their number.

    Args:
        samples: Whose pixels to choose from.
        know: What is known of the pixels of a sample.
        pixels: How many at most.
        classes: Names of the K classes.
        seed: Fixes the choice.
        progress: Told how many samples are looked through.

    Returns:
        In the order of the samples, without those of which no pixel was chosen.

    Raises:
        DataError: If no pixel is of any class, or there is a class that no pixel is known not to be of, or there are
            points and no background.
    """
    groups = len(classes) + 1  # the background, and each class
    counts = np.zeros(groups, np.int64)
    negatives = np.zeros(groups - 1, np.int64)
    points_only = False
    kept = [(np.zeros(0), np.zeros(0, np.int64)) for _ in range(groups)]
    for number, sample in enumerate(samples):
        masks, where = know(sample)
        if len(masks) != len(classes):
            raise DataError(
                f"sample {sample.id!r} is annotated for {len(masks)} classes; the dataset has {len(classes)}"
            )
        order = np.random.default_rng([seed, number]).random(where.size)
        for group, mask in enumerate([~masks.any(axis=0), *masks]):
            found = np.flatnonzero(mask & where)
            counts[group] += found.size
            keys, codes = kept[group]
            # A sample's index and a pixel's in one number.
            joined = np.concatenate([keys, order[found]]), np.concatenate([codes, number * _PIXELS + found])
            kept[group] = _lowest(*joined, pixels)
        negatives += [np.count_nonzero(where & ~mask) for mask in masks]
        points_only |= sample.masks is None and sample.instances is None and sample.boxes is None
        progress(number + 1)
    _check(counts, negatives, classes)
    if points_only and not counts[0]:
        raise DataError(
            "points say where the classes are, and nothing says where there is none: set background_distance, or add "
            "images without objects"
        )
    chosen, weights = [], []
    for (keys, codes), count, share in zip(kept, counts.tolist(), shares(counts.tolist(), pixels), strict=True):
        chosen.append(_lowest(keys, codes, share)[1])
        weights.append(np.full(share, count / max(share, 1)))
    # A pixel has one key in all its groups: it is chosen when it is in the group that is chosen most densely.
    codes, of = np.unique(np.concatenate(chosen), return_inverse=True)
    weight = np.full(len(codes), np.inf)
    np.minimum.at(weight, of, np.concatenate(weights))
    owner, pixel = np.divmod(codes, _PIXELS)
    return [Chosen(int(number), pixel[mine], weight[mine]) for number in np.unique(owner) for mine in [owner == number]]


_PIXELS = 2**40
"""More than an image has."""


def shares(counts: Sequence[int], total: int) -> list[int]:
    """Divide a total into equal shares of which none is larger than its count; what one cannot use, the others get."""
    result = [0] * len(counts)
    for done, index in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        result[index] = min(counts[index], total // (len(counts) - done))
        total -= result[index]
    return result


def _lowest(keys: npt.NDArray[np.float64], codes: Indices, count: int) -> tuple[npt.NDArray[np.float64], Indices]:
    """Return the `count` lowest keys and what they belong to: with random keys, a random choice."""
    if len(keys) <= count:
        return keys, codes
    lowest = np.argsort(keys, kind="stable")[:count]
    return keys[lowest], codes[lowest]


def _check(counts: Indices, negatives: Indices, classes: Sequence[str]) -> None:
    if not counts[1:].any():
        raise DataError(f"no pixel of the training images is known to be of a class of {', '.join(classes)}")
    for name, positive, negative in zip(classes, counts[1:], negatives, strict=True):
        if positive and not negative:
            raise DataError(
                f"all {positive} pixels of which the training images say something are of class {name!r}: what is not "
                "could not be learned; add images or strokes without it, or, for points, set background_distance"
            )
