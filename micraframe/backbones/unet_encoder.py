"""MICRA-Net's own backbone: the encoder of a U-Net."""

from __future__ import annotations

from typing import final

from pydantic import Field, PositiveInt
from torch import nn

from micraframe.backbones.encoder import Encoder, Norm, encoder_layers
from micraframe.interfaces import Backbone
from micraframe.parameters import Parameters
from micraframe.types import Layer


@final
class UNetEncoder(Backbone["UNetEncoder.Params"]):
    """Stages of two blocks - 3x3 convolution, batch normalisation, ReLU - with 2x2 max-pooling between the stages.

    The layers are the blocks' outputs, named L1, L2, ... from shallow to deep; with the default widths these are
    L1 to L8 of Bilodeau et al. 2022 (Methods, "MICRA-Net architecture").
    """

    class Params(Parameters):
        widths: tuple[PositiveInt, ...] = Field(
            (32, 64, 128, 256), min_length=1, description="Filters of each stage, one number per stage."
        )
        norm: Norm = "torch"

    def create(self, channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
        """Create the network."""
        widths = self.params.widths
        return Encoder(channels, widths, self.params.norm), encoder_layers(widths)
