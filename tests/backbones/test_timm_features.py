from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from benchmarks import timm_table
from micraframe.backbones.timm_features import Features, TimmFeatures, dry_run
from micraframe.errors import DataError, ModelError
from micraframe.types import Layer

PAGE = Path(__file__).parents[2] / "docs" / "timm.md"
ROWS = [line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
SERVE = {
    model.strip(): (tuple(names.strip().split(", ")), tuple(map(int, strides.split(","))))
    for model, names, strides in (row for row in ROWS[1:] if len(row) == 3)
}
"""Families that serve: names and strides of their layers, as the documentation has them."""

REFUSED = [row[0].strip() for row in ROWS[1:] if len(row) == 2][1:]
"""Models that cannot serve, as the documentation has them."""


def create(model: str, channels: int = 1, **params: Any) -> tuple[nn.Module, tuple[Layer, ...]]:
    torch.manual_seed(0)
    return TimmFeatures(TimmFeatures.Params(model=model, **params)).create(channels)


def test_at_least_twelve_families_serve() -> None:
    assert len(SERVE) >= 12


@pytest.mark.parametrize("model", SERVE)
def test_convolutional_families_serve(model: str) -> None:
    _, layers = create(model, channels=2)  # the dry run is part of it
    assert (tuple(layer.name for layer in layers), tuple(layer.stride for layer in layers)) == SERVE[model]


def test_the_page_has_the_models_of_its_generator() -> None:
    assert (list(SERVE), REFUSED) == (timm_table.SERVE, timm_table.REFUSED)


@pytest.mark.parametrize("model", REFUSED)
def test_what_cannot_serve_is_refused_in_the_words_of_the_page(model: str) -> None:
    assert timm_table.refused(model) in PAGE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("model", ["resnet10t", "mobilenetv3_small_050", "ese_vovnet19b_slim"])
def test_no_feature_is_overwritten_by_what_follows(model: str) -> None:
    """A network that ends at the layer has nothing that could overwrite it."""
    image = torch.rand(1, 1, 40, 56)
    whole, layers = create(model)
    assert not any(getattr(module, "inplace", False) for module in whole.modules())
    whole.eval()
    features = whole(image)
    for index in range(len(layers)):
        short = timm.create_model(model, features_only=True, in_chans=1, out_indices=(index,)).eval()
        weights = whole.network.state_dict()
        short.load_state_dict({name: weights[name] for name in short.state_dict()})
        torch.testing.assert_close(features[index], short(image)[0])


def test_a_choice_of_layers() -> None:
    network, layers = create("resnet10t", out_indices=(1, 3))
    assert [layer.name for layer in layers] == ["layer1", "layer3"]
    assert [feature.shape[1] for feature in network(torch.rand(2, 1, 33, 35))] == [64, 256]


def test_options_reach_timm() -> None:
    _, layers = create("resnet10t", options={"output_stride": 8})
    assert [layer.stride for layer in layers] == [2, 4, 8, 8, 8]


def test_the_seed_fixes_the_weights_and_the_dry_run_leaves_no_trace() -> None:
    one, _ = create("resnet10t")
    torch.manual_seed(0)
    other = timm.create_model("resnet10t", features_only=True, in_chans=1)
    for name, tensor in other.state_dict().items():
        assert torch.equal(one.network.state_dict()[name], tensor)
    assert one.training
    assert all(parameter.grad is None for parameter in one.parameters())


def test_an_unknown_model_gets_near_names() -> None:
    with pytest.raises(ModelError, match="no model 'resnet81'; did you mean 'resnet18'"):
        create("resnet81")


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ModelError, match="colour"):
        create("resnet10t", options={"colour": 3})


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timm.create_model

    def offline(*args: Any, pretrained: bool = False, **kwargs: Any) -> Any:
        if pretrained:
            raise ConnectionError("no route to host")
        return made(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match="published weights of .*no route to host.*pretrained: false") as caught:
        create("resnet10t", pretrained=True)
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_too_small_an_image_is_refused_plainly() -> None:
    network = Features(nn.MaxPool2d(32), 32)
    with pytest.raises(DataError, match="16 x 40 pixels is too small.*32"):
        network(torch.rand(1, 1, 16, 40))


class Fixed(nn.Module):
    """Gives what it is told to, whatever the image."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        return self.make(images.clone().requires_grad_())


LAYERS = (Layer("one", 1, 1), Layer("two", 1, 1))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda x: [x + 1], "announces 2 layers and gives 1"),
        (lambda x: [y := x + 1, y.flatten(2)], "'two' has shape"),
        (lambda x: [y := x + 1, y[..., ::2]], "'two' has 97 x 38 cells"),
        (lambda x: [x + 1, x + 2], "'one': no gradient"),
        (lambda x: [x + 1, x.detach()], "fails: RuntimeError"),
    ],
)
def test_the_dry_run_finds(make: Any, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        dry_run(Features(Fixed(make), 1), LAYERS, 1, "fixed")


def test_the_dry_run_passes_a_row_of_layers() -> None:
    def make(x: Tensor) -> list[Tensor]:
        first = x + 1
        return [first, first * 2]

    dry_run(Features(Fixed(make), 1), LAYERS, 1, "fixed")
