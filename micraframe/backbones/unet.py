"""A whole U-Net as a backbone: the encoder, then its decoder, whose last layer has the image's resolution."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, cast, final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from micraframe.backbones.encoder import Block, Encoder, Norm, encoder_layers
from micraframe.interfaces import Backbone
from micraframe.parameters import Parameters
from micraframe.types import Layer

Upsampling = Literal["transposed", "bilinear"]
"""How the decoder enlarges a layer by 2: by a transposed convolution, or by interpolation."""


@final
class UNetBackbone(Backbone["UNetBackbone.Params"]):
    """MICRA-Net's encoder and a decoder that returns to the image's resolution: Ronneberger et al. 2015.

    Its layers are the blocks' outputs, in the order of computation: those of `unet-encoder`, then two of every step
    of the decoder, numbered on. With the default widths these are L1 to L8 and L9 to L14, and the last one, which a
    classifier pools, has one cell per pixel. Use it with a pooling of evidence: one of features would train the decoder
    on a single position of each filter.
    """

    class Params(Parameters):
        widths: tuple[PositiveInt, ...] = Field(
            (16, 32, 64, 128), min_length=1, description="Filters of each stage, one number per stage."
        )
        norm: Norm = "torch"
        upsampling: Upsampling = Field(
            "transposed",
            description="How the decoder enlarges a layer by 2. transposed: a learned 2 x 2 kernel, as in the paper, "
            "which can leave a checkerboard of 2 pixels in maps; bilinear: a 1 x 1 convolution, then interpolation.",
        )

    def create(self, channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
        """Create the network."""
        params = self.params
        encoder, layers = Encoder(channels, params.widths, params.norm), encoder_layers(params.widths)
        decoder = Decoder(layers, params.norm, params.upsampling)
        names = (f"L{number}" for number in itertools.count(len(layers) + 1))
        above = reversed(layers[1:-1:2])
        decoded = [Layer(next(names), skip.channels, skip.stride) for skip in above for _ in range(2)]
        return EncoderDecoder(encoder, decoder), (*layers, *decoded)


class EncoderDecoder(nn.Module):
    """The network of `UNetBackbone`.

    Args:
        encoder: Maps images to the list of its layers' activations, shallow to deep.
        decoder: Continues from them.
    """

    def __init__(self, encoder: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of all blocks, the encoder's and then the decoder's, for images (B, C, H, W)."""
        activations = self.encoder(images)
        return [*activations, *self.decoder(activations)]


class Decoder(nn.ModuleList):
    """Upsamples an encoder's deepest layer step by step, concatenating a shallower one at each.

    Ronneberger, O., Fischer, P. and Brox, T. "U-Net: convolutional networks for biomedical image segmentation". MICCAI
    2015; with padded convolutions and batch normalisation, as in the encoder.

    Args:
        layers: Description of the encoder's layers; the strides are powers of 2. The last layer of each stride is a
            skip connection.
        norm: How batch normalisation is computed in training.
        upsampling: How a layer is enlarged.
    """

    def __init__(self, layers: Sequence[Layer], norm: Norm, upsampling: Upsampling = "transposed") -> None:
        self.skips = tuple({layer.stride: index for index, layer in enumerate(layers)}.values())
        widths = [layers[index].channels for index in self.skips]
        steps = itertools.pairwise(reversed(widths))
        super().__init__(Up(deep, shallow, norm, upsampling) for deep, shallow in steps)

    def forward(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs of all blocks, two of every step, for the activations of the encoder's layers."""
        *skips, deep = (activations[index] for index in self.skips)
        outputs: list[Tensor] = []
        for up, skip in zip(self, reversed(skips), strict=True):
            outputs += up(deep, skip)
            deep = outputs[-1]
        return outputs


class Up(nn.Module):
    """Upsamples a deep layer by 2, concatenates the shallower one, and convolves twice.

    Args:
        deep: Channels of the deep layer.
        shallow: Channels of the shallow layer, and of the output.
        norm: How batch normalisation is computed in training.
        upsampling: How the deep layer is enlarged. `bilinear`: the sides of pixels coincide (`align_corners` is False),
            so that the deep cell at (y, x) stays centred on (2 y + 0.5, 2 x + 0.5).
    """

    def __init__(self, deep: int, shallow: int, norm: Norm, upsampling: Upsampling = "transposed") -> None:
        super().__init__()
        self.enlarge: nn.Module
        if upsampling == "transposed":
            self.enlarge = nn.ConvTranspose2d(deep, shallow, kernel_size=2, stride=2)
        else:
            # A 1 x 1 convolution commutes with interpolation, and costs a quarter before it.
            self.enlarge = nn.Sequential(
                nn.Conv2d(deep, shallow, kernel_size=1), nn.Upsample(scale_factor=2, mode="bilinear")
            )
        self.blocks = nn.Sequential(Block(2 * shallow, shallow, norm), Block(shallow, shallow, norm))

    def forward(self, deep: Tensor, shallow: Tensor) -> list[Tensor]:
        """Return the outputs of both blocks, (B, shallow channels, h, w), for layers of (h // 2, w // 2) and (h, w)."""
        enlarged = self.enlarge(deep)
        # An odd last row or column, which pooling left out, continues the one before it.
        down, right = (whole - part for whole, part in zip(shallow.shape[2:], enlarged.shape[2:], strict=True))
        if down or right:
            enlarged = functional.pad(enlarged, (0, right, 0, down), mode="replicate")
        first = self.blocks[0](torch.cat([shallow, enlarged], dim=1))
        return [first, cast("Tensor", self.blocks[1](first))]
