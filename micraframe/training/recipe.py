"""How a network is trained: parameters, and the pure rules behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from micraframe.parameters import Parameters
from micraframe.training.augmentation import Augmentation, Flip, Gamma, Intensity

_WARM_UP = 0.3
_START = 25.0
_END = 1e4


class Recipe(Parameters):
    """How a network is trained; the defaults are the paper's for F-actin, which are for networks as wide as its own.

    A dropout of 0.5 before the linear layer, the classifier's default, keeps narrow networks (8 to 64 filters) from
    learning in a short time; they train fast without it, with `adamw`, `one-cycle` and a learning rate of 0.01.
    """

    epochs: int = Field(250, ge=1, description="Maximum number of passes over the training examples.")
    batch_size: int = Field(64, ge=1, description="Examples per step; all images of a batch have the same size.")
    optimiser: Literal["adam", "adamw"] = Field("adam", description="adam, or adamw with decoupled weight decay.")
    learning_rate: float = Field(
        1e-3, gt=0, description="Initial (plateau, constant) or highest (one-cycle) learning rate."
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of the optimiser.")
    schedule: Literal["plateau", "one-cycle", "constant"] = Field(
        "plateau",
        description="plateau lowers the rate when the validation loss stalls; one-cycle raises it first.",
    )
    plateau_patience: int = Field(10, ge=0, description="Epochs without a lower validation loss until the rate drops.")
    plateau_factor: float = Field(0.1, gt=0, lt=1, description="Factor by which plateau lowers the learning rate.")
    minimum_learning_rate: float = Field(1e-5, ge=0, description="Lowest learning rate of plateau.")
    early_stopping: int | None = Field(
        30, ge=1, description="Epochs without a lower validation loss until training ends; null to train all epochs."
    )
    pos_weight: Literal["auto"] | Annotated[float, Field(gt=0)] | None = Field(
        "auto", description="Weight of a class's presence; auto is absent / present in the training examples."
    )
    gradient_clipping: float | None = Field(None, gt=0, description="Maximum norm of a step's gradient.")
    augmentations: tuple[Augmentation, ...] = Field(
        (Flip(axis="left-right"), Flip(axis="up-down"), Intensity(), Gamma()),
        description="Changes to training images, in random order; omit flips and rotations that change the meaning.",
    )


def learning_rate(recipe: Recipe, losses: Sequence[float], progress: float) -> float:
    """Return the learning rate of the next step.

    Args:
        recipe: Names the schedule.
        losses: Validation losses of the epochs so far (plateau).
        progress: Fraction of all steps that is done, in [0, 1) (one-cycle).
    """
    if recipe.schedule == "plateau":
        return plateau(recipe, losses)
    if recipe.schedule == "one-cycle":
        return recipe.learning_rate * one_cycle(progress)
    return recipe.learning_rate


def plateau(recipe: Recipe, losses: Sequence[float]) -> float:
    """Return the rate after these validation losses: lowered whenever they have not improved for long enough."""
    rate = recipe.learning_rate
    lowest, waited = math.inf, 0
    for loss in losses:
        if loss < lowest:
            lowest, waited = loss, 0
        else:
            waited += 1
        if waited > recipe.plateau_patience:
            # A rate that starts below the minimum is never raised.
            rate, waited = min(rate, max(rate * recipe.plateau_factor, recipe.minimum_learning_rate)), 0
    return rate


def one_cycle(progress: float) -> float:
    """Return the factor of the highest rate: from 1/25 to 1 in the first 30 %, then to nearly 0, along cosines.

    Smith, L. N. and Topin, N. "Super-convergence: very fast training of neural networks using large learning rates"
    (2017), with the cosines of fastai.
    """
    if progress < _WARM_UP:
        start, end, share = 1 / _START, 1.0, progress / _WARM_UP
    else:
        start, end, share = 1.0, 1 / (_START * _END), (progress - _WARM_UP) / (1 - _WARM_UP)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def is_over(recipe: Recipe, losses: Sequence[float]) -> bool:
    """Return whether training ends after these validation losses."""
    if len(losses) >= recipe.epochs:
        return True
    return recipe.early_stopping is not None and len(losses) - 1 - best(losses) >= recipe.early_stopping


def best(losses: Sequence[float]) -> int:
    """Return the index of the lowest loss, the first of equal ones; -1 if there are none."""
    return min(range(len(losses)), key=losses.__getitem__, default=-1)
