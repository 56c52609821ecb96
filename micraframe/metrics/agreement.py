"""How far annotators agree: what a method's agreement with one of them is to be held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from micraframe.types import BoolArray

Annotated = TypeVar("Annotated")


def one_against_all(
    annotations: Sequence[Annotated], measure: Callable[[Annotated, Annotated], float]
) -> npt.NDArray[np.float64]:
    """Return for each annotator the mean of a measure with each of the others as the truth, (N,).

    Args:
        annotations: Of N annotators, of the same image.
        measure: Of a truth and an annotation, in this order; where it is NaN, it is left out.

    Returns:
        NaN for an annotator with whom nothing could be compared.
    """
    found = np.full(len(annotations), np.nan)
    for index, one in enumerate(annotations):
        values = np.array([measure(other, one) for place, other in enumerate(annotations) if place != index])
        values = values[~np.isnan(values)]
        if values.size:
            found[index] = values.mean()
    return found


def centroid_distance(one: BoolArray, other: BoolArray) -> float:
    """Return the distance in pixels of the centres of mass of two masks (H, W); NaN if one of them is blank."""
    if not (one.any() and other.any()):
        return np.nan
    first, second = (np.array(ndimage.center_of_mass(mask)) for mask in (one, other))
    return float(np.hypot(*(first - second)))


def contour_distance(one: BoolArray, other: BoolArray, ignore: BoolArray | None = None) -> float:
    """Return the mean distance in pixels from the contour of either mask (H, W) to the other's.

    It is the mean over all pixels of both contours, each a mask's pixels with an edge neighbour outside it or outside
    the image; NaN if a mask has none.

    Args:
        one: bool (H, W).
        other: bool (H, W).
        ignore: bool (H, W): pixels that are no contour.
    """
    counted = np.True_ if ignore is None else ~ignore
    # Contours are found before pixels are ignored: where what counts ends is no contour of the structure.
    edges = [mask & counted & ~ndimage.binary_erosion(mask) for mask in (one, other)]
    if not (edges[0].any() and edges[1].any()):
        return np.nan
    away = [ndimage.distance_transform_edt(~edge) for edge in edges]
    return float(np.concatenate([away[1][edges[0]], away[0][edges[1]]]).mean())
