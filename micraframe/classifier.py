"""The network that is trained on image-level labels: a backbone, one linear layer, and global pooling."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from micraframe.errors import DataError, ModelError, reason_of
from micraframe.interfaces import Backbone
from micraframe.pooling import LogSumExp, Pooling
from micraframe.types import Layer

NO_EVIDENCE = -0.5
"""Initial bias of the linear layer where evidence is pooled.

Where no feature responds, as around objects, the evidence is the bias, which training hardly moves. It must be below 0
for such positions to be background, and torch's is random; far below 0, only the peaks of objects rise above it.
"""

_PROBE = (97, 75)
"""Sides of the image of the dry run: odd, different, and multiples of no usual stride."""


_BACKBONE = "backbone."
"""What the names of a backbone's tensors contain in the state of a model, wherever it is nested."""

_ENCODER = "encoder."
"""What the names of the encoder's tensors begin with in a backbone that has a decoder, too."""


def backbone_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a model's backbone by their names in it; nothing if the model has none, or several.

    Args:
        state: Of a classifier, or of another model whose network has an attribute `backbone`.
    """
    found = [(name.partition(_BACKBONE)[2], tensor) for name, tensor in state.items() if _BACKBONE in name]
    tensors = dict(found)
    return tensors if len(tensors) == len(found) else {}


def weights_for(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that one model's backbone can start with, by their names in it; nothing if none fit.

    Args:
        own: State of the model that is to start.
        state: Of another model. Its backbone is the same, or the encoder of this one (`unet-encoder` and `unet`).
    """
    needed, given = backbone_of(own), backbone_of(state)
    for prefix in ("", _ENCODER):
        part = {name: tensor.shape for name, tensor in needed.items() if name.startswith(prefix)}
        named = {prefix + name: tensor for name, tensor in given.items()}
        if part and part == {name: tensor.shape for name, tensor in named.items()}:
            return named
    return {}


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names have a prefix, by their names without it: those of a model within a model."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


