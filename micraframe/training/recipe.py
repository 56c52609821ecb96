"""How a network learns, as parameters, and the pure rules for what they say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from micraframe.interfaces import Parameters
from micraframe.training.augmentation import Augmentation, Flip, Gamma, Intensity

_WARM_UP = 0.3
_START = 25.0
_END = 1e4


class Recipe(Parameters):
    """How a network learns; the defaults are the paper's for F-actin, which train networks of its width.

    Dropout of 0.5 before the linear layer, the classifier's default, stops narrow networks (8 to 64 filters) from
    learning in a short time; these learn fast without it, with `adamw`, `one-cycle` and a learning rate of 0.01.
    """

    epochs: int = Field(250, ge=1, description="The most passes over the training examples.")
    batch_size: int = Field(64, ge=1, description="Examples per step; those of one batch have one size.")
    optimiser: Literal["adam", "adamw"] = Field("adam", description="AdamW takes weight decay apart from the gradient.")
    learning_rate: float = Field(
        1e-3, gt=0, description="The first one (plateau, constant) or the highest (one-cycle)."
    )
    weight_decay: float = Field(0.0, ge=0, description="As the optimiser has it.")
    schedule: Literal["plateau", "one-cycle", "constant"] = Field(
        "plateau", description="plateau lowers the rate when the validation loss stalls; one-cycle rises, then falls."
    )
    plateau_patience: int = Field(10, ge=0, description="Epochs without a lower validation loss before it is lowered.")
    plateau_factor: float = Field(0.1, gt=0, lt=1, description="What the learning rate is multiplied by then.")
    minimum_learning_rate: float = Field(1e-5, ge=0, description="The lowest that plateau goes to.")
    early_stopping: int | None = Field(
        30, ge=1, description="Epochs without a lower validation loss after which training ends; none: it goes on."
    )
    pos_weight: Literal["auto"] | Annotated[float, Field(gt=0)] | None = Field(
        "auto", description="Weight of the presence of a class: auto is absent / present among the training examples."
    )
    gradient_clipping: float | None = Field(None, gt=0, description="The longest that a step's gradient may be.")
    augmentations: tuple[Augmentation, ...] = Field(
        (Flip(axis="left-right"), Flip(axis="up-down"), Intensity(), Gamma()),
        description="Changes to training images, in random order; no flips and turns where these change the meaning.",
    )


def learning_rate(recipe: Recipe, losses: Sequence[float], progress: float) -> float:
    """Return the learning rate of the next step.

    Args:
        recipe: Which schedule.
        losses: Validation losses of the epochs so far (plateau).
        progress: Share of all steps that is done, in [0, 1) (one-cycle).
    """
    if recipe.schedule == "plateau":
        return plateau(recipe, losses)
    if recipe.schedule == "one-cycle":
        return recipe.learning_rate * one_cycle(progress)
    return recipe.learning_rate


def plateau(recipe: Recipe, losses: Sequence[float]) -> float:
    """Return the rate after these validation losses: lowered whenever there was no lower one for long enough."""
    rate = recipe.learning_rate
    lowest, waited = math.inf, 0
    for loss in losses:
        if loss < lowest:
            lowest, waited = loss, 0
        else:
            waited += 1
        if waited > recipe.plateau_patience:
            # A rate below the minimum from the start is the user's wish: it is never raised.
            rate, waited = min(rate, max(rate * recipe.plateau_factor, recipe.minimum_learning_rate)), 0
    return rate


def one_cycle(progress: float) -> float:
    """Return the factor of the highest rate: up from 1/25 in the first 30 %, then down to nearly 0, along cosines.

    Smith, L. N. and Topin, N. "Super-convergence: very fast training of neural networks using large learning rates"
    (2017), with the cosines of fastai.
    """
    if progress < _WARM_UP:
        start, end, share = 1 / _START, 1.0, progress / _WARM_UP
    else:
        start, end, share = 1.0, 1 / (_START * _END), (progress - _WARM_UP) / (1 - _WARM_UP)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def is_over(recipe: Recipe, losses: Sequence[float]) -> bool:
    """Say whether training ends after these validation losses."""
    if len(losses) >= recipe.epochs:
        return True
    return recipe.early_stopping is not None and len(losses) - 1 - best(losses) >= recipe.early_stopping


def best(losses: Sequence[float]) -> int:
    """Return the index of the lowest loss, the first of equal ones; -1 where there is none."""
    return min(range(len(losses)), key=losses.__getitem__, default=-1)
