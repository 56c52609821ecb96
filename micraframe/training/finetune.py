"""Fine-tuning: parts of a trained classifier continue learning, with images from another device."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from micraframe.classifier import Classifier
from micraframe.errors import ConfigError

UNFREEZE = re.compile(r"all|linear(?:\+(\d+(?:,\d+)*))?")


@contextmanager
def frozen_except(classifier: Classifier, unfreeze: str) -> Iterator[None]:
    """Freeze a classifier but for some of its parts, in place and for the duration; `fit` keeps frozen statistics too.

    Args:
        classifier: The classifier.
        unfreeze: The parts that learn; see `unfrozen`.

    Raises:
        ConfigError: If `unfreeze` does not name parts of this classifier.
    """
    learning = unfrozen(classifier, unfreeze)
    before = {parameter: parameter.requires_grad for parameter in classifier.parameters()}
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(name in learning)
    try:
        yield
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)


def renamed(classes: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Return the classes under their new names.

    Args:
        classes: Names of the classes.
        names: New names by old ones; a class that it does not mention keeps its name.

    Raises:
        ConfigError: If it mentions another class, or two classes would have the same name.
    """
    found = tuple(names.get(name, name) for name in classes)
    if unknown := [name for name in names if name not in classes]:
        raise ConfigError(f"rename: expected one of the model's classes {', '.join(classes)}, got {unknown[0]!r}")
    if len(set(found)) < len(found):
        raise ConfigError(f"rename: expected distinct names of classes, got {', '.join(found)}")
    return found


def unfrozen(classifier: Classifier, unfreeze: str) -> frozenset[str]:
    """Return the names of the parameters that learn.

    Args:
        classifier: The classifier.
        unfreeze: `linear`; `linear+4` or `linear+3,4`, the linear layer and these stages of the backbone (see
            `stages`); or `all`.

    Raises:
        ConfigError: If it is none of these, or there is no such stage.
    """
    parsed = UNFREEZE.fullmatch(unfreeze)
    if parsed is None:
        raise ConfigError(
            f"unfreeze: expected linear, linear+4, linear+3,4 (stages of the backbone) or all, got {unfreeze!r}"
        )
    if unfreeze == "all":
        return frozenset(name for name, _ in classifier.named_parameters())
    named = {int(number) for number in (parsed[1] or "").split(",") if number}
    stage_of = stages(classifier)
    if unknown := named - set(stage_of.values()):
        raise ConfigError(
            f"unfreeze {unfreeze!r}: expected stages from {', '.join(map(str, sorted(set(stage_of.values()))))}, got "
            f"{', '.join(map(str, sorted(unknown)))}"
        )
    linear = {f"linear.{name}" for name, _ in classifier.linear.named_parameters()}
    return frozenset(linear | {name for name, stage in stage_of.items() if stage in named})


def stages(classifier: Classifier) -> dict[str, int]:
    """Return the stage of the backbone, counted from 1, of each of its parameters.

    Layers of one stride are a stage. A parameter belongs to the stage of the shallowest layer that depends on it, as
    gradients show for any backbone; one that no layer depends on belongs to none.
    """
    strides = sorted({layer.stride for layer in classifier.layers})
    # A copy, so that frozen parameters are seen and statistics do not change.
    twin = copy.deepcopy(classifier).eval().requires_grad_(True)
    parameters = dict(twin.backbone.named_parameters(prefix="backbone"))
    side = 2 * strides[-1] + 1
    features = twin.features(twin.linear.weight.new_zeros((1, twin.channels, side, side)))
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