class Classifier(nn.Module):
    """Predicts which classes are in an image.

    With A^L the activations of the last layer, the logits are y = W pool(A^L) + b; the pooling is over all positions,
    the maximum in the paper (Bilodeau et al. 2022, Methods), so that one small structure is enough. With a pooling of
    evidence they are y = pool(W A^L + b): the same weights are applied at every position, and the logits are pooled.

    Args:
        backbone: Maps images (B, C, H, W) to the list of its layers' activations, in the order of computation.
        layers: Description of these layers.
        channels: Number of channels C of the images.
        classes: Number of classes K.
        pooling: `max` or `mean` of features, or `LogSumExp` of evidence.
        dropout: Fraction of the last layer's features that is dropped in training, each at all positions.
    """

    def __init__(
        self,
        backbone: nn.Module,
        layers: tuple[Layer, ...],
        channels: int,
        classes: int,
        pooling: Pooling = "max",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.channels = channels
        self.classes = classes
        self.pooling = pooling
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(layers[-1].channels, classes)
        if isinstance(pooling, LogSumExp):
            nn.init.constant_(self.linear.bias, NO_EVIDENCE)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the activations of all layers, in order, each (B, channels, h, w), for images (B, C, H, W).

        Raises:
            DataError: If the images have another number of channels, or are too small for the backbone.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise DataError(
                f"expected images of shape (B, C, H, W) with C = {self.channels}, got {tuple(images.shape)}"
            )
        try:
            return cast("list[Tensor]", self.backbone(images))
        except RuntimeError as error:
            (height, width), stride = images.shape[2:], max(layer.stride for layer in self.layers)
            if min(height, width) >= stride or isinstance(error, torch.OutOfMemoryError):
                raise
            raise DataError(
                f"expected images of at least {stride} x {stride} pixels, one cell of the deepest layer, got "
                f"{height} x {width}; pad the images, or choose a backbone with fewer layers"
            ) from error

    def evidence(self, last: Tensor) -> Tensor:
        """Return the logits at every position, (B, K, h, w), for the activations (B, channels, h, w) of the last layer.

        They are what a pooling of evidence pools; with a pooling of features, no training has looked at them.
        """
        features = functional.dropout2d(last, self.dropout.p, self.training)
        return functional.conv2d(features, self.linear.weight[:, :, None, None], self.linear.bias).float()

    def logits(self, last: Tensor) -> Tensor:
        """Return the logits (B, K) for the activations (B, channels, h, w) of the last layer."""
        if isinstance(self.pooling, LogSumExp):
            return self.pooling.pool(self.evidence(last))
        # Not amax, which shares the gradient among equal maxima; pooling picks one.
        pool = functional.adaptive_max_pool2d if self.pooling == "max" else functional.adaptive_avg_pool2d
        pooled = pool(last, 1).flatten(1)
        return cast("Tensor", self.linear(self.dropout(pooled)))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) for images (B, C, H, W)."""
        return self.logits(self.features(images)[-1])


def create_classifier(
    backbone: Backbone[Any], channels: int, classes: int, pooling: Pooling = "max", dropout: float = 0.5
) -> Classifier:
    """Create a `Classifier` on a backbone's network, with weights drawn from torch's global generator.

    Raises:
        ModelError: If the network does not do what `Backbone.create` promises.
    """
    network, layers = create_network(backbone, channels)
    return Classifier(network, layers, channels, classes, pooling, dropout)


def create_network(backbone: Backbone[Any], channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """Create a backbone's network and the description of its layers, for images of so many channels.

    In-place activations are switched off: a layer that the next one overwrites would not hold what its name says. A dry
    run then checks everything that an extractor relies on.

    Raises:
        ModelError: If the network does not do what `Backbone.create` promises.
    """
    network, layers = backbone.create(channels)
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]  # not a parameter or a module
    chosen = ", ".join(f"{name}={value!r}" for name, value in backbone.params.model_dump(exclude_defaults=True).items())
    try:
        check_backbone(network, layers, channels)
    except ModelError as error:
        raise ModelError(f"backbone {type(backbone).__name__}({chosen}): {error}") from error
    return network, layers


def probe_size(layers: tuple[Layer, ...]) -> tuple[int, int]:
    """Return the size (H, W) of an image for a dry run: at least two cells of the deepest layer."""
    least = 2 * max(layer.stride for layer in layers) + 1
    return max(_PROBE[0], least), max(_PROBE[1], least)


def check_backbone(network: nn.Module, layers: tuple[Layer, ...], channels: int) -> None:
    """Check in a dry run, on a copy, that a network maps an image of any size to the layers that it announces.

    The names of the layers are distinct, each layer is (B, channels, h, w) with one cell for every `stride` pixels, and
    the gradient of the last layer reaches all others.

    Raises:
        ModelError: If any of this does not hold.
    """
    names = [layer.name for layer in layers]
    if not layers or len(set(names)) != len(names):
        raise ModelError(f"expected one or more layers with distinct names, got {names}")
    height, width = probe_size(layers)
    twin = copy.deepcopy(network).eval().requires_grad_(True)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            images = torch.rand((1, channels, height, width), generator=torch.Generator().manual_seed(0))
            images.requires_grad_()  # a backbone may have no parameters
            features = twin(images)
            gradients = torch.autograd.grad(features[-1].sum(), features, allow_unused=True)
    except Exception as error:  # networks fail in many ways
        reason = reason_of(error, typed=True)
        raise ModelError(
            f"expected a network that takes images of any size, but {height} x {width} pixels failed with {reason}"
        ) from error
    if len(features) != len(layers):
        raise ModelError(f"expected activations of the {len(layers)} layers that it announces, got {len(features)}")
    for layer, feature, gradient in zip(layers, features, gradients, strict=True):
        shape = tuple(feature.shape)
        if len(shape) != 4 or shape[1] != layer.channels:
            raise ModelError(
                f"expected layer {layer.name!r} to have shape (batch, {layer.channels} channels, rows, columns), got "
                f"{shape}"
            )
        exact = (height / layer.stride, width / layer.stride)
        if any(abs(cells - expected) >= 1 for cells, expected in zip(shape[2:], exact, strict=True)):
            raise ModelError(
                f"expected layer {layer.name!r} of stride {layer.stride} to have about {exact[0]:.1f} x {exact[1]:.1f} "
                f"cells for {height} x {width} pixels, got {shape[2]} x {shape[3]}; choose a network with padded "
                "convolutions"
            )
        if gradient is None:
            raise ModelError(
                f"expected a gradient of the last layer at layer {layer.name!r}, got none: no later layer uses it"
            )
