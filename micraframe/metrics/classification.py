"""How well the presence of classes is predicted: as a decision, and as a ranking."""

from __future__ import annotations

from typing import final

import numpy as np

from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.masks_and_labels import check_same_shape, labels_of, undefined
from micraframe.metrics.precision_recall import average_precision
from micraframe.parameters import Parameters
from micraframe.types import Prediction, Sample


@final
class ClassificationMetric(Metric[Parameters]):
    """Accuracy of each class's presence, and average precision of the images ranked by it."""

    def columns(self) -> tuple[Column, ...]:
        """Return accuracy and average precision."""
        return (
            Column("correct", "the share of images in which the presence of a class was classified correctly"),
            Column(
                "average_precision",
                "the average precision of the images, ranked by the presence probability of a class; undefined for a "
                "class that is in all images or in none",
                pooled=("label", "presence"),
            ),
        )

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return `correct`, 1 or 0, the `presence` probability and the true `label`; NaN if the truth is unknown."""
        labels = labels_of(truth)
        if labels is None:
            return undefined(("correct", "presence", "label"), prediction)
        check_same_shape(labels, prediction.present, truth.id)
        return {
            "correct": (labels == prediction.present).astype(np.float32),
            "presence": prediction.scores.presence,
            "label": labels.astype(np.float32),
        }

    def reduce(self, statistics: Statistics) -> Statistics:
        """Return the means, and the average precision of each class over all images whose truth is known."""
        ranked = zip(np.asarray(statistics["label"]).T, np.asarray(statistics["presence"]).T, strict=True)
        areas = [
            average_precision(label[known] == 1, presence[known])
            for label, presence in ranked
            for known in [~np.isnan(label)]
        ]
        return {**super().reduce(statistics), "average_precision": np.array(areas)}
