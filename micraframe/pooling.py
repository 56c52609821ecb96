"""Pooling of class evidence: from a logit at every position to the logit of the image.

A classifier that pools its *features* (`max`, `mean`) knows only in which image a class is. One that applies its linear
layer at every position, and then pools the logits, has a map of the class in its forward pass: multiple-instance
learning, with positions as instances. How the logits are pooled determines how large the map becomes: a maximum rewards
one position alone, a mean all of them. Log-sum-exp lies between, and made the best maps of a single class in the
ablations.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal, get_args

import torch
from pydantic import BeforeValidator, Discriminator, Field, Tag
from torch import Tensor

from micraframe.parameters import Parameters


def log_sum_exp(evidence: Tensor, r: float) -> Tensor:
    """Return logits (B, K) for the evidence (B, K, h, w) of n = h w positions.

    With s_i the logit at position i,

        y = 1/r log(1/n sum_i exp(r s_i))

    It tends to the maximum as r grows and to the mean as r tends to 0 (Pinheiro, P. O. and Collobert, R. "From
    image-level to pixel-level labeling with convolutional networks". CVPR 2015).
    """
    positions = evidence.flatten(2)
    return (torch.logsumexp(r * positions, 2) - math.log(positions.shape[2])) / r


class LogSumExp(Parameters):
    """A smooth maximum of the logits of all positions (Pinheiro and Collobert 2015)."""

    kind: Literal["log-sum-exp"] = "log-sum-exp"
    r: float = Field(4.0, gt=0, description="Sharpness: a larger one is closer to the maximum, a smaller to the mean.")

    def pool(self, evidence: Tensor) -> Tensor:
        """Return the logits of images, (B, K), for the logits of their positions, (B, K, h, w); see `log_sum_exp`."""
        return log_sum_exp(evidence, self.r)


FeaturePooling = Literal["max", "mean"]
"""A pooling of features, before the linear layer."""

_FEATURES: Final = get_args(FeaturePooling)
_EVIDENCE: Final = "log-sum-exp"


def _from_name(value: Any) -> Any:
    return {"kind": value} if value == _EVIDENCE else value


def _tag(value: Any) -> str | None:
    """Return the alternative that a value is meant for, so that an error is about that one alone."""
    if isinstance(value, LogSumExp) or (isinstance(value, dict) and value.get("kind") == _EVIDENCE):
        return _EVIDENCE
    return "features" if value in _FEATURES else None


Pooling = Annotated[
    Annotated[FeaturePooling, Tag("features")] | Annotated[LogSumExp, Tag(_EVIDENCE)],
    Discriminator(
        _tag,
        custom_error_type="pooling",
        custom_error_message=f"expected {', '.join(_FEATURES)} or {_EVIDENCE}, or a mapping with kind: {_EVIDENCE}",
    ),
    BeforeValidator(_from_name),
]
"""A pooling of features, or of the evidence after the linear layer: by name, or with its parameters."""
