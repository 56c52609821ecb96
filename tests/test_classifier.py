"""Creating classifiers, and the dry run that every backbone passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from micraframe.classifier import Classifier, check_backbone, create_classifier
from micraframe.errors import DataError, ModelError
from micraframe.interfaces import Backbone
from micraframe.parameters import Parameters
from micraframe.registry import build
from micraframe.types import Layer

Make = Callable[[Tensor], Sequence[Tensor]]
LAYERS = (Layer("one", 1, 1), Layer("two", 1, 1))


class Fixed(nn.Module):
    """Returns what `make` makes of the images."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.make = make

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        return self.make(images)


def sequence(images: Tensor) -> list[Tensor]:
    first = images + 1
    return [first, first * 2]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda x: [x + 1], "2 layers that it announces, got 1"),
        (lambda x: [y := x + 1, y.flatten(2)], "layer 'two' to have shape"),
        (lambda x: [y := x + 1, y[..., ::2]], "layer 'two' .* got 97 x 38"),
        (lambda x: [x + 1, x + 2], "at layer 'one', got none"),
        (lambda x: [x + 1, x.detach()], "failed with RuntimeError"),
        (lambda x: [x[:, :, :96], x], "layer 'one' .* got 96 x 75"),
    ],
)
def test_the_dry_run_finds(make: Make, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        check_backbone(Fixed(make), LAYERS, 1)


def test_the_dry_run_passes_a_sequence_of_layers() -> None:
    check_backbone(Fixed(sequence), LAYERS, 1)


@pytest.mark.parametrize("layers", [(), (Layer("one", 1, 1), Layer("one", 1, 1))])
def test_layers_have_distinct_names(layers: tuple[Layer, ...]) -> None:
    with pytest.raises(ModelError, match="distinct names"):
        check_backbone(Fixed(sequence), layers, 1)


class InPlace(Backbone["InPlace.Params"]):
    """A plugin's backbone that overwrites its own layer and draws random numbers when it runs."""

    class Params(Parameters):
        width: int = 2
        announced: int = 2

    def create(self, channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
        class Network(nn.Module):
            def __init__(self, width: int) -> None:
                super().__init__()
                self.conv, self.norm = nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)
                self.relu = nn.ReLU(inplace=True)

            def forward(self, images: Tensor) -> list[Tensor]:
                first = self.norm(self.conv(images + 0 * torch.rand(())))
                return [first, self.relu(first)]

        params = self.params
        return Network(params.width), (Layer("norm", params.announced, 1), Layer("relu", params.announced, 1))


def test_a_layer_is_not_overwritten_in_place() -> None:
    classifier = create_classifier(InPlace(InPlace.Params()), 1, 2).eval()
    first, second = classifier.features(torch.randn(1, 1, 9, 9))
    assert (first < 0).any()
    assert not (second < 0).any()


def test_the_error_names_the_backbone() -> None:
    with pytest.raises(ModelError, match=r"backbone InPlace\(announced=3\): expected layer 'norm'"):
        create_classifier(InPlace(InPlace.Params(announced=3)), 1, 2)


def test_the_dry_run_leaves_no_trace() -> None:
    torch.manual_seed(5)
    checked = create_classifier(InPlace(InPlace.Params()), 1, 2)
    after = torch.rand(3)
    torch.manual_seed(5)
    plain = Classifier(*InPlace(InPlace.Params()).create(1), 1, 2)
    assert torch.equal(after, torch.rand(3))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(checked.state_dict()[name], tensor)
    assert all(module.training for module in checked.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in checked.parameters())


@pytest.mark.parametrize("widths", [(2,) * 4, (1,) * 9])
def test_deep_networks_are_probed_by_an_image_that_is_large_enough(widths: tuple[int, ...]) -> None:
    classifier = create_classifier(build("backbone", "unet-encoder", widths=widths), 1, 2)
    assert (classifier.channels, classifier.classes) == (1, 2)


@pytest.mark.parametrize("size", [(7, 64), (64, 7), (1, 1)])
def test_images_that_are_too_small(size: tuple[int, int]) -> None:
    classifier = create_classifier(build("backbone", "unet-encoder", widths=(2, 2, 2, 2)), 1, 2).eval()
    with pytest.raises(DataError, match=f"at least 8 x 8 pixels.*got {size[0]} x {size[1]}"):
        classifier(torch.rand(1, 1, *size))


@pytest.mark.parametrize("shape", [(2, 5, 24, 24), (5, 24, 24)])
def test_images_that_do_not_fit(shape: tuple[int, ...]) -> None:
    classifier = create_classifier(build("backbone", "unet-encoder", widths=(2, 2)), 3, 2).eval()
    with pytest.raises(DataError, match="C = 3"):
        classifier(torch.rand(*shape))


def test_other_failures_keep_their_message() -> None:
    def fail(images: Tensor) -> list[Tensor]:
        raise RuntimeError("the network's own")

    with pytest.raises(RuntimeError, match="the network's own"):
        Classifier(Fixed(fail), LAYERS, 1, 2)(torch.rand(1, 1, 8, 8))
