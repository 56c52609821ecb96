"""A backbone: a convolutional network, seen as a sequence of layers."""

from __future__ import annotations

from typing import final

from pydantic import Field
from torch import Tensor, nn

from micraframe.interfaces import Backbone
from micraframe.parameters import Parameters
from micraframe.types import Layer


@final
class TwoConvolutions(Backbone["TwoConvolutions.Params"]):
    """Two convolutions, the second at half the resolution."""

    class Params(Parameters):
        width: int = Field(8, ge=1, description="Channels of the first layer; the second has twice as many.")

    def create(self, channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
        """Create the network, and describe its layers."""
        width = self.params.width
        return _Network(channels, width), (Layer("shallow", width, 1), Layer("deep", 2 * width, 2))


@final
class _Network(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.shallow = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())

    def forward(self, images: Tensor) -> list[Tensor]:
        shallow = self.shallow(images)
        return [shallow, self.deep(shallow)]
