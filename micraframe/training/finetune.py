"""Fine-tuning: a trained classifier goes on learning, from images of another device, in some of its parts."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
from torch import nn

from micraframe.classifier import Classifier
from micraframe.errors import ConfigError
from micraframe.training.classification import fit_classifier
from micraframe.training.history import History
from micraframe.training.recipe import Recipe
from micraframe.types import Run, Sample

UPDATE = re.compile(r"all|linear(?:\+(\d+(?:,\d+)*))?")


def finetune_classifier(
    classifier: Classifier,
    update: str,
    train: Sequence[Sample],
    valid: Sequence[Sample],
    recipe: Recipe,
    run: Run,
    classes: Sequence[str] = (),
) -> History:
    """Train parts of a classifier, as `fit_classifier` trains the whole; the others keep their statistics, too.

    Args:
        classifier: What learns.
        update: Which parts; see `updated`.
        train: Samples with labels.
        valid: Samples with labels.
        recipe: How.
        run: Seed, device, precision, folder, whom to tell of progress.
        classes: Names of the K classes, for the log.

    Raises:
        ConfigError: If `update` does not name parts of this classifier.
        DataError: As `fit_classifier` does.
        ModelError: As `fit_classifier` does.
    """
    learning = updated(classifier, update)
    before = {parameter: parameter.requires_grad for parameter in classifier.parameters()}
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(name in learning)
    try:
        return fit_classifier(classifier, train, valid, recipe, run, classes)
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)


def updated(classifier: Classifier, update: str) -> frozenset[str]:
    """Return the names of the parameters that learn.

    Args:
        classifier: Whose.
        update: `linear`; `linear+4` or `linear+3,4`, which are the linear layer and these stages of the backbone, see
            `stages`; or `all`.

    Raises:
        ConfigError: If it is none of these, or there is no such stage.
    """
    parsed = UPDATE.fullmatch(update)
    if parsed is None:
        raise ConfigError(f"update {update!r}; write linear, linear+4, linear+3,4 (stages of the backbone), or all")
    if update == "all":
        return frozenset(name for name, _ in classifier.named_parameters())
    wanted = {int(number) for number in (parsed[1] or "").split(",") if number}
    of_stage = stages(classifier)
    if absent := wanted - set(of_stage.values()):
        raise ConfigError(
            f"update {update!r}: there is no stage {', '.join(map(str, sorted(absent)))}; the backbone's stages with "
            f"something to learn are {', '.join(map(str, sorted(set(of_stage.values()))))}"
        )
    linear = {f"linear.{name}" for name, _ in classifier.linear.named_parameters()}
    return frozenset(linear | {name for name, stage in of_stage.items() if stage in wanted})


def stages(classifier: Classifier) -> dict[str, int]:
    """Return in which stage of the backbone, counted from 1, each of its parameters is.

    Layers of one stride are a stage. A parameter is in the stage of the shallowest layer that depends on it, which the
    gradients tell of any backbone; one that no layer depends on is in none.
    """
    strides = sorted({layer.stride for layer in classifier.layers})
    # A copy: what is frozen must not hide, nor statistics move.
    twin = copy.deepcopy(classifier).eval().requires_grad_(True)
    parameters = dict(twin.backbone.named_parameters(prefix="backbone"))
    first = next(module for module in twin.modules() if isinstance(module, nn.Conv2d))
    side = 2 * strides[-1] + 1
    features = twin.features(first.weight.new_zeros((1, first.in_channels, side, side)))
    found: dict[str, int] = {}
    for layer, feature in zip(classifier.layers, features, strict=True):
        rest = [name for name in parameters if name not in found]
        if rest and feature.requires_grad:
            gradients = torch.autograd.grad(
                feature.sum(), [parameters[name] for name in rest], retain_graph=True, allow_unused=True
            )
            stage = 1 + strides.index(layer.stride)
            found |= {name: stage for name, gradient in zip(rest, gradients, strict=True) if gradient is not None}
    return found
