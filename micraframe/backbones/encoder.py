"""The network that MICRA-Net's backbones are built from: convolutional blocks and the encoder of a U-Net."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, Literal, cast

from pydantic import Field
from torch import Tensor, nn

from micraframe.backbones.narrow_norm import batch_norm
from micraframe.types import Layer

Norm = Annotated[
    Literal["torch", "narrow"],
    Field(
        description="How batch normalisation is computed in training: torch, or narrow, which is faster on a CPU for "
        "fewer than 16 filters and equal up to rounding."
    ),
]


def encoder_layers(widths: tuple[int, ...]) -> tuple[Layer, ...]:
    """Return the layers of an encoder with these filters per stage: L1, L2, ..., two per stage."""
    return tuple(Layer(f"L{index + 1}", widths[index // 2], 2 ** (index // 2)) for index in range(2 * len(widths)))


class Encoder(nn.Module):
    """The encoder of a U-Net: stages of two blocks, with 2x2 max-pooling between the stages.

    Attributes:
        blocks: Blocks by name, `1a`, `1b`, `2a`, ..., each with `conv`, `norm` and `relu`.

    Args:
        channels: Number of channels C of the images.
        widths: Filters of each stage.
        norm: How batch normalisation is computed in training.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], norm: Norm = "torch") -> None:
        super().__init__()
        # One per use, because captum's DeepLift needs modules that are used once.
        self.pools = nn.ModuleList(nn.MaxPool2d(2) for _ in widths[1:])
        self.blocks = nn.ModuleDict()
        for stage, width in enumerate(widths, start=1):
            self.blocks[f"{stage}a"] = Block(channels, width, norm)
            self.blocks[f"{stage}b"] = Block(width, width, norm)
            channels = width

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of all blocks, shallow to deep, for images (B, C, H, W)."""
        outputs: list[Tensor] = []
        for name, module in self.blocks.items():
            if outputs and name.endswith("a"):
                images = self.pools[len(outputs) // 2 - 1](images)
            images = module(images)
            outputs.append(images)
        return outputs


class Block(nn.Sequential):
    """A 3x3 convolution that keeps the size, with He's initial weights, batch normalisation and ReLU.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        normalisation: How batch normalisation is computed in training.
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    relu: nn.ReLU

    def __init__(self, inputs: int, outputs: int, normalisation: Norm = "torch") -> None:
        conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        super().__init__(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs), relu=nn.ReLU()))
        self._narrow = normalisation == "narrow"

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, outputs, H, W) for (B, inputs, H, W)."""
        images = self.conv(images)
        # Only in training: for inference, the normalisation may have been folded into the convolution.
        images = batch_norm(images, self.norm) if self.training and self._narrow else self.norm(images)
        return cast("Tensor", self.relu(images))
