"""The network that is trained on image-level labels: a backbone, global pooling, and one linear layer."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional

from micraframe.types import Layer

Pooling = Literal["max", "mean"]


class Classifier(nn.Module):
    """Says for each class how much speaks for its presence in the image.

    With A^L the activations of the deepest layer, the logits are y = W pool(A^L) + b; the pooling is over all
    positions, the maximum in the paper (Bilodeau et al. 2022, Methods), so that one small structure is enough.

    Attributes:
        layers: What the backbone's layers are, shallow to deep.
        pooling: `max` or `mean`.

    Args:
        backbone: Maps images (B, C, H, W) to the list of its layers' activations, shallow to deep.
        layers: What these are.
        classes: Number of classes K.
        pooling: Over the positions of the deepest layer.
        dropout: Share of the pooled features that is dropped in training.
    """

    def __init__(
        self,
        backbone: nn.Module,
        layers: tuple[Layer, ...],
        classes: int,
        pooling: Pooling = "max",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.pooling = pooling
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(layers[-1].channels, classes)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the activations of all layers, shallow to deep, each (B, channels, h, w), for images (B, C, H, W)."""
        return cast("list[Tensor]", self.backbone(images))

    def logits(self, deepest: Tensor) -> Tensor:
        """Return the logits (B, K) for the activations (B, channels, h, w) of the deepest layer."""
        # Not amax: of equal maxima it would share the gradient among all, where pooling picks one.
        pool = functional.adaptive_max_pool2d if self.pooling == "max" else functional.adaptive_avg_pool2d
        pooled = pool(deepest, 1).flatten(1)
        return cast("Tensor", self.linear(self.dropout(pooled)))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) for images (B, C, H, W)."""
        return self.logits(self.features(images)[-1])
