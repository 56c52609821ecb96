"""MICRA-Net's own backbone: the encoder of a U-Net."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast, final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from micraframe.backbones.narrow_norm import batch_norm
from micraframe.errors import DataError
from micraframe.interfaces import Backbone, Parameters
from micraframe.types import Layer


@final
class UNetEncoder(Backbone):
    """Stages of two blocks - 3x3 convolution, batch normalisation, ReLU - with 2x2 max-pooling between the stages.

    The layers are the blocks' outputs, named L1, L2, ... from shallow to deep; with the default widths these are
    L1 to L8 of Bilodeau et al. 2022 (Methods, "MICRA-Net architecture").
    """

    class Params(Parameters):
        widths: tuple[PositiveInt, ...] = Field(
            (32, 64, 128, 256), min_length=1, description="Filters of each stage; as many stages as numbers."
        )

    def __init__(self, params: Params) -> None:
        self.params = params

    def create(self, channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
        """See `Backbone.create`."""
        widths = self.params.widths
        layers = tuple(
            Layer(f"L{index + 1}", widths[index // 2], 2 ** (index // 2)) for index in range(2 * len(widths))
        )
        return Encoder(channels, widths), layers


class Encoder(nn.Module):
    """The network of `UNetEncoder`.

    Attributes:
        blocks: By name, `1a`, `1b`, `2a`, ...: `conv`, `norm` and `relu` in a row.

    Args:
        channels: Number of channels C of the images.
        widths: Filters of each stage.
    """

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        # One for each use: captum's DeepLift wants modules that are used once.
        self.pools = nn.ModuleList(nn.MaxPool2d(2) for _ in widths[1:])
        self.blocks = nn.ModuleDict()
        for stage, width in enumerate(widths, start=1):
            self.blocks[f"{stage}a"] = Block(channels, width)
            self.blocks[f"{stage}b"] = Block(width, width)
            channels = width

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of all blocks, shallow to deep, for images (B, C, H, W).

        Raises:
            DataError: If a side is so short that pooling leaves nothing of it.
        """
        least = 2 ** (len(self.blocks) // 2 - 1)
        height, width = images.shape[2:]
        if min(height, width) < least:
            raise DataError(
                f"an image of {height} x {width} pixels: pooling leaves nothing of it; sides of at least {least} "
                "pixels are wanted: pad the images, or choose fewer widths"
            )
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
        inputs: Channels that come in.
        outputs: Channels that go out.
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    relu: nn.ReLU

    def __init__(self, inputs: int, outputs: int) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        with torch.no_grad():
            conv.bias.zero_()  # type: ignore[union-attr]  # it was asked for
        super().__init__(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs), relu=nn.ReLU()))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, outputs, H, W) for (B, inputs, H, W)."""
        images = self.conv(images)
        # Only in training: for use, the normalisation may have been folded into the convolution.
        images = batch_norm(images, self.norm) if self.training else self.norm(images)
        return cast("Tensor", self.relu(images))
