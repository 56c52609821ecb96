"""The head that only says which classes are in the image."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field

from micraframe.heads.presence import Decision, decide_presence, presence_thresholds
from micraframe.interfaces import Head, Parameters
from micraframe.types import FloatArray, Prediction, ScoreMap


@final
class Classification(Head):
    """Which classes are in the image; no masks, so that nothing needs to be explained."""

    class Params(Parameters):
        decision: Decision = Field(0.5, description="Probability from which a class is present; one, or one per class.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def wanted(self, scores: FloatArray) -> tuple[int, ...]:
        """Return no class."""
        return ()

    def decide(self, score_map: ScoreMap, scores: FloatArray, image: FloatArray) -> Prediction:
        """Return the decision for every class."""
        present = decide_presence(scores, self.params.decision)
        return Prediction(
            scores=np.asarray(scores, np.float32),
            present=present,
            status=tuple("ok" if here else "absent" for here in present),
            thresholds=presence_thresholds(self.params.decision),
        )
