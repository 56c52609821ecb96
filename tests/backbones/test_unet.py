from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn import functional

from micraframe.backbones.unet import UNetBackbone, Up, Upsampling
from micraframe.backbones.unet_encoder import UNetEncoder
from micraframe.types import Layer


def make(channels: int = 1, **params: object) -> tuple[nn.Module, tuple[Layer, ...]]:
    torch.manual_seed(0)
    return UNetBackbone(UNetBackbone.Params(**params)).create(channels)


def test_layers_of_the_encoder_then_of_the_decoder() -> None:
    _, layers = make(widths=(2, 3, 4, 5))
    assert [layer.name for layer in layers] == [f"L{number}" for number in range(1, 15)]
    assert [layer.channels for layer in layers] == [2, 2, 3, 3, 4, 4, 5, 5, 4, 4, 3, 3, 2, 2]
    assert [layer.stride for layer in layers] == [1, 1, 2, 2, 4, 4, 8, 8, 4, 4, 2, 2, 1, 1]


@pytest.mark.parametrize("size", [(8, 8), (17, 40), (31, 9), (15, 23)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("upsampling", get_args(Upsampling))
def test_layers_have_the_shapes_they_announce(size: tuple[int, int], channels: int, upsampling: Upsampling) -> None:
    network, layers = make(channels, widths=(2, 3, 4, 5), upsampling=upsampling)
    features = network(torch.rand(2, channels, *size))
    for layer, feature in zip(layers, features, strict=True):
        assert feature.shape == (2, layer.channels, size[0] // layer.stride, size[1] // layer.stride)
        assert feature.min() >= 0


def test_the_encoder_is_the_other_backbones() -> None:
    network, _ = make(widths=(3, 4))
    torch.manual_seed(0)
    encoder, _ = UNetEncoder(UNetEncoder.Params(widths=(3, 4))).create(1)
    images = torch.rand(2, 1, 9, 12)
    for ours, theirs in zip(network.eval()(images), encoder.eval()(images), strict=False):
        assert torch.equal(ours, theirs)


def test_a_single_stage_has_nothing_to_decode() -> None:
    network, layers = make(widths=(3,))
    assert [layer.name for layer in layers] == ["L1", "L2"]
    assert len(network(torch.rand(2, 1, 5, 5))) == 2


@pytest.mark.parametrize(("upsampling", "patterned"), [("bilinear", False), ("transposed", True)])
def test_interpolation_leaves_no_pattern_inside_a_constant_image(upsampling: Upsampling, patterned: bool) -> None:
    network, _ = make(widths=(3, 4, 5), upsampling=upsampling)
    with torch.no_grad():
        inside = network.eval()(torch.full((1, 1, 96, 99), 0.7))[-1][..., 32:-32, 32:-32]
    varies = inside.flatten(2).std(2).max().item()
    assert (varies > 1e-3) == patterned
    assert patterned or varies < 1e-6


def test_interpolation_commutes_with_the_convolution_and_stays_in_place() -> None:
    torch.manual_seed(0)
    enlarge = Up(3, 2, "torch", "bilinear").enlarge
    deep = torch.rand(1, 3, 5, 6)
    convolution = next(module for module in enlarge.modules() if isinstance(module, nn.Conv2d))
    large = functional.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarge(deep), convolution(large))
    torch.testing.assert_close(enlarge(deep.flip(3)), enlarge(deep).flip(3))


@pytest.mark.parametrize("upsampling", get_args(Upsampling))
def test_an_odd_last_row_continues_the_one_before(upsampling: Upsampling) -> None:
    up = Up(2, 1, "torch", upsampling).eval()
    seen: list[torch.Tensor] = []
    up.blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    up(torch.rand(1, 2, 2, 3), torch.zeros(1, 1, 5, 7))
    [joined] = seen
    assert joined.shape == (1, 2, 5, 7)
    assert torch.equal(joined[:, 1, 4], joined[:, 1, 3])
    assert torch.equal(joined[:, 1, :, 6], joined[:, 1, :, 5])
