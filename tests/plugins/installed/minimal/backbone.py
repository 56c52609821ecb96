"""A backbone of two layers."""

from torch import nn

from micraframe.interfaces import Backbone
from micraframe.parameters import Parameters
from micraframe.types import Layer


class Network(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.shallow = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())

    def forward(self, images):
        shallow = self.shallow(images)
        return [shallow, self.deep(shallow)]


class TwoLayers(Backbone[Parameters]):
    """Two convolutions."""

    def create(self, channels):
        return Network(channels), (Layer("shallow", 8, 1), Layer("deep", 16, 2))
