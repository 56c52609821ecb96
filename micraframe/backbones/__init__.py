"""Backbones: convolutional networks seen as a row of layers."""
