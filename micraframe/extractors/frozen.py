"""A copy of a classifier to explain, so that the classifier itself is unchanged."""

from __future__ import annotations

import copy
import sys

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from micraframe.classifier import Classifier
from micraframe.interfaces import ClassRule
from micraframe.runtime.device import choose_precision
from micraframe.types import FloatArray, Precision, check_classes


def frozen_copy(classifier: Classifier, fold: bool = False) -> Classifier:
    """Return a float32 copy, in evaluation mode, without gradients for its parameters, on the same device.

    Args:
        classifier: Unchanged.
        fold: Fold batch normalisations into the convolutions before them, which is faster and equal to rounding.
    """
    device = next(classifier.parameters()).device
    # In float64, on the CPU (not every GPU has it): a folded weight is then rounded once.
    twin = copy.deepcopy(classifier).to("cpu", torch.float64).eval().requires_grad_(False)
    if fold:
        fold_batch_norms(twin)
    return twin.float().to(device).to(memory_format=torch.channels_last)


def fast_copy(classifier: Classifier, precision: Precision) -> tuple[Classifier, torch.dtype]:
    """Return a frozen copy that is optimised for speed, and the precision of its convolutions."""
    twin = frozen_copy(classifier, fold=True)
    dtype = choose_precision(precision, next(twin.parameters()).device)
    twin.backbone.to(dtype)
    return twin, dtype


def fold_batch_norms(classifier: Classifier) -> None:
    """Fold, in place, each batch normalisation into the convolution whose output it takes.

    timm's normalisations contain an activation, which remains. A normalisation that comes before a convolution, or
    takes a sum or a concatenation (as in densenet), is not folded.

    A dry run shows which belong together. If the activations of any layer then differ - because a convolution is used
    twice, or its output is used elsewhere - or the network does not accept the dry run's image, nothing is changed.

    Args:
        classifier: In evaluation mode.
    """
    side = 2 * max(layer.stride for layer in classifier.layers) + 1
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((1, classifier.channels, side, side), generator=generator).to(classifier.linear.weight)
    replaced: dict[nn.Module, nn.Module] = {}
    try:
        before, pairs = _dry_run(classifier, images)
        for convolution, norm in pairs:
            if norm.running_mean is not None and norm.running_var is not None:
                rest = list(norm.children())  # timm's: dropout, activation
                left = nn.Sequential(*rest) if rest else nn.Identity()
                replaced |= {convolution: fuse_conv_bn_eval(convolution, norm), norm: left}
        _replace(classifier, replaced)
        now, _ = _dry_run(classifier, images)
        safe = all(torch.allclose(a, b, atol=1e-9 * float(a.abs().max())) for a, b in zip(before, now, strict=True))
    except Exception:  # whatever a network raises, it still works unfolded
        safe = False
    if not safe:
        _replace(classifier, {new: old for old, new in replaced.items()})


def _dry_run(classifier: Classifier, images: Tensor) -> tuple[list[Tensor], list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """Return the activations for these images, and the batch normalisations with the convolutions before them."""
    convolutions: dict[int, nn.Conv2d] = {}
    outputs: list[Tensor] = []  # kept alive, so that no two have the same id
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if type(module) is nn.Conv2d:
            convolutions[id(output)] = module
            outputs.append(output)
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in convolutions:
            pairs.append((convolutions[id(inputs[0])], module))

    # Only these very types: what a subclass adds would be lost.
    foldable: list[type[nn.Module]] = [nn.Conv2d, nn.BatchNorm2d]
    if "timm" in sys.modules:  # otherwise the network has none of timm's modules, and importing takes seconds
        from timm.layers.norm_act import BatchNormAct2d

        foldable.append(BatchNormAct2d)
    watched = [module for module in classifier.modules() if type(module) in foldable]
    hooks = [module.register_forward_hook(after) for module in watched]
    try:
        with torch.no_grad():
            return classifier.features(images), pairs
    finally:
        for hook in hooks:
            hook.remove()


def choose_classes(rule: ClassRule, presence: FloatArray) -> list[tuple[int, ...]]:
    """Return the classes that a rule chooses for each image, given probabilities, float32 (B, K).

    Raises:
        DataError: If they are not distinct indices of classes.
    """
    chosen = [tuple(int(index) for index in rule(row)) for row in presence]
    for number, classes in enumerate(chosen):
        check_classes(f"image {number}: classes to explain", classes, presence.shape[1])
    return chosen


def probabilities(logits: Tensor) -> FloatArray:
    """Return the probability of each class, float32 (B, K), from its logits."""
    presence: FloatArray = torch.sigmoid(logits.detach()).float().cpu().numpy()
    return presence


def _replace(network: nn.Module, replaced: dict[nn.Module, nn.Module]) -> None:
    for module in list(network.modules()):
        # Not named_children, which lists a module that has two names under the first one only.
        for name, child in list(module._modules.items()):
            if child in replaced:
                setattr(module, name, replaced[child])
