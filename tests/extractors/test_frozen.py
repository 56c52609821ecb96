"""The frozen copy, and when batch normalisations may be folded."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from benchmarks import timm_table
from micraframe import registry
from micraframe.classifier import Classifier, create_classifier
from micraframe.extractors.frozen import frozen_copy
from micraframe.types import Layer

LEFT = {
    "resnet10t": (14, 0),
    "skresnet18": (36, 0),
    "resnest14d": (23, 0),
    "convnext_atto": (0, 0),
    "inception_next_atto": (16, 15),
    "starnet_s1": (35, 0),
    "edgenext_xx_small": (0, 0),
    "efficientnet_lite0": (48, 0),
    "fbnetc_100": (64, 0),
    "mnasnet_small": (45, 0),
    "tinynet_e": (30, 0),
    "mobilenetv3_small_050": (34, 0),
    "lcnet_035": (27, 0),
    "ghostnet_050": (63, 0),
    "regnetx_002": (44, 0),
    "nf_regnet_b0": (0, 0),
    "repvgg_a0": (61, 17),
    "rexnet_100": (61, 0),
    "ese_vovnet19b_slim": (19, 0),
    "cspresnet50": (55, 0),
    "darknet17": (16, 0),
    "xception41": (84, 0),
    "densenet121": (121, 62),
    "vgg11": (0, 0),
}
"""Batch normalisations before and after folding, of the models in `docs/timm.md`.

Those of inception_next take a concatenation, repvgg's are a branch by themselves, densenet's come before convolutions.
"""


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
    return Classifier(Plain(outputs), tuple(Layer(name, 2, 1) for name in names), 2, 1).eval()


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
                raise RuntimeError("expected float32")
            return super().forward(images)

    twin = frozen_copy(Classifier(Picky("normed"), (Layer("one", 2, 1),), 2, 1), fold=True)
    assert isinstance(twin.backbone.norm, nn.BatchNorm2d)
    assert not twin.backbone.norm._forward_hooks


@pytest.mark.parametrize("backbone", [("unet-encoder", {}), ("timm", {"model": "resnet10t"})])
def test_all_of_a_network_is_folded(backbone):
    name, params = backbone
    classifier = create_classifier(registry.build("backbone", name, **params), 1, 2)
    twin = frozen_copy(classifier, fold=True)
    assert any(isinstance(module, nn.BatchNorm2d) for module in classifier.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.modules())
    assert not twin.training
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.float32}


def test_the_counts_are_of_the_documented_models():
    assert list(LEFT) == timm_table.SERVE


@pytest.mark.parametrize("model", LEFT)
def test_of_timms_models_all_is_folded_but_what_has_no_convolution_to_itself(model):
    classifier = create_classifier(registry.build("backbone", "timm", model=model), 1, 2)
    twin = frozen_copy(classifier, fold=True)
    counts = [sum(isinstance(part, nn.BatchNorm2d) for part in network.modules()) for network in (classifier, twin)]
    assert tuple(counts) == LEFT[model]
    images = torch.rand(1, 1, 65, 70)
    with torch.no_grad():
        for one, other in zip(twin.features(images), classifier.eval().features(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


class Rectified(Plain):
    """A convolution and timm's normalisation, which rectifies, with statistics of its own."""

    def __init__(self) -> None:
        super().__init__("normed")
        norm = BatchNormAct2d(2, inplace=False, drop_layer=nn.Dropout)
        norm.load_state_dict(self.norm.state_dict())
        self.norm = norm


def test_of_timms_normalisation_dropout_and_activation_are_left():
    torch.manual_seed(0)
    classifier = Classifier(Rectified(), (Layer("one", 2, 1),), 2, 1).eval()
    twin = frozen_copy(classifier, fold=True)
    assert [type(part) for part in twin.backbone.norm] == [nn.Dropout, nn.ReLU]
    images = torch.rand(1, 2, 9, 7)
    torch.testing.assert_close(twin.features(images), classifier.features(images))
