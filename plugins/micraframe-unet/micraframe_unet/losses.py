"""Losses over annotated pixels.

Every class of every image counts the same, however many of its pixels are annotated: the loss of a batch is the mean
over images of the mean over classes that have an annotated pixel. Logits and targets are (B, K, H, W).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor
from torch.nn import functional

from micraframe.parameters import Parameters
from micraframe_unet.targets import PRESENT, UNKNOWN

LossName = Literal["bce", "bce+dice", "mse"]


class GeneralisedCrossEntropy(Parameters):
    """A loss for masks with errors, such as those that a network made."""

    kind: Literal["generalised-cross-entropy"] = "generalised-cross-entropy"
    q: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Robustness to wrong masks: towards 0, bce; 1, the mean absolute error, which may find nothing.",
    )


def _from_name(value: Any) -> Any:
    return {"kind": value} if value == "generalised-cross-entropy" else value


Loss = Annotated[LossName | GeneralisedCrossEntropy, BeforeValidator(_from_name)]
"""A loss: by name, or with its parameters."""

_SMOOTH = 1.0
"""Pixels added to numerator and denominator of the Dice coefficient, so that it is 1 for an empty class and mask."""


def pixel_loss(logits: Tensor, targets: Tensor, kind: Loss, pos_weight: Tensor) -> Tensor:
    """Return the loss of a batch, a scalar.

    `bce` is binary cross-entropy with logits, -(w_c t log p + (1 - t) log(1 - p)); `bce+dice` adds 1 - Dice, the
    coefficient being computed from probabilities (Milletari et al. 2016); `mse` is (p - t)^2, which the MICRA-Net paper
    uses for its U-Net of F-actin. Generalised cross-entropy is w_c (1 - p^q) / q where t is 1 and (1 - (1 - p)^q) / q
    where it is 0. Its gradient is that of `bce` times a^q, a being the probability of the annotated value: pixels whose
    annotation the network contradicts count less (Zhang, Z. and Sabuncu, M. "Generalized cross entropy loss for
    training deep neural networks with noisy labels". NeurIPS 2018).

    Args:
        logits: The network's logits.
        targets: `ABSENT`, `PRESENT` or `UNKNOWN`.
        kind: The loss.
        pos_weight: (K,): w, for the cross-entropies.
    """
    known = targets != UNKNOWN
    truth = (targets == PRESENT).to(logits.dtype)
    if kind == "mse":
        return mean_of_known((logits.sigmoid() - truth) ** 2, known)
    if isinstance(kind, GeneralisedCrossEntropy):
        present = truth > 0
        # From the logarithm, so that small q and small probabilities lose no digits.
        logarithms = functional.logsigmoid(torch.where(present, logits, -logits))
        losses = -torch.expm1(kind.q * logarithms) / kind.q
        return mean_of_known(torch.where(present, pos_weight.to(logits)[:, None, None], 1) * losses, known)
    entropy = functional.binary_cross_entropy_with_logits(
        logits, truth, pos_weight=pos_weight.to(logits)[:, None, None], reduction="none"
    )
    loss = mean_of_known(entropy, known)
    if kind == "bce+dice":
        loss = loss + (1 - dice(logits.sigmoid(), targets)).mean()
    return loss


def mean_of_known(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean over images and classes of the values' (B, K, H, W) mean over the annotated pixels."""
    pixels = known.sum((2, 3))
    # Not a product: the values of other pixels need not be finite.
    sums = values.where(known, 0).sum((2, 3))
    classes = (pixels > 0).sum(1)
    return ((sums / pixels.clamp(min=1)).sum(1) / classes.clamp(min=1)).mean()


def dice(found: Tensor, targets: Tensor) -> Tensor:
    """Return the Dice coefficient (B, K) of probabilities or masks (B, K, H, W) on the annotated pixels."""
    found = found.where(targets != UNKNOWN, 0).float()
    truth = (targets == PRESENT).float()
    both = (found * truth).sum((2, 3))
    return (2 * both + _SMOOTH) / (found.sum((2, 3)) + truth.sum((2, 3)) + _SMOOTH)
