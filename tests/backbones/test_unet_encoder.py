from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from micraframe.backbones.unet_encoder import UNetEncoder
from micraframe.types import Layer


def make(channels: int = 1, **params: object) -> tuple[nn.Module, tuple[Layer, ...]]:
    torch.manual_seed(0)
    return UNetEncoder(UNetEncoder.Params(**params)).create(channels)


def test_default_layers_are_the_papers() -> None:
    _, layers = make()
    assert [layer.name for layer in layers] == [f"L{number}" for number in range(1, 9)]
    assert [layer.channels for layer in layers] == [32, 32, 64, 64, 128, 128, 256, 256]
    assert [layer.stride for layer in layers] == [1, 1, 2, 2, 4, 4, 8, 8]


@pytest.mark.parametrize("size", [(8, 8), (17, 40), (31, 9), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_layers_have_the_shapes_they_announce(size: tuple[int, int], channels: int) -> None:
    network, layers = make(channels, widths=(2, 3, 4, 5))
    features = network(torch.rand(2, channels, *size))
    for layer, feature in zip(layers, features, strict=True):
        assert feature.shape == (2, layer.channels, size[0] // layer.stride, size[1] // layer.stride)
        assert feature.min() >= 0


def test_equals_the_network_written_out() -> None:
    network, _ = make(widths=(3, 4))
    network.eval()
    image = torch.rand(1, 1, 13, 10)
    state = network.state_dict()
    expected, x = [], image
    for name in ("1a", "1b", "2a", "2b"):
        if name == "2a":
            x = nn.functional.max_pool2d(x, 2)
        x = nn.functional.conv2d(x, state[f"blocks.{name}.conv.weight"], state[f"blocks.{name}.conv.bias"], padding=1)
        mean, variance = state[f"blocks.{name}.norm.running_mean"], state[f"blocks.{name}.norm.running_var"]
        x = nn.functional.batch_norm(
            x, mean, variance, state[f"blocks.{name}.norm.weight"], state[f"blocks.{name}.norm.bias"]
        ).relu()
        expected.append(x)
    for ours, theirs in zip(network(image), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_normalisation_can_be_folded() -> None:
    network, _ = make(widths=(3,))
    network(torch.rand(4, 1, 8, 8))
    network.eval()
    block = network.blocks["1a"]
    image = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(block(image), fuse_conv_bn_eval(block.conv, block.norm)(image).relu())


def test_signal_keeps_its_size_at_the_start() -> None:
    network, _ = make(widths=(16, 32, 64))
    spread = [feature.std().item() for feature in network.train()(torch.randn(8, 1, 32, 32))]
    assert all(0.3 < one < 1.2 for one in spread)


def test_narrow_normalisation_is_torchs_up_to_rounding_and_only_on_request() -> None:
    images = torch.rand(4, 1, 16, 16).contiguous(memory_format=torch.channels_last)
    (default, _), (torchs, _), (narrow, _) = (
        make(widths=(4, 8)),
        make(widths=(4, 8), norm="torch"),
        make(widths=(4, 8), norm="narrow"),
    )
    outputs = [network.to(memory_format=torch.channels_last)(images)[-1] for network in (default, torchs, narrow)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])
    torch.testing.assert_close(outputs[1], outputs[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("widths", [(), (0, 4), (-1,)])
def test_impossible_widths_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        UNetEncoder.Params(widths=widths)
