"""The head that decides which detections are objects, and where these end."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field, field_validator

from micraframe.heads.masks import MaskParams, blank_status, mask_thresholds, place
from micraframe.heads.presence import Decision, decide_presence
from micraframe.heads.regions import drop_small
from micraframe.interfaces import Head, Parameters
from micraframe.objects import centroids
from micraframe.thresholds import Rule
from micraframe.types import FloatArray, Prediction, ScoreMap, Status
from micraframe_maskrcnn.detections import NOTE, separate


@final
class Detections(Head):
    """Objects from the detections in a score map's notes, best first; without such notes, no objects.

    What scores less than its class's decision does not count. Where objects of one class overlap, the pixel is the
    better one's; one to which less than the share `own` of its pixels is left is the better one, found twice.
    """

    class Params(Parameters):
        decision: Decision = Field(
            0.5, description="Score from which on an object, and so its class, is there; one, or one per class."
        )
        threshold: Rule = Field(
            Rule(name="fixed", value=0.5),
            description="Probability above which a pixel is of the object: a fixed one, for each object has its own "
            "map, and the rules that find a threshold are for an image's.",
        )
        minimum_size: float = Field(0.0, ge=0, description="Drop objects of fewer square pixels.")
        own: float = Field(
            0.5,
            ge=0,
            le=1,
            description="Share of its pixels that better objects of the class must leave to an object; less: a double.",
        )

        @field_validator("threshold")
        @classmethod
        def _is_probability(cls, rule: Rule) -> Rule:
            if rule.name != "fixed" or rule.value is None or not 0 <= rule.value <= 1:
                raise ValueError(
                    f"the masks of detections are cut at a probability, not by the rule {rule}; write "
                    "{name: fixed, value: 0.5}, or another value from 0 to 1"
                )
            return rule

    def __init__(self, params: Params) -> None:
        self.params = params

    def wanted(self, scores: FloatArray) -> tuple[int, ...]:
        """Return the classes that are in the image."""
        return tuple(int(index) for index in np.flatnonzero(decide_presence(scores, self.params.decision)))

    def decide(self, score_map: ScoreMap, scores: FloatArray, image: FloatArray) -> Prediction:
        """Return objects, their masks and middles, of all K classes.

        Raises:
            DataError: If the score map lacks a class that is in the image.
        """
        params = self.params
        cut = params.threshold.value
        assert cut is not None
        size = (score_map.values.shape[1], score_map.values.shape[2])
        present = decide_presence(scores, params.decision)
        instances = np.zeros((len(scores), *size), np.int32)
        points = [np.zeros((0, 3), np.float32)] * len(scores)
        status: list[Status] = ["absent"] * len(scores)
        for index, row in place(score_map, present).items():
            status[index] = "empty"
            found = score_map.notes[row].get(NOTE) if score_map.notes else None
            if found is None:
                continue
            decision = params.decision[index] if isinstance(params.decision, tuple) else params.decision
            counted = found.chosen(decide_presence(found.scores, decision))
            labels, heights = separate(counted, size, cut, params.own)
            instances[index] = drop_small(labels, params.minimum_size)
            status[index] = blank_status(instances[index] > 0, "ok")
            kept = np.unique(labels[instances[index] > 0]) - 1
            points[index] = np.column_stack([*centroids(instances[index : index + 1]), heights[kept]])
        return Prediction(
            scores=np.asarray(scores, np.float32),
            present=present,
            masks=instances > 0,
            instances=instances,
            points=tuple(points),
            status=tuple(status),
            thresholds=mask_thresholds(MaskParams(decision=params.decision, threshold=params.threshold)),
        )
