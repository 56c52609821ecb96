"""Which classes are in the image: the decision that every head begins with."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from micraframe.errors import ConfigError
from micraframe.types import BoolArray, FloatArray, Threshold

Probability = Annotated[float, Field(ge=0, le=1)]
Decision = Probability | tuple[Probability, ...]
"""The probability from which on a class counts as present: one for all classes, or one for each in their order."""


def decide_presence(scores: FloatArray, decision: Decision) -> BoolArray:
    """Return which classes are in the image, bool (K,): those whose score reaches the decision.

    Args:
        scores: float32 (K,), in [0, 1].
        decision: One number, or K of them.

    Raises:
        ConfigError: If there are several numbers, but not K.
    """
    if isinstance(decision, tuple) and len(decision) != len(scores):
        raise ConfigError(f"decision has {len(decision)} numbers for {len(scores)} classes; write one, or one for each")
    # In float32, as the scores are: a score of 0.7 must reach a decision of 0.7.
    return np.asarray(scores >= np.asarray(decision, np.float32))


def presence_thresholds(decision: Decision) -> tuple[Threshold, ...]:
    """Return the record of what was decided by."""
    if isinstance(decision, tuple):
        return tuple(Threshold(f"presence of class {index}", value) for index, value in enumerate(decision))
    return (Threshold("presence", decision),)
