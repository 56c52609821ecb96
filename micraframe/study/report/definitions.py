"""What metrics are, in the words of a methods section, and which way they point."""

from __future__ import annotations

from collections.abc import Iterable

_PIXELS = "with TP, FP and FN the pixels of a class that are in both, only in the predicted or only in the true mask"

_DEFINITIONS = {
    "correct": "the share of images in which a class's presence was decided rightly",
    "average_precision": "the average precision of the images, ranked by the score of a class's presence",
    "precision": f"TP / (TP + FP), {_PIXELS}; undefined where the predicted mask is blank",
    "recall": f"TP / (TP + FN), {_PIXELS}; undefined where the true mask is blank",
    "f1": f"2 TP / (2 TP + FP + FN), {_PIXELS}; 0 where one mask is blank and undefined where both are",
    "iou": f"intersection over union, TP / (TP + FP + FN), {_PIXELS}; 0 where one mask is blank and undefined where "
    "both are",
    "iou_if_present": "the IOU over images whose truth holds the class alone",
    "boundary_dice": "the symmetric boundary Dice coefficient of the masks",
    "object_auc": "the normalised area under the curve of F1 of objects against the IOU at which two objects count as "
    "one (0.05 to 0.95)",
    "object_missed": "the share of true objects to which no predicted one belongs",
    "object_extra": "the share of predicted objects to which no true one belongs",
    "object_split": "the share of true objects to which two or more predicted ones belong",
    "object_merged": "the share of predicted objects to which two or more true ones belong",
    "detection_precision": "the share of detections that are at a true position, one to one; undefined without a "
    "detection",
    "detection_recall": "the share of true positions that are detected, one to one; undefined where there is none",
    "detection_f1": "F1 of detections, associated with true positions one to one",
    "detection_average_precision": "the area under detections' precision against recall, image by image",
    "centroid_distance": "the distance in pixels of the centres of mass of the predicted and the true mask; undefined "
    "where either is blank",
    "contour_distance": "the mean distance in pixels from the contour of either mask to the other's; undefined where "
    "either is blank",
    "pxap": "the average precision of the score map's pixels, image by image",
    "pointing": "the share of score maps whose maximum is on the structure",
}

_LOWER_IS_BETTER = {
    "object_missed",
    "object_extra",
    "object_split",
    "object_merged",
    "centroid_distance",
    "contour_distance",
}


def lower_is_better(metric: str) -> bool:
    """Return whether a low value of a metric is a good one; of metrics that plugins bring, a high one is."""
    return metric in _LOWER_IS_BETTER


def definition(metric: str) -> str:
    """Return what a metric is; empty for one that a plugin brings."""
    if metric.startswith("object_f1@"):
        iou = metric.removeprefix("object_f1@")
        return f"F1 of objects, associated one to one, that count as found from an IOU of {iou} on"
    return _DEFINITIONS.get(metric, "")


def definitions(metrics: Iterable[str]) -> str:
    """Return a sentence's worth of definitions; what several share is said once."""
    told: list[str] = []
    said = False
    for metric in metrics:
        text = definition(metric)
        if not text:
            continue
        if said:
            text = text.replace(f", {_PIXELS}", "")
        said = said or _PIXELS in text
        told.append(f"{metric} ({text})")
    return "; ".join(told)
