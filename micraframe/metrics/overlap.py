"""How well masks overlap the truth."""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from micraframe.interfaces import Column, Metric, Statistics, quotient
from micraframe.metrics.masks_and_labels import boundary, check_same_shape, masks_of, undefined
from micraframe.parameters import Parameters
from micraframe.types import BoolArray, FloatArray, Prediction, Sample

_BLANK = "0 where one mask is blank, undefined where both are"
COLUMNS: Final = (
    Column(
        "precision",
        "the share of the predicted mask's pixels that are in the true mask, TP / (TP + FP); undefined where the "
        "predicted mask is blank",
    ),
    Column(
        "recall",
        "the share of the true mask's pixels that are in the predicted mask, TP / (TP + FN); undefined where the true "
        "mask is blank",
    ),
    Column("f1", f"F1 or Dice coefficient of the masks' pixels, 2 TP / (2 TP + FP + FN); {_BLANK}"),
    Column("iou", f"intersection over union of the masks, TP / (TP + FP + FN) in pixels; {_BLANK}"),
    Column("iou_if_present", "the IoU over the images that contain the class"),
    Column(
        "boundary_dice",
        f"the symmetric boundary Dice coefficient of the masks, the image's edge being no boundary; {_BLANK}",
    ),
)


@final
class OverlapMetric(Metric["OverlapMetric.Params"]):
    """Precision, recall, F1, IoU and symmetric boundary Dice of each class's mask.

    All are undefined if the class is neither in the truth nor in the prediction. `iou_if_present` is the IoU over the
    images that contain the class, unaffected by how well other images are recognised. Instances count as their union.
    """

    class Params(Parameters):
        radius: int = Field(1, ge=1, description="Radius of the boundary Dice's neighbourhoods in pixels.")

    def columns(self) -> tuple[Column, ...]:
        """Return the columns for each class's mask."""
        return COLUMNS

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return the numbers of one image; all NaN if truth or prediction has no masks."""
        true, predicted = masks_of(truth), masks_of(prediction)
        if true is None or predicted is None:
            return undefined((column.name for column in COLUMNS), prediction)
        check_same_shape(true, predicted, truth.id)
        found = overlap(true, predicted, truth.ignore)
        present = (true & truth.counted).any(axis=(1, 2))
        found["iou_if_present"] = np.where(present, found["iou"], np.float32(np.nan))
        found["boundary_dice"] = np.array(
            [
                boundary_dice(one, other, truth.ignore, self.params.radius)
                for one, other in zip(true, predicted, strict=True)
            ],
            np.float32,
        )
        return found


def overlap(truth: BoolArray, predicted: BoolArray, ignore: BoolArray | None = None) -> dict[str, FloatArray]:
    """Return `precision`, `recall`, `f1` and `iou`, each float32 (K,), of the pixels of masks.

    With TP, FP and FN the pixels that are in both masks, only in the predicted or only in the true one: precision
    TP / (TP + FP), recall TP / (TP + FN), F1 2 TP / (2 TP + FP + FN), and IoU TP / (TP + FP + FN). Each is NaN if it
    is 0 / 0: precision of a blank prediction, recall of a blank truth, F1 and IoU of two blank masks.

    Args:
        truth: bool (K, H, W).
        predicted: bool (K, H, W).
        ignore: bool (H, W): pixels that do not count.
    """
    if ignore is not None:
        truth, predicted = truth & ~ignore, predicted & ~ignore
    # Class by class, which NumPy counts faster; most classes are blank in one of the two.
    true, claimed = (np.array([np.count_nonzero(one) for one in masks]) for masks in (truth, predicted))
    both = (true > 0) & (claimed > 0)
    hit = np.zeros_like(true)
    hit[both] = [np.count_nonzero(truth[index] & predicted[index]) for index in np.flatnonzero(both)]

    def share(of: npt.NDArray[Any]) -> FloatArray:
        return quotient(hit, of).astype(np.float32)

    return {
        "precision": share(claimed),
        "recall": share(true),
        "f1": share((true + claimed) / 2),
        "iou": share(true + claimed - hit),
    }


def boundary_dice(truth: BoolArray, predicted: BoolArray, ignore: BoolArray | None = None, radius: int = 1) -> float:
    """Return the symmetric boundary Dice coefficient of two masks: how well they agree around their boundaries.

    With N_x the pixels at most `radius` rows and columns from x, and dT and dP the boundaries of truth T and
    prediction P, it is the mean over all x in dT and all x in dP of the Dice coefficient
    2 |T n P n N_x| / (|T n N_x| + |P n N_x|) (Yeghiazaryan and Voiculescu, Journal of Medical Imaging 5, 2018). If
    neither mask has a `boundary`, it is the Dice coefficient of the masks.

    Args:
        truth: bool (H, W).
        predicted: bool (H, W).
        ignore: bool (H, W): pixels that do not count and are not part of a boundary.
        radius: Radius of the neighbourhoods in pixels.

    Returns:
        In [0, 1]; NaN if both masks are blank.
    """
    counted = np.ones(truth.shape, bool) if ignore is None else ~ignore
    # Boundaries are found before pixels are ignored: the border of the ignored region is not one of the structure.
    edges = [boundary(mask) & counted for mask in (truth, predicted)]
    number = sum(int(np.count_nonzero(edge)) for edge in edges)
    if not number:
        return float(overlap(truth[None], predicted[None], ignore)["f1"][0])

    rows, columns = np.concatenate([np.nonzero(edge) for edge in edges], axis=1)
    height, width = truth.shape
    top, bottom = np.maximum(rows - radius, 0), np.minimum(rows + radius + 1, height)
    left, right = np.maximum(columns - radius, 0), np.minimum(columns + radius + 1, width)
    # All neighbourhoods lie in this part of the image.
    y, x = top.min(), left.min()
    part = np.s_[y : bottom.max(), x : right.max()]
    truth, predicted, counted = truth[part], predicted[part], counted[part]
    top, bottom, left, right = top - y, bottom - y, left - x, right - x

    def around(mask: BoolArray) -> FloatArray:
        """Return how many pixels of the mask are in each neighbourhood."""
        sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
        np.cumsum(np.cumsum(mask & counted, axis=0, dtype=np.int32), axis=1, out=sums[1:, 1:])
        found = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return np.asarray(found, np.float32)

    both, total = around(truth & predicted), around(truth) + around(predicted)
    return float((2 * both / total).sum(dtype=np.float64) / number)
