"""The head that decides which detections are objects, and which pixels belong to them."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field, field_validator

from micraframe.heads.masks import mask_status
from micraframe.heads.regions import drop_small
from micraframe.interfaces import Head, MaskHeadParams
from micraframe.objects import centroids
from micraframe.thresholds import PresenceThreshold, ThresholdRule, presence_records, reaches
from micraframe.types import DatasetInfo, FloatArray, Prediction, Scores, Status, Threshold
from micraframe_maskrcnn.detections import separate


@final
class DetectedObjectsHead(Head["DetectedObjectsHead.Params"]):
    """Objects from a detector, best first; there are none if the model does not detect objects.

    Objects whose score does not reach the presence threshold of their class do not count. Where objects of one class
    overlap, the pixel belongs to the better one; an object is dropped as a duplicate if less than
    `min_visible_fraction` of it remains.
    """

    class Params(MaskHeadParams):
        presence_threshold: PresenceThreshold = Field(
            0.5, description="Score at which an object, and so its class, counts as present; one, or one per class."
        )
        mask_threshold: ThresholdRule = Field(
            ThresholdRule(name="fixed", value=0.5),
            description="Probability above which a pixel belongs to an object; only fixed, since each object has a map "
            "of its own.",
        )
        minimum_size: float = Field(
            0.0, ge=0, description="Drop objects of fewer square pixels of the image file, before `scale`."
        )
        min_visible_fraction: float = Field(
            0.5,
            ge=0,
            le=1,
            description="Fraction of its pixels that better objects of the class must leave to an object.",
        )

        @field_validator("mask_threshold")
        @classmethod
        def _is_probability(cls, rule: ThresholdRule) -> ThresholdRule:
            if rule.name != "fixed" or rule.value is None or not 0 <= rule.value <= 1:
                raise ValueError(f"expected a fixed probability, such as {{name: fixed, value: 0.5}}, got {rule}")
            return rule

    def decide(self, scores: Scores, image: FloatArray, info: DatasetInfo) -> Prediction:
        """Return the objects, their masks and centroids, of all K classes."""
        params = self.params
        cut = params.mask_threshold.value
        assert cut is not None
        present = self.present(scores.presence)
        instances = np.zeros((len(present), *scores.size), np.int32)
        points: list[FloatArray] = [np.zeros((0, 3), np.float32)] * len(present)
        status: list[Status] = ["empty" if here else "absent" for here in present]
        for index, found in enumerate(scores.objects or ()):
            if not present[index]:
                continue
            limit = params.presence_threshold
            counted = found.select(reaches(found.scores, limit[index] if isinstance(limit, tuple) else limit))
            labels, heights = separate(counted, scores.size, cut, params.min_visible_fraction)
            instances[index] = drop_small(labels, params.minimum_size * info.scale**2)
            status[index] = mask_status(instances[index] > 0, "ok")
            kept = np.unique(labels[instances[index] > 0]) - 1
            points[index] = np.column_stack([*centroids(instances[index : index + 1]), heights[kept]])
        return Prediction(
            scores,
            present,
            masks=instances > 0,
            instances=instances,
            points=tuple(points),
            status=tuple(status),
            thresholds=(
                *presence_records(params.presence_threshold),
                Threshold("mask", cut, rule=str(params.mask_threshold)),
            ),
        )
