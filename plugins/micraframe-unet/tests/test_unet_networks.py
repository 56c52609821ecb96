from __future__ import annotations

import sys

import pytest
import torch
from micraframe_unet.networks import OWN, Padded, continue_from, create, start_at
from torch import nn

from micraframe.errors import MissingDependency, ModelError
from micraframe.registry import build

ENCODERS = (OWN, "tu-resnet10t")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_image_of_any_size_has_logits_of_its_size(encoder: str) -> None:
    network = create(encoder, 2, 3, (4, 8, 16)).eval()
    with torch.no_grad():
        for size in ((1, 1), (33, 47), (64, 32), (5, 80)):
            assert network(torch.rand(2, 2, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_smallest_image_can_be_learned_from(encoder: str) -> None:
    network = create(encoder, 1, 1, (4, 8, 16))
    network(torch.rand(1, 1, 1, 1)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_every_skip_reaches_the_logits() -> None:
    torch.manual_seed(0)
    network = create(OWN, 1, 1, (4, 8, 16)).eval()
    shapes = [tuple(up.enlarge.weight.shape[:2]) for up in network.network.backbone.decoder]
    assert shapes == [(16, 8), (8, 4)]
    found = network.network.backbone.encoder(torch.rand(1, 1, 16, 16))
    given = [one.detach().requires_grad_() for one in found]
    network.network.backbone.encoder = Given(given)
    gradients = torch.autograd.grad(network(torch.rand(1, 1, 16, 16)).sum(), given, allow_unused=True)
    assert [gradient is not None for gradient in gradients] == [False, True] * 3


@pytest.mark.parametrize("encoder", ENCODERS)
def test_initial_logits(encoder: str) -> None:
    torch.manual_seed(0)
    network = create(encoder, 1, 3, (4, 8, 16)).eval()
    images = torch.rand(2, 1, 20, 24)
    start_at(network, torch.zeros(3))
    before = network(images)
    start_at(network, torch.tensor([-5.0, 0.0, 2.0]))
    torch.testing.assert_close(network(images) - before, torch.tensor([-5.0, 0, 2])[:, None, None].expand_as(before))


def test_a_network_continues_from_the_backbone_of_another_model() -> None:
    teacher, (*_, last) = build("backbone", "unet", widths=(4, 8, 16)).create(2)
    assert last.channels == 4
    state = {f"backbone.{name}": tensor for name, tensor in teacher.state_dict().items()} | {
        "linear.bias": torch.ones(3)
    }
    network = create(OWN, 2, 3, (4, 8, 16)).eval()
    continue_from(network, state)
    images = torch.rand(1, 2, 16, 20)
    torch.testing.assert_close(network.network.backbone(images)[-1], teacher.eval()(images)[-1])


def test_an_encoder_becomes_the_networks_encoder() -> None:
    teacher, _ = build("backbone", "unet-encoder", widths=(4, 8, 16)).create(2)
    state = {f"backbone.{name}": tensor for name, tensor in teacher.state_dict().items()}
    network = create(OWN, 2, 3, (4, 8, 16)).eval()
    decoder = {name: tensor.clone() for name, tensor in network.state_dict().items() if "decoder" in name}
    continue_from(network, state)
    images = torch.rand(1, 2, 16, 20)
    encoded, expected = network.network.backbone.encoder(images)[-1], teacher.eval()(images)[-1]
    torch.testing.assert_close(encoded, expected)
    after = network.state_dict()
    assert decoder
    assert all(torch.equal(tensor, after[name]) for name, tensor in decoder.items())


@pytest.mark.parametrize(
    ("encoder", "widths", "channels"),
    [(OWN, (4, 8), 2), (OWN, (4, 8, 8), 2), (OWN, (4, 8, 16), 1), ("tu-resnet10t", (4, 8, 16), 2)],
)
def test_an_unlike_backbone_is_refused(encoder: str, widths: tuple[int, ...], channels: int) -> None:
    teacher, _ = build("backbone", "unet", widths=(4, 8, 16)).create(2)
    state = {f"backbone.{name}": tensor for name, tensor in teacher.state_dict().items()}
    with pytest.raises(ModelError, match="same widths"):
        continue_from(create(encoder, channels, 3, widths), state)


def test_of_two_backbones_none_is_chosen() -> None:
    network = create(OWN, 1, 1, (4, 8))
    state = {f"{model}.{name}": tensor for model in "ab" for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError, match="one U-Net backbone"):
        continue_from(create(OWN, 1, 1, (4, 8)), state)


class Given(nn.Module):
    def __init__(self, outputs: list[torch.Tensor]) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.outputs


def test_padding_moves_nothing() -> None:
    images = torch.rand(2, 1, 13, 22)
    seen = []

    class Identity(nn.Module):
        def forward(self, padded: torch.Tensor) -> torch.Tensor:
            seen.append(padded.shape[2:])
            return padded

    assert torch.equal(Padded(Identity(), 8)(images), images)
    assert torch.equal(Padded(Identity(), 1)(images), images)
    assert seen == [(16, 24), (13, 22)]


def test_the_receptive_field_of_the_deepest_cells_is_centred_on_them() -> None:
    """Of a constant image, inside, and a mirrored one, a network without a preferred side gives mirrored logits."""
    torch.manual_seed(0)
    network = create(OWN, 1, 1, (4, 8)).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            with torch.no_grad():
                module.weight.copy_((module.weight + module.weight.flip(3)) / 2)
    image = torch.rand(1, 1, 12, 20)
    with torch.no_grad():
        assert torch.allclose(network(image.flip(3)).flip(3), network(image), atol=1e-5)


def test_unsuitable_encoders_are_named() -> None:
    with pytest.raises(ModelError, match="unknown encoder 'tu-resnt18'; did you mean 'tu-resnet18'"):
        create("tu-resnt18", 1, 1)
    with pytest.raises(ModelError, match="'tu-vit_tiny_patch16_224' is unsuitable: ValueError"):
        create("tu-vit_tiny_patch16_224", 1, 1)
    with pytest.raises(ModelError, match="pretrained: false"):
        create(OWN, 1, 1, (4, 8), pretrained=True)


def test_without_segmentation_models_pytorch_only_its_encoders_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    create(OWN, 1, 1, (4, 8))
    with pytest.raises(MissingDependency, match="pip install segmentation-models-pytorch"):
        create("tu-resnet18", 1, 1)
