"""Losses over annotated pixels.

Every class of every image counts the same, however many of its pixels are annotated: the loss of a batch is the mean
over images of the mean over classes that have an annotated pixel. Logits and targets are (B, K, H, W).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from micraframe_unet.targets import PRESENT, UNKNOWN

Loss = Literal["bce", "bce+dice", "mse"]

_SMOOTH = 1.0
"""Pixels added to numerator and denominator of the Dice coefficient, so that it is 1 for an empty class and mask."""


def pixel_loss(logits: Tensor, targets: Tensor, kind: Loss, pos_weight: Tensor) -> Tensor:
    """Return the loss of a batch, a scalar.

    `bce` is binary cross-entropy with logits, -(w_c t log p + (1 - t) log(1 - p)); `bce+dice` adds 1 - Dice, the
    coefficient being computed from probabilities (Milletari et al. 2016); `mse` is (p - t)^2, which the MICRA-Net paper
    uses for its U-Net of F-actin.

    Args:
        logits: The network's logits.
        targets: `ABSENT`, `PRESENT` or `UNKNOWN`.
        kind: Name of the loss.
        pos_weight: (K,): w, for the cross-entropy.
    """
    known = targets != UNKNOWN
    truth = (targets == PRESENT).to(logits.dtype)
    if kind == "mse":
        return mean_of_known((logits.sigmoid() - truth) ** 2, known)
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
