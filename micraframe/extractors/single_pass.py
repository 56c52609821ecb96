"""Class activation maps of all layers from one forward pass and one backward pass per class.

What the extractors built on this differ in is one function: from a layer's activations and the gradients of a logit
with respect to them, to the layer's map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from micraframe.classifier import Classifier
from micraframe.config import Precision
from micraframe.device import choose_precision, exact_float32
from micraframe.errors import ModelError
from micraframe.extractors.frozen import check_classes, checked_images, frozen_copy, probabilities
from micraframe.extractors.memory import INSIDE, Plan, budget, layer_bytes, plan, reused_if_large, smaller
from micraframe.interfaces import ClassRule, Explain, Parameters
from micraframe.types import FloatArray, Maps

LayerMap = Callable[[Tensor, Tensor], Tensor]
"""From activations A and gradients dy/dA, both (B, k, h, w), to maps (B, h, w)."""


class SinglePass(Parameters):
    """The parameters of all extractors that are built on this module."""

    precision: Precision = Field(
        "float32", description="Of the convolutions: float32 (exact), bfloat16, or auto (bfloat16 where it is fast)."
    )
    micro_batch: PositiveInt | None = Field(
        None,
        description="Images computed together; by default one on a CPU, whose caches more would overflow, "
        "and as many as half of its memory holds on a GPU.",
    )


class Part(NamedTuple):
    """What the forward pass of a micro-batch leaves: activations (B, k, h, w) per layer, and logits (B, K)."""

    activations: list[Tensor]
    logits: Tensor


def prepare(classifier: Classifier, layer_map: LayerMap, params: SinglePass) -> Explain:
    """Make a function that explains batches of images by `layer_map`; see `Extractor.prepare`.

    It keeps a frozen copy of the classifier, with batch normalisations folded into convolutions and channels last in
    memory. Gradients are taken with respect to the activations only, so that neither those of parameters nor of the
    image are ever computed. Where a GPU's memory does not suffice, the call begins anew with less at a time, and
    asks the rule again.
    """
    twin = frozen_copy(classifier, fold=True)
    device = next(twin.parameters()).device
    precision = choose_precision(params.precision, device)
    twin.backbone.to(precision)

    def explain(images: FloatArray, rule: ClassRule) -> list[Maps]:
        with checked_images(twin, images):
            if not len(images):
                return []
            size, width = images.shape[2:], precision.itemsize
            image = INSIDE * sum(layer_bytes(twin.layers, size, width))
            step = params.micro_batch or (1 if device.type == "cpu" else None)
            attempt: Plan | None = plan(len(images), image, budget(device), step)
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(precision)
            with exact_float32(), reused_if_large(device, twin.layers, size, width):
                while attempt is not None:
                    try:
                        return explain_batch(twin, batch, rule, layer_map, attempt)
                    except torch.OutOfMemoryError as error:
                        failed = error.with_traceback(None)  # whose frames hold what was computed
                    attempt = smaller(attempt)
                raise failed

    return explain


def explain_batch(
    classifier: Classifier, images: Tensor, rule: ClassRule, layer_map: LayerMap, plan: Plan
) -> list[Maps]:
    """Explain images (B, C, H, W), of the frozen classifier's precision, by `plan`; see `prepare`."""
    device = next(classifier.parameters()).device
    chunks = torch.split(images, plan.step)
    # The rule sees all images at once, so that all forward passes come first.
    parts = [forward(classifier, chunk.to(device), plan.keep) for chunk in chunks]
    scores = np.concatenate([probabilities(part.logits) for part in parts])
    chosen = check_classes(rule(scores), len(images), scores.shape[1])
    explained: list[Maps] = []
    for chunk in chunks:
        part = parts.pop(0)  # its graph is freed once it has been used
        if not plan.keep:
            part = forward(classifier, chunk.to(device))
        rows = slice(len(explained), len(explained) + len(chunk))
        arrays = backward(part, chosen[rows], layer_map, classifier)
        explained += [
            Maps((images.shape[2], images.shape[3]), classes, classifier.layers, maps, row)
            for classes, maps, row in zip(chosen[rows], arrays, scores[rows], strict=True)
        ]
    return explained


def forward(classifier: Classifier, images: Tensor, keep: bool = True) -> Part:
    """Run images (B, C, H, W) through a frozen classifier.

    Args:
        classifier: Is left as it is.
        images: On its device, of its precision.
        keep: Keep what gradients with respect to activations need; otherwise return logits only.
    """
    with torch.set_grad_enabled(keep):
        activations = classifier.features(images.contiguous(memory_format=torch.channels_last).requires_grad_(keep))
        logits = classifier.logits(activations[-1].float())
    return Part(activations if keep else [], logits)


def backward(
    part: Part, chosen: Sequence[Sequence[int]], layer_map: LayerMap, classifier: Classifier
) -> list[tuple[FloatArray, ...]]:
    """Return for each image the maps, float32 (K, h, w) per layer, of the classes chosen for it.

    Together with the first class of one image goes the first class of every other, as images do not influence each
    other: there are as many passes as the longest list has classes.
    """
    shapes = [activation.shape for activation in part.activations]
    ranks = max((len(classes) for classes in chosen), default=0)
    # (ranks, B, h, w) per layer; of those with fewer classes than there are ranks, only theirs is taken below.
    maps = [torch.empty((ranks, b, h, w), device=part.logits.device) for b, _, h, w in shapes]
    for rank in range(ranks):
        pairs = [(image, classes[rank]) for image, classes in enumerate(chosen) if len(classes) > rank]
        rows, columns = zip(*pairs, strict=True)
        gradients = torch.autograd.grad(
            part.logits[list(rows), list(columns)].sum(),
            part.activations,
            retain_graph=rank < ranks - 1,
            allow_unused=True,
        )
        for index, (activation, gradient) in enumerate(zip(part.activations, gradients, strict=True)):
            if gradient is None:
                raise ModelError(f"layer {classifier.layers[index].name!r} has no part in the decision: no gradient")
            maps[index][rank] = layer_map(activation.detach(), gradient)
    arrays = [layer.float().cpu().numpy() for layer in maps]
    return [tuple(layer[: len(classes), image].copy() for layer in arrays) for image, classes in enumerate(chosen)]


def weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    """Return sum_k w_k A^k, (B, h, w), for activations (B, k, h, w) and weights (B, k)."""
    batch, channels, height, width = activations.shape
    # Channels are last in memory: this moves nothing.
    cells = activations.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    return (cells @ weights[..., None]).view(batch, height, width)
