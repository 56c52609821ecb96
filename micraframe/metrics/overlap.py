"""How well masks lie over the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from micraframe.interfaces import Metric, Parameters
from micraframe.metrics.evidence import check_fit, masks_of, undefined
from micraframe.types import BoolArray, FloatArray, Prediction, Sample

NAMES = ("precision", "recall", "f1", "iou", "iou_if_present", "boundary_dice")


@final
class Overlap(Metric):
    """Precision, recall, F1, IOU and symmetric boundary dice of each class's mask.

    They are undefined, NaN, where the class is neither in the truth nor in the prediction. Where it is in one of them
    only, precision is undefined if nothing was predicted, recall if nothing is true, and the others are 0.
    `iou_if_present` is the IOU where the class is in the truth, so that it does not mix in how well its presence was
    decided. Instances count as the mask of all of them.
    """

    class Params(Parameters):
        radius: int = Field(1, ge=1, description="Of the neighbourhoods of the boundary dice, in pixels.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def measure(self, prediction: Prediction, truth: Sample) -> Mapping[str, FloatArray]:
        """Return one number per class of each; all NaN where truth or prediction have no masks.

        Raises:
            DataError: If truth and prediction are not of the same classes and size.
        """
        true, predicted = masks_of(truth), masks_of(prediction)
        if true is None or predicted is None:
            return {name: undefined(prediction) for name in NAMES}
        check_fit(true, predicted, truth.id)
        found = overlap(true, predicted, truth.ignore)
        seen = true if truth.ignore is None else true & ~truth.ignore
        found["iou_if_present"] = np.where(seen.any(axis=(1, 2)), found["iou"], np.float32(np.nan))
        found["boundary_dice"] = np.array(
            [
                boundary_dice(one, other, truth.ignore, self.params.radius)
                for one, other in zip(true, predicted, strict=True)
            ],
            np.float32,
        )
        return {name: found[name] for name in NAMES}


def overlap(truth: BoolArray, predicted: BoolArray, ignore: BoolArray | None = None) -> dict[str, FloatArray]:
    """Return `precision`, `recall`, `f1` and `iou`, each float32 (K,), of the pixels of masks.

    With TP, FP and FN pixels: precision TP / (TP + FP), recall TP / (TP + FN), F1 2 TP / (2 TP + FP + FN), and
    IOU TP / (TP + FP + FN). Each is NaN where that is 0 / 0: precision of a blank prediction, recall of a blank truth,
    F1 and IOU where both are blank.

    Args:
        truth: bool (K, H, W).
        predicted: bool (K, H, W).
        ignore: bool (H, W): pixels that do not count.
    """
    if ignore is not None:
        truth, predicted = truth & ~ignore, predicted & ~ignore
    # Class by class, which is how NumPy counts fast; most classes are blank in one of the two.
    true, claimed = (np.array([np.count_nonzero(one) for one in masks]) for masks in (truth, predicted))
    both = (true > 0) & (claimed > 0)
    hit = np.zeros_like(true)
    hit[both] = [np.count_nonzero(truth[index] & predicted[index]) for index in np.flatnonzero(both)]

    def share(of: npt.NDArray[Any]) -> FloatArray:
        return np.where(of > 0, hit / np.where(of > 0, of, 1), np.nan).astype(np.float32)

    return {
        "precision": share(claimed),
        "recall": share(true),
        "f1": share((true + claimed) / 2),
        "iou": share(true + claimed - hit),
    }


def boundary_dice(truth: BoolArray, predicted: BoolArray, ignore: BoolArray | None = None, radius: int = 1) -> float:
    """Return the symmetric boundary dice of two masks: how well they agree around their boundaries.

    With N_x the pixels at most `radius` rows and columns from x, and dT and dP the boundaries of truth T and
    prediction P, it is the mean over all x in dT and all x in dP of the Dice coefficient
    2 |T n P n N_x| / (|T n N_x| + |P n N_x|) (Yeghiazaryan and Voiculescu, Journal of Medical Imaging 5, 2018). A
    mask's boundary is its pixels with an edge neighbour outside the mask or outside the image.

    Args:
        truth: bool (H, W).
        predicted: bool (H, W).
        ignore: bool (H, W): pixels that are neither boundary nor counted.
        radius: Of the neighbourhoods, in pixels.

    Returns:
        In [0, 1]; NaN where both masks are blank.
    """
    counted = np.ones(truth.shape, bool) if ignore is None else ~ignore
    # Boundaries are found before pixels are ignored: where what counts ends is no boundary of the structure.
    edges = [mask & counted & ~ndimage.binary_erosion(mask) for mask in (truth, predicted)]
    number = sum(int(np.count_nonzero(edge)) for edge in edges)
    if not number:
        return np.nan

    def around(mask: BoolArray) -> FloatArray:
        ones = np.ones(2 * radius + 1, np.float32)  # counts: exact in float32
        rows = ndimage.correlate1d((mask & counted).astype(np.float32), ones, 0, mode="constant")
        return np.asarray(ndimage.correlate1d(rows, ones, 1, mode="constant"))

    both, total = around(truth & predicted), around(truth) + around(predicted)
    return float(sum((2 * both[edge] / total[edge]).sum(dtype=np.float64) for edge in edges) / number)
