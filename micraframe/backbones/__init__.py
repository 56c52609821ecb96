"""Backbones: convolutional networks, seen as a sequence of layers."""
