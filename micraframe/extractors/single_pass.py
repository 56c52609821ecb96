"""Class activation maps of all layers from one forward pass and one backward pass per class.

The extractors built on this differ in one function: from a layer's activations, and the gradients of a logit with
respect to them, to the layer's map.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from micraframe.classifier import Classifier
from micraframe.errors import ModelError
from micraframe.extractors.frozen import choose_classes, fast_copy, probabilities
from micraframe.interfaces import ClassRule, Explain, Extractor
from micraframe.parameters import Parameters
from micraframe.runtime.device import exact_float32
from micraframe.types import FloatArray, Layer, Maps, Precision

LayerMap = Callable[[Tensor, Tensor], Tensor]
"""From activations A and gradients dy/dA, both (B, k, h, w), to maps (B, h, w)."""

ExplainChunk = Callable[[Classifier, Tensor, ClassRule], list[Maps]]
"""From a frozen classifier, images (B, C, H, W) on its device and in its precision, and a rule to the images' maps."""

MEMORY_FACTOR = 4
"""Memory of a pass relative to that of the layers: for what lies between layers, for gradients, for work space."""


class SinglePass(Extractor["SinglePass.Params"]):
    """An extractor whose maps are a function of activations and gradients alone."""

    class Params(Parameters):
        precision: Precision = Field(
            "float32",
            description="Precision of convolutions: float32 (exact), bfloat16, or auto (bfloat16 where it is fast).",
        )
        micro_batch: PositiveInt | None = Field(
            None,
            description="Images computed together; by default one on a CPU, where more would overflow the caches, and "
            "on a GPU as many as fit into half of its memory.",
        )

    @staticmethod
    @abstractmethod
    def layer_map(activations: Tensor, gradients: Tensor) -> Tensor:
        """Return a layer's maps (B, h, w), given its activations A and gradients dy/dA, both (B, k, h, w)."""

    @final
    def prepare(self, classifier: Classifier) -> Explain:
        """Return a function that explains batches of images; see `Extractor.prepare`.

        It keeps a frozen copy of the classifier, with batch normalisations folded into convolutions and channels last
        in memory. Gradients are taken with respect to the activations only, so that neither those of parameters nor of
        the image are ever computed. When a GPU's memory runs out, it continues with fewer images at a time.
        """
        return explain_in_chunks(classifier, self.params, partial(explain_chunk, layer_map=self.layer_map))


def explain_in_chunks(classifier: Classifier, params: SinglePass.Params, explain_together: ExplainChunk) -> Explain:
    """Return a function that explains batches of images, as many together as memory holds.

    Args:
        classifier: Unchanged; a frozen copy is explained.
        params: Precision and number of images.
        explain_together: Explains a part of a batch.
    """
    twin, precision = fast_copy(classifier, params.precision)
    device = next(twin.parameters()).device

    def explain(images: FloatArray, rule: ClassRule) -> list[Maps]:
        batch = torch.tensor(images).to(precision)
        needed = pass_bytes(twin.layers, images.shape[2:], precision.itemsize)
        step = params.micro_batch or images_per_pass(device, needed)
        explained: list[Maps] = []
        with exact_float32():
            while len(explained) < len(images):
                chunk = batch[len(explained) : len(explained) + step]
                try:
                    explained += explain_together(twin, chunk.to(device), rule)
                except torch.OutOfMemoryError:
                    if len(chunk) == 1:
                        raise
                    step = len(chunk) // 2
        return explained

    return explain


def pass_bytes(layers: Sequence[Layer], size: tuple[int, ...], width: int) -> int:
    """Return about how many bytes a pass needs for an image of `size` (H, W), with values of `width` bytes."""
    values = (layer.channels * math.prod(math.ceil(side / layer.stride) for side in size) for layer in layers)
    return MEMORY_FACTOR * width * sum(values)


def images_per_pass(device: torch.device, image: int) -> int:
    """Return how many images are computed together, of which a pass needs so many bytes each.

    One on a CPU, where more would overflow the caches. On a GPU, as many as fit into half of its free memory and of
    torch's reserve; elsewhere as many as fit into 4 GiB.
    """
    if device.type == "cpu":
        return 1
    budget = 4 << 30
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        budget = (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)) // 2
    return max(1, budget // image)


def explain_chunk(classifier: Classifier, images: Tensor, rule: ClassRule, layer_map: LayerMap) -> list[Maps]:
    """Explain images (B, C, H, W), on the frozen classifier's device and in its precision, all together."""
    with torch.enable_grad():
        activations = classifier.features(images.contiguous(memory_format=torch.channels_last).requires_grad_())
        logits = classifier.logits(activations[-1].float())
    presence = probabilities(logits)
    chosen = choose_classes(rule, presence)
    arrays = backward(activations, logits, chosen, layer_map, classifier.layers)
    size = (images.shape[2], images.shape[3])
    return [
        Maps(size, classes, classifier.layers, maps, row)
        for classes, maps, row in zip(chosen, arrays, presence, strict=True)
    ]


def backward(
    activations: Sequence[Tensor],
    logits: Tensor,
    chosen: Sequence[Sequence[int]],
    layer_map: LayerMap,
    layers: Sequence[Layer],
) -> list[tuple[FloatArray, ...]]:
    """Return for each image the maps, float32 (M, h, w) per layer, of the classes chosen for it.

    The first classes of all images share a pass, then the second ones, and so on, as images do not influence each
    other: there are as many passes as the longest list has classes.
    """
    ranks = max((len(classes) for classes in chosen), default=0)
    # (ranks, B, h, w) per layer; of an image with fewer classes, only these are taken below.
    maps = [torch.empty((ranks, b, h, w), device=logits.device) for b, _, h, w in (one.shape for one in activations)]
    for rank in range(ranks):
        pairs = [(image, classes[rank]) for image, classes in enumerate(chosen) if len(classes) > rank]
        rows, columns = zip(*pairs, strict=True)
        gradients = torch.autograd.grad(
            logits[list(rows), list(columns)].sum(),
            activations,
            retain_graph=rank < ranks - 1,
            allow_unused=True,
        )
        for index, (activation, gradient) in enumerate(zip(activations, gradients, strict=True)):
            if gradient is None:
                raise ModelError(f"expected the logits to depend on layer {layers[index].name!r}, got no gradient")
            maps[index][rank] = layer_map(activation.detach(), gradient)
    arrays = [layer.float().cpu().numpy() for layer in maps]
    return [tuple(layer[: len(classes), image].copy() for layer in arrays) for image, classes in enumerate(chosen)]


def weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    """Return sum_k w_k A^k, (B, h, w), for activations (B, k, h, w) and weights (B, k)."""
    batch, channels, height, width = activations.shape
    # With channels last in memory, this moves nothing.
    cells = activations.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    return (cells @ weights[..., None]).view(batch, height, width)
