"""Agreement between annotators: the reference for a method's agreement with one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from micraframe.metrics.masks_and_labels import boundary
from micraframe.metrics.reduction import means_defined
from micraframe.types import BoolArray

Annotated = TypeVar("Annotated")


def one_against_all(
    annotations: Sequence[Annotated], measure: Callable[[Annotated, Annotated], npt.ArrayLike]
) -> npt.NDArray[np.float64]:
    """Return for each annotator the mean of a measure with each of the others as the truth, (N, ...).

    Args:
        annotations: Annotations of the same image by N annotators.
        measure: Takes a truth and an annotation, in this order, and returns a number or an array. NaN is left out of
            the mean.

    Returns:
        NaN for an annotator without a defined comparison.
    """
    found = []
    for index, one in enumerate(annotations):
        others = (other for place, other in enumerate(annotations) if place != index)
        found.append(means_defined(np.array([measure(other, one) for other in others], np.float64).T).T)
    return np.array(found)


def centroid_distance(one: BoolArray, other: BoolArray) -> float:
    """Return the distance in pixels between the centres of mass of two masks (H, W); NaN if either is blank."""
    if not (one.any() and other.any()):
        return np.nan
    first, second = (np.array(ndimage.center_of_mass(mask)) for mask in (one, other))
    return float(np.hypot(*(first - second)))


def contour_distance(one: BoolArray, other: BoolArray, ignore: BoolArray | None = None) -> float:
    """Return the mean distance in pixels from the contour of either mask (H, W) to the other's.

    It is the mean over all pixels of both contours, as `boundary` returns them. NaN if a mask has none.

    Args:
        one: bool (H, W).
        other: bool (H, W).
        ignore: bool (H, W): pixels that are not part of a contour.
    """
    counted = np.True_ if ignore is None else ~ignore
    # Contours are found before pixels are ignored: the border of the ignored region is not a contour of the structure.
    edges = [boundary(mask) & counted for mask in (one, other)]
    if not (edges[0].any() and edges[1].any()):
        return np.nan
    away = [ndimage.distance_transform_edt(~edge) for edge in edges]
    return float(np.concatenate([away[1][edges[0]], away[0][edges[1]]]).mean())
