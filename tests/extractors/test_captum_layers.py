"""captum's layer attributions."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.errors import ModelError
from micraframe.extractors.captum_layers import Method
from micraframe.types import Layer


def network() -> Classifier:
    torch.manual_seed(0)
    return Classifier(*registry.build("backbone", "unet-encoder", widths=(4, 8)).create(1), 3).eval()


IMAGES = np.random.default_rng(0).random((2, 1, 17, 13), np.float32)


@pytest.mark.parametrize("method", get_args(Method))
def test_every_method_gives_a_map_of_each_layer(method):
    explain = registry.build("extractor", "captum", method=method, steps=4).prepare(network())
    first, second = explain(IMAGES, lambda scores: [(2, 0), ()])
    assert [maps.shape for maps in first.maps] == [(2, 17, 13), (2, 17, 13), (2, 8, 6), (2, 8, 6)]
    assert [maps.shape for maps in second.maps] == [(0, 17, 13), (0, 17, 13), (0, 8, 6), (0, 8, 6)]
    assert all(maps.any() for maps in first.maps)


def test_activations_are_the_sums_of_filters():
    classifier = network()
    explain = registry.build("extractor", "captum", method="LayerActivation").prepare(classifier)
    maps = explain(IMAGES, lambda scores: [(1,), ()])[0].maps
    with torch.no_grad():
        wanted = classifier.features(torch.from_numpy(IMAGES))
    for one, other in zip(maps, wanted, strict=True):
        np.testing.assert_allclose(one[0], other[0].sum(0), rtol=1e-5, atol=1e-6)


def test_integrated_gradients_of_a_layer_add_up_to_the_change_of_the_logit():
    classifier = network()
    explain = registry.build("extractor", "captum", method="LayerIntegratedGradients", steps=400).prepare(classifier)
    maps = explain(IMAGES, lambda scores: [(1,), ()])[0].maps
    with torch.no_grad():
        ours, black = (classifier(tensor)[0, 1] for tensor in (torch.from_numpy(IMAGES), torch.zeros(1, 1, 17, 13)))
    assert maps[-1].sum() == pytest.approx(float(ours - black), rel=1e-3)


def test_a_layer_that_no_module_puts_out_is_an_error():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, images: Tensor) -> list[Tensor]:
            return [self.conv(images).relu()]

    classifier = Classifier(Bare(), (Layer("bare", 2, 1),), 2)
    with pytest.raises(ModelError, match="'bare' is not the output of any: use grad-cam"):
        registry.build("extractor", "captum").prepare(classifier)(IMAGES, lambda scores: [(), ()])
