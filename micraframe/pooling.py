"""Pooling of class evidence: from a logit at every position to the logit of the image.

A classifier that pools its *features* (`max`, `mean`) knows only in which image a class is. One that applies its linear
layer at every position, and then pools the logits, has a map of the class in its forward pass: multiple-instance
learning, with positions as instances. How the logits are pooled determines how large the map becomes: a maximum rewards
one position alone, a mean all of them; the others lie between.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, Final, Literal, get_args

import torch
from pydantic import BeforeValidator, Discriminator, Field, Tag
from torch import Tensor
from torch.nn import functional

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


def generalised_mean(evidence: Tensor, p: float) -> Tensor:
    """Return logits (B, K) for the evidence (B, K, h, w) of n = h w positions.

    With s_i the logit at position i, the probabilities sigmoid(s_i) are averaged:

        y = logit((1/n sum_i sigmoid(s_i)^p)^(1/p))

    (Kraus, O. Z., Ba, J. L. and Frey, B. J. "Classifying and segmenting microscopy images with deep multiple instance
    learning". Bioinformatics 32, 2016.) The sum is computed of logarithms, so that no probability underflows.
    """
    logarithms = functional.logsigmoid(evidence.flatten(2))
    mean = (torch.logsumexp(p * logarithms, 2) - math.log(logarithms.shape[2])) / p
    # A mean that rounds to 1 has no logit.
    mean = mean.clamp(max=-torch.finfo(mean.dtype).eps)
    return mean - torch.log(-torch.expm1(mean))


def top_share(evidence: Tensor, share: float) -> Tensor:
    """Return logits (B, K) for the evidence (B, K, h, w): the mean of the highest logits.

    Of n = h w positions, those are the max(1, round(share n)) highest (Durand, T., Mordan, T., Thome, N. and Cord, M.
    "WILDCAT: weakly supervised learning of deep ConvNets for image classification, pointwise localization and
    segmentation". CVPR 2017, without its negative evidence).
    """
    positions = evidence.flatten(2)
    return positions.topk(max(1, round(share * positions.shape[2])), 2).values.mean(2)


class EvidencePooling(Parameters, ABC):
    """A pooling of the logits of all positions."""

    @abstractmethod
    def pool(self, evidence: Tensor) -> Tensor:
        """Return the logits of images, (B, K), for the logits of their positions, (B, K, h, w)."""


class EvidenceMax(EvidencePooling):
    """The highest logit of all positions."""

    kind: Literal["evidence-max"] = "evidence-max"

    def pool(self, evidence: Tensor) -> Tensor:
        """Return max_i s_i, (B, K); of equal maxima, one receives the gradient."""
        return functional.adaptive_max_pool2d(evidence, 1).flatten(1)


class LogSumExp(EvidencePooling):
    """A smooth maximum of the logits of all positions (Pinheiro and Collobert 2015)."""

    kind: Literal["log-sum-exp"] = "log-sum-exp"
    r: float = Field(4.0, gt=0, description="Sharpness: a larger one is closer to the maximum, a smaller to the mean.")

    def pool(self, evidence: Tensor) -> Tensor:
        """Return the logits of images; see `log_sum_exp`."""
        return log_sum_exp(evidence, self.r)


class GeneralisedMean(EvidencePooling):
    """A power mean of the probabilities of all positions (Kraus, Ba and Frey 2016)."""

    kind: Literal["generalised-mean"] = "generalised-mean"
    p: float = Field(2.5, gt=0, description="Power: 1 is the mean; a larger one is closer to the maximum.")

    def pool(self, evidence: Tensor) -> Tensor:
        """Return the logits of images; see `generalised_mean`."""
        return generalised_mean(evidence, self.p)


class TopShare(EvidencePooling):
    """The mean of the highest logits (Durand et al. 2017)."""

    kind: Literal["top-share"] = "top-share"
    share: float = Field(0.1, gt=0, le=1, description="Share of the positions that count, at least one position.")

    def pool(self, evidence: Tensor) -> Tensor:
        """Return the logits of images; see `top_share`."""
        return top_share(evidence, self.share)


FeaturePooling = Literal["max", "mean"]
"""A pooling of features, before the linear layer."""

_FEATURES: Final = get_args(FeaturePooling)
_EVIDENCE: Final = ("evidence-max", "log-sum-exp", "generalised-mean", "top-share")


def _from_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) and value in _EVIDENCE else value


def _tag(value: Any) -> str | None:
    """Return the alternative that a value is meant for, so that an error is about that one alone."""
    if isinstance(value, EvidencePooling):
        return str(value.model_dump()["kind"])
    if isinstance(value, dict):
        return kind if (kind := value.get("kind")) in _EVIDENCE else None
    return "features" if value in _FEATURES else None


Pooling = Annotated[
    Annotated[FeaturePooling, Tag("features")]
    | Annotated[EvidenceMax, Tag("evidence-max")]
    | Annotated[LogSumExp, Tag("log-sum-exp")]
    | Annotated[GeneralisedMean, Tag("generalised-mean")]
    | Annotated[TopShare, Tag("top-share")],
    Discriminator(
        _tag,
        custom_error_type="pooling",
        custom_error_message=f"expected one of {', '.join((*_FEATURES, *_EVIDENCE))}, or a mapping with one of the "
        "latter as its kind",
    ),
    BeforeValidator(_from_name),
]
"""A pooling of features, or of the evidence after the linear layer: by name, or with its parameters."""
