"""How well objects are found one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.association import f1_score, ious, match_by_iou, overlaps
from micraframe.metrics.masks_and_labels import check_same_shape, instances_of, undefined
from micraframe.parameters import Parameters
from micraframe.types import IntArray, Prediction, Sample

CURVE: Final = tuple(number / 20 for number in range(1, 20))
"""The IoUs of the curve of F1 against IoU: 0.05, 0.1, ... 0.95."""

PANOPTIC_IOU: Final = 0.5
"""The IoU at which panoptic quality matches objects."""

FAILURES: Final = {
    "object_missed": "the share of true objects that no predicted one covers",
    "object_extra": "the share of predicted objects that cover no true one",
    "object_split": "the share of true objects that two or more predicted ones cover",
    "object_merged": "the share of predicted objects that cover two or more true ones",
}

MIN_COVERED: Final = 0.1
"""The share of a true object that a predicted one must cover at least: less is debris, not a part of it."""


@final
class ObjectMetric(Metric["ObjectMetric.Params"]):
    """F1 of objects at given IoUs, the area under F1 against IoU, panoptic quality, and four kinds of failure.

    Without instances, objects are the connected components of the masks. F1 is a mean over images, and pooled over the
    objects of all images, as in StarDist's `matching_dataset` (Schmidt et al. 2018); the area is that under the pooled
    F1, so an image counts by its objects. Panoptic quality is
    PQ = SQ x RQ = (sum of the matched pairs' IoU / TP) x (TP / (TP + FP / 2 + FN / 2)) (Kirillov et al. 2019).
    """

    class Params(Parameters):
        iou: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
            CURVE, description="IoUs at which a predicted object counts as a true one."
        )

    def columns(self) -> tuple[Column, ...]:
        """Return the columns for the objects of each image, and for the objects of all images together."""
        pooled = "from the objects of all images together"
        return (
            *(
                Column(f"object_f1@{iou:g}", f"F1 of objects, matched one to one at an IoU of at least {iou:g}")
                for iou in self.params.iou
            ),
            Column(
                "object_auc",
                f"the normalised area under F1 of objects against the IoU of a match (0.05 to 0.95), {pooled}",
                numerator="object_tp_area",
                denominator="object_mean_count",
            ),
            *(Column(name, definition, higher_is_better=False) for name, definition in FAILURES.items()),
            *(
                Column(
                    f"object_f1_pooled@{iou:g}",
                    f"F1 of objects, matched one to one at an IoU of at least {iou:g}, {pooled}",
                    numerator=f"object_tp@{iou:g}",
                    denominator="object_mean_count",
                )
                for iou in self.params.iou
            ),
            Column(
                "segmentation_quality",
                f"the mean IoU of objects matched one to one at an IoU of at least {PANOPTIC_IOU:g}, {pooled}",
                numerator="object_matched_iou",
                denominator=f"object_tp@{PANOPTIC_IOU:g}",
            ),
            Column(
                "panoptic_quality",
                f"segmentation quality times F1 of objects at an IoU of {PANOPTIC_IOU:g}, {pooled}",
                numerator="object_matched_iou",
                denominator="object_mean_count",
            ),
        )

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return the statistics of one image; all NaN if truth or prediction has neither masks nor instances.

        These are the columns of single images; `object_true` and `object_predicted`, the numbers of objects, and
        `object_mean_count`, the mean of both; `object_tp@IOU`, the number of matches, so that FP are predicted - TP and
        FN are true - TP; `object_tp_area`, the normalised area under that number against the IoU; and
        `object_matched_iou`, the sum of the matches' IoU at 0.5.
        """
        true, predicted = instances_of(truth), instances_of(prediction)
        if true is None or predicted is None:
            nothing = np.zeros((1, 1), np.int32)
            return undefined(self._measure(nothing, nothing), prediction)
        check_same_shape(true, predicted, truth.id)
        if truth.ignore is not None:
            true, predicted = (np.where(truth.ignore, 0, labels) for labels in (true, predicted))
        rows = [self._measure(one, other) for one, other in zip(true, predicted, strict=True)]
        return {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}

    def _measure(self, truth: IntArray, predicted: IntArray) -> dict[str, float]:
        shared = overlaps(truth, predicted)
        iou = ious(shared)
        pairs = {least: match_by_iou(iou, least) for least in dict.fromkeys((*self.params.iou, *CURVE, PANOPTIC_IOU))}
        f1 = {least: f1_score(len(matched), *iou.shape) for least, matched in pairs.items()}
        matched_iou = iou[tuple(pairs[PANOPTIC_IOU].T)].sum()
        return {
            **{f"object_f1@{least:g}": f1[least] for least in self.params.iou},
            **failures(shared),
            **{f"object_tp@{least:g}": len(pairs[least]) for least in (*self.params.iou, PANOPTIC_IOU)},
            # F1 is TP / mean count at every IoU, so the area under pooled F1 is a ratio of sums as well.
            "object_tp_area": area_under([len(pairs[least]) for least in CURVE]),
            "object_true": iou.shape[0],
            "object_predicted": iou.shape[1],
            "object_mean_count": sum(iou.shape) / 2,
            "object_matched_iou": float(matched_iou),
        }


def area_under(curve: Sequence[float]) -> float:
    """Return the area under a curve against IoU from 0.05 to 0.95, normalised: that of a constant is the constant.

    Args:
        curve: Its value at each IoU of `CURVE`.
    """
    return float(np.trapezoid(curve, CURVE) / (CURVE[-1] - CURVE[0]))


def failures(shared: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the shares of objects that are missed, extra, split and merged, by the names of `FAILURES`.

    Two objects cover each other if more than half of either lies in the other, and with it at least `MIN_COVERED` of
    the true one: a smaller fragment does not split it, and alone does not find it. Caicedo et al. (Cytometry A 95,
    2019), whose failures the MICRA-Net paper counts, ask for an IoU above 0.1, which for a fragment is the same share.
    NaN for shares of no objects.

    Args:
        shared: What `association.overlaps` returns.
    """
    both, true = shared[1:, 1:], shared.sum(axis=1)[1:, None]
    covers = (2 * both > np.minimum(true, shared.sum(axis=0)[1:])) & (both / true >= MIN_COVERED)
    of_truth, of_prediction = covers.sum(axis=1), covers.sum(axis=0)
    failed = (of_truth == 0, of_prediction == 0, of_truth > 1, of_prediction > 1)
    return {name: float(each.mean()) if each.size else np.nan for name, each in zip(FAILURES, failed, strict=True)}
