"""captum's layer attributions."""

from __future__ import annotations

import re
from typing import get_args

import numpy as np
import pytest
import torch
from captum import attr
from torch import Tensor, nn

from micraframe import registry
from micraframe.classifier import Classifier, create_classifier
from micraframe.errors import ConfigError, ModelError
from micraframe.extractors.captum_layers import REFUSED, Attribution
from micraframe.types import Layer


def network() -> Classifier:
    torch.manual_seed(0)
    return create_classifier(registry.build("backbone", "unet-encoder", widths=(4, 8)), 1, 3).eval()


def choosing(*chosen: tuple[int, ...]):
    """Return a rule that chooses these classes for one image after the other."""
    remaining = iter(chosen)
    return lambda presence: next(remaining)


IMAGES = np.random.default_rng(0).random((2, 1, 17, 13), np.float32)


@pytest.mark.parametrize("method", get_args(Attribution))
def test_every_method_gives_a_map_of_each_layer(method):
    explain = registry.build("extractor", "captum", method=method, steps=4).prepare(network())
    first, second = explain(IMAGES, choosing((2, 0), ()))
    assert [maps.shape for maps in first.maps] == [(2, 17, 13), (2, 17, 13), (2, 8, 6), (2, 8, 6)]
    assert [maps.shape for maps in second.maps] == [(0, 17, 13), (0, 17, 13), (0, 8, 6), (0, 8, 6)]
    assert all(maps.any() for maps in first.maps)


BLACK = torch.zeros(1, 1, 17, 13)
OPTIONS = {
    "LayerActivation": lambda size: {},
    "LayerGradCam": lambda size: {"target": 1},
    "LayerGradientXActivation": lambda size: {"target": 1},
    "InternalInfluence": lambda size: {"target": 1, "n_steps": 4},
    "LayerConductance": lambda size: {"target": 1, "n_steps": 4},
    "LayerIntegratedGradients": lambda size: {"target": 1, "n_steps": 4},
    "LayerGradientShap": lambda size: {"target": 1, "baselines": BLACK, "n_samples": 4},
    "LayerDeepLift": lambda size: {"target": 1, "baselines": BLACK},
    "LayerFeatureAblation": lambda size: {"target": 1, "layer_mask": torch.arange(size.numel()).reshape(1, 1, *size)},
}


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")  # captum's DeepLift says so
@pytest.mark.parametrize("method", get_args(Attribution))
@pytest.mark.parametrize("index", [0, 1])
def test_values_are_those_of_captum_called_directly(method, index):
    classifier = network()
    explain = registry.build("extractor", "captum", method=method, steps=4, seed=3).prepare(classifier)
    ours = explain(IMAGES, choosing((2, 1), (1,)))[index]
    image = torch.from_numpy(IMAGES[[index]]).requires_grad_()
    for block, maps in zip(classifier.backbone.blocks.values(), ours.maps, strict=True):
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002  # captum's generator
        found = getattr(attr, method)(classifier, block).attribute(image, **OPTIONS[method](torch.Size(maps[0].shape)))
        # Of a cell that is ablated as a whole, each filter has the value of all.
        theirs = (found.mean(1) if method == "LayerFeatureAblation" else found.sum(1)).detach().numpy()[0]
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(maps[ours.classes.index(1)], theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def test_many_samples_are_those_of_some_at_a_time():
    classifier = network()
    explain = registry.build("extractor", "captum", method="LayerGradientShap", steps=20).prepare(classifier)
    maps = explain(IMAGES[:1], lambda presence: (1,))[0].maps
    image, algorithm = (
        torch.from_numpy(IMAGES[:1]),
        attr.LayerGradientShap(classifier, classifier.backbone.blocks["1a"]),
    )
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  # captum's generator
    parts = [count / 20 * algorithm.attribute(image, BLACK, count, target=1) for count in (8, 8, 4)]
    np.testing.assert_allclose(maps[0], sum(parts).detach().sum(1), rtol=1e-4, atol=1e-7)


def test_drawing_leaves_the_global_generators_alone():
    explain = registry.build("extractor", "captum", method="LayerGradientShap").prepare(network())
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # captum's generator
    expected = torch.rand(2), np.random.random(2)  # noqa: NPY002  # captum's generator
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # captum's generator
    explain(IMAGES, lambda presence: (1,))
    assert torch.equal(torch.rand(2), expected[0])
    np.testing.assert_array_equal(np.random.random(2), expected[1])  # noqa: NPY002  # captum's generator


def test_every_layer_attribution_of_captum_serves_or_is_refused():
    names = {name for name in attr.__all__ if name.startswith("Layer") and name != "LayerAttribution"}
    assert names | {"InternalInfluence"} == {*get_args(Attribution), *REFUSED}


@pytest.mark.parametrize("method", REFUSED)
def test_what_cannot_serve_is_refused_with_the_reason(method):
    with pytest.raises(ConfigError, match=f"{method} cannot be used: {re.escape(REFUSED[method])}"):
        registry.build("extractor", "captum", method=method)


def test_captum_itself_cannot_do_what_is_refused():
    classifier, images = network(), torch.from_numpy(IMAGES).requires_grad_()
    block = classifier.backbone.blocks["1a"]
    with pytest.raises(AssertionError, match="more than one"):
        attr.LayerDeepLiftShap(classifier, block).attribute(images, BLACK, target=1)
    assert not attr.LayerFeaturePermutation(lambda x: classifier(x)[:, 1], block).attribute(images[:1]).any()
    for module in (block, block.relu):
        with pytest.raises(AttributeError):
            attr.LayerLRP(network(), module).attribute(images, target=1)


def test_a_network_that_deep_lift_cannot_follow_is_an_error():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.relu = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1), nn.ReLU()

        def forward(self, images: Tensor) -> list[Tensor]:
            first = self.one(images)
            return [first, self.relu(self.two(self.relu(first)) + 1)]

    classifier = Classifier(Twice(), (Layer("first", 2, 1), Layer("last", 2, 1)), 1, 2)
    with pytest.raises(ModelError, match="LayerDeepLift cannot explain this network: .*more than once"):
        registry.build("extractor", "captum", method="LayerDeepLift").prepare(classifier)(IMAGES, lambda presence: (1,))


def test_deep_lift_follows_the_papers_network():
    torch.manual_seed(0)
    classifier = create_classifier(registry.build("backbone", "unet-encoder", widths=(2, 2, 2, 2)), 1, 2)
    explain = registry.build("extractor", "captum", method="LayerDeepLift").prepare(classifier)
    assert len(explain(IMAGES, lambda presence: (1,))[0].maps) == 8


def test_activations_are_the_sums_of_filters():
    classifier = network()
    explain = registry.build("extractor", "captum", method="LayerActivation").prepare(classifier)
    maps = explain(IMAGES, lambda presence: (1,))[0].maps
    with torch.no_grad():
        expected = classifier.features(torch.from_numpy(IMAGES))
    for one, other in zip(maps, expected, strict=True):
        np.testing.assert_allclose(one[0], other[0].sum(0), rtol=1e-5, atol=1e-6)


def test_integrated_gradients_of_a_layer_add_up_to_the_change_of_the_logit():
    classifier = network()
    explain = registry.build("extractor", "captum", method="LayerIntegratedGradients", steps=400).prepare(classifier)
    maps = explain(IMAGES, lambda presence: (1,))[0].maps
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

    classifier = Classifier(Bare(), (Layer("bare", 2, 1),), 1, 2)
    with pytest.raises(ModelError, match="'bare' is not: use grad-cam"):
        registry.build("extractor", "captum").prepare(classifier)(IMAGES, lambda presence: ())
