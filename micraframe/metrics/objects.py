"""How well objects are found one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from micraframe.interfaces import Metric, Parameters
from micraframe.metrics.association import f1_score, ious, match_by_iou, overlaps
from micraframe.metrics.evidence import check_fit, instances_of, undefined
from micraframe.types import FloatArray, IntArray, Prediction, Sample

FAILURES = ("missed", "extra", "split", "merged")
CURVE = tuple(number / 20 for number in range(1, 20))
"""The IOUs over which the curve of F1 is taken: 0.05, 0.1, ... 0.95."""


@final
class Objects(Metric):
    """F1 of objects at given IOUs, the normalised area under F1 against IOU, and shares of four ways to fail.

    Without instances, objects are the components of the masks. NaN where truth and prediction have no object.
    """

    class Params(Parameters):
        iou: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
            CURVE, description="IOUs from which on two objects count as one."
        )

    def __init__(self, params: Params) -> None:
        self.params = params

    def measure(self, prediction: Prediction, truth: Sample) -> Mapping[str, FloatArray]:
        """Return `object_f1@IOU`, `object_auc`, and `object_missed`, `_extra`, `_split` and `_merged`.

        Raises:
            DataError: If truth and prediction are not of the same classes and size.
        """
        names = [f"object_f1@{iou:g}" for iou in self.params.iou]
        names += ["object_auc", *(f"object_{name}" for name in FAILURES)]
        true, predicted = instances_of(truth), instances_of(prediction)
        if true is None or predicted is None:
            return {name: undefined(prediction) for name in names}
        check_fit(true, predicted, truth.id)
        if truth.ignore is not None:
            true, predicted = (np.where(truth.ignore, 0, labels) for labels in (true, predicted))
        rows = [self._measure(one, other) for one, other in zip(true, predicted, strict=True)]
        return dict(zip(names, np.array(rows, np.float32).reshape(-1, len(names)).T, strict=True))

    def _measure(self, truth: IntArray, predicted: IntArray) -> list[float]:
        shared = overlaps(truth, predicted)
        iou = ious(shared)
        modes = failures(shared)
        curve = f1_curve(iou, CURVE)
        known = dict(zip(CURVE, curve, strict=True))  # what the area is made of is not associated twice
        named = [known[least] if least in known else f1_curve(iou, [least])[0] for least in self.params.iou]
        return [*named, area_under(curve), *(modes[name] for name in FAILURES)]


def f1_curve(iou: npt.NDArray[np.float64], least: Sequence[float]) -> list[float]:
    """Return the F1 of objects for each IOU from which on two count as one; NaN where there is no object.

    Args:
        iou: (N, M): of every true with every predicted object.
        least: The IOUs.
    """
    return [f1_score(len(match_by_iou(iou, one)), *iou.shape) for one in least]


def area_under(curve: Sequence[float]) -> float:
    """Return the area under F1 against IOU from 0.05 to 0.95, normalised: 1 for perfect objects.

    Args:
        curve: F1 at each IOU of `CURVE`.
    """
    return float(np.trapezoid(curve, CURVE) / (CURVE[-1] - CURVE[0]))


def failures(shared: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the shares of the objects that are `missed`, `extra`, `split` and `merged`.

    Two objects belong together if more than half of either lies in the other. Missed are true objects to which none
    belongs, and extra predicted ones; split are true objects to which two or more belong, and merged predicted ones.
    NaN for shares of no objects.

    Args:
        shared: What `association.overlaps` returns.
    """
    both = shared[1:, 1:]
    smaller = np.minimum(shared.sum(axis=1)[1:, None], shared.sum(axis=0)[1:])
    together = 2 * both > smaller
    of_truth, of_prediction = together.sum(axis=1), together.sum(axis=0)

    def share(failed: npt.NDArray[np.bool_]) -> float:
        return float(failed.mean()) if failed.size else np.nan

    return {
        "missed": share(of_truth == 0),
        "extra": share(of_prediction == 0),
        "split": share(of_truth > 1),
        "merged": share(of_prediction > 1),
    }
