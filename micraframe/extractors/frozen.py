"""A copy of a classifier to measure on, so that the classifier itself is left as it was."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from micraframe.classifier import Classifier
from micraframe.errors import DataError
from micraframe.types import FloatArray


def frozen_copy(classifier: Classifier, fold: bool = False) -> Classifier:
    """Return a float32 copy, in evaluation mode, without gradients for its parameters, on the same device.

    Args:
        classifier: Is left as it is.
        fold: Fold batch normalisations into the convolutions before them, which changes nothing but the speed.
    """
    device = next(classifier.parameters()).device
    # In float64, on the CPU (not every GPU has it): a folded weight is then rounded once.
    twin = copy.deepcopy(classifier).to("cpu", torch.float64).eval().requires_grad_(False)
    if fold:
        fold_batch_norms(twin)
    return twin.float().to(device).to(memory_format=torch.channels_last)


def fold_batch_norms(classifier: Classifier) -> None:
    """Fold, in place, each batch normalisation into the convolution whose output it takes.

    Of timm's, which have an activation besides, that is what is left. One that comes before the convolution, or takes a
    sum or a concatenation (as densenet's do), stays: it has no convolution's output to itself.

    Which belong together is seen in a dry run. If the activations of any layer then differ - because a convolution
    serves twice, or its output is used elsewhere - or the network does not take the dry run's image, all is left as it
    was.

    Args:
        classifier: In evaluation mode.
    """
    first = _first_convolution(classifier)
    if first is None:
        return
    side = 2 * max(layer.stride for layer in classifier.layers) + 1
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((1, first.in_channels, side, side), generator=generator).to(first.weight)
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
    except Exception:  # whatever a network may raise: it can still do its work unfolded
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

    # Only of these very types: what a subclass does besides would be lost.
    foldable: list[type[nn.Module]] = [nn.Conv2d, nn.BatchNorm2d]
    if "timm" in sys.modules:  # else the network has none of timm's, and seconds of importing are saved
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


def _first_convolution(classifier: Classifier) -> nn.Conv2d | None:
    return next((module for module in classifier.modules() if isinstance(module, nn.Conv2d)), None)


@contextmanager
def checked_images(classifier: Classifier, images: FloatArray) -> Iterator[None]:
    """Check images, and say it where a forward pass within fails for their number of channels.

    What the first convolution takes is what is wanted, unless the backbone adds channels of its own: it is asked only
    after a failure.

    Raises:
        DataError: If images are not (B, C, H, W), or the network takes another C.
    """
    if images.ndim != 4:
        raise DataError(f"images of shape {images.shape}; (B, C, H, W) is wanted: stack images (C, H, W) of one size")
    try:
        yield
    except RuntimeError as error:
        first = _first_convolution(classifier)
        if first is None or first.in_channels == images.shape[1]:
            raise
        raise DataError(
            f"images of shape {images.shape} have {images.shape[1]} channels; the network takes {first.in_channels}"
        ) from error


def check_classes(chosen: Sequence[Sequence[int]], images: int, classes: int) -> list[tuple[int, ...]]:
    """Return the classes that a rule chose for each image.

    Raises:
        DataError: If it did not choose for every image, or chose a class that there is not.
    """
    if len(chosen) != images:
        raise DataError(f"the rule chose classes for {len(chosen)} images; one list for each of {images} is wanted")
    checked = [tuple(int(index) for index in row) for row in chosen]
    for number, row in enumerate(checked):
        if any(not 0 <= index < classes for index in row):
            raise DataError(f"the rule chose {row} for image {number}; classes are numbered 0 to {classes - 1}")
    return checked


def probabilities(logits: Tensor) -> FloatArray:
    """Return the probability of each class, float32 (B, K), for its logit."""
    scores: FloatArray = torch.sigmoid(logits.detach()).float().cpu().numpy()
    return scores


def _replace(network: nn.Module, replaced: dict[nn.Module, nn.Module]) -> None:
    for module in list(network.modules()):
        # Not named_children: it shows a module that has two names under the first only.
        for name, child in list(module._modules.items()):
            if child in replaced:
                setattr(module, name, replaced[child])
