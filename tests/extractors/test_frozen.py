"""The frozen copy, and when batch normalisations may be folded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.extractors.frozen import frozen_copy
from micraframe.types import Layer


class Plain(nn.Module):
    """A convolution and its normalisation; the activations are what `outputs` names."""

    def __init__(self, outputs: str) -> None:
        super().__init__()
        self.outputs = outputs
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.norm.running_mean.fill_(0.5)
        self.norm.running_var.fill_(3.0)

    def forward(self, images: Tensor) -> list[Tensor]:
        raw = self.conv(images)
        normed = self.norm(raw).relu()
        if self.outputs == "normed":
            return [normed]
        if self.outputs == "raw too":
            return [raw, normed]
        return [normed, self.norm(self.conv(normed)) + self.conv(normed)]


def classify(outputs: str) -> Classifier:
    torch.manual_seed(0)
    names = ("one",) if outputs == "normed" else ("one", "two")
    return Classifier(Plain(outputs), tuple(Layer(name, 2, 1) for name in names), 1).eval()


@pytest.mark.parametrize(("outputs", "folded"), [("normed", True), ("raw too", False), ("shared", False)])
def test_only_what_changes_nothing_is_folded(outputs, folded):
    classifier = classify(outputs)
    twin = frozen_copy(classifier, fold=True)
    assert isinstance(twin.backbone.norm, nn.Identity) is folded
    images = torch.rand(1, 2, 9, 7)
    for one, other in zip(twin.features(images), classifier.features(images), strict=True):
        torch.testing.assert_close(one, other)


def test_a_network_that_does_not_take_the_dry_runs_image_is_left_as_it_is():
    class Picky(Plain):
        def forward(self, images: Tensor) -> list[Tensor]:
            if images.dtype == torch.float64:
                raise RuntimeError("float32 is wanted")
            return super().forward(images)

    twin = frozen_copy(Classifier(Picky("normed"), (Layer("one", 2, 1),), 1), fold=True)
    assert isinstance(twin.backbone.norm, nn.BatchNorm2d)
    assert not twin.backbone.norm._forward_hooks


@pytest.mark.parametrize("backbone", [("unet-encoder", {}), ("timm", {"model": "resnet10t"})])
def test_all_of_a_network_is_folded(backbone):
    name, params = backbone
    classifier = Classifier(*registry.build("backbone", name, **params).create(1), 2)
    twin = frozen_copy(classifier, fold=True)
    assert any(isinstance(module, nn.BatchNorm2d) for module in classifier.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.modules())
    assert not twin.training
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.float32}
