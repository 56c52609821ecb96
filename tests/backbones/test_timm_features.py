from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from torch import nn

from benchmarks import timm_table
from micraframe.backbones.timm_features import OPTIONS, TimmFeatures
from micraframe.classifier import create_classifier
from micraframe.errors import ModelError
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
    layers = create_classifier(TimmFeatures(TimmFeatures.Params(model=model)), 2, 1).layers
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
    classifier = create_classifier(TimmFeatures(TimmFeatures.Params(model=model)), 1, 1).eval()
    whole, layers = classifier.backbone, classifier.layers
    assert not any(getattr(module, "inplace", False) for module in whole.modules())
    features = whole(image)
    for index in range(len(layers)):
        short = timm.create_model(model, features_only=True, in_chans=1, out_indices=(index,)).eval()
        weights = whole.state_dict()
        short.load_state_dict({name: weights[name] for name in short.state_dict()})
        torch.testing.assert_close(features[index], short(image)[0])


def test_a_choice_of_layers() -> None:
    network, layers = create("resnet10t", out_indices=(1, 3))
    assert [layer.name for layer in layers] == ["layer1", "layer3"]
    assert [feature.shape[1] for feature in network(torch.rand(2, 1, 33, 35))] == [64, 256]


def test_options_reach_timm() -> None:
    _, layers = create("resnet10t", options={"output_stride": 8})
    assert [layer.stride for layer in layers] == [2, 4, 8, 8, 8]


def test_the_seed_determines_the_weights() -> None:
    one, _ = create("resnet10t")
    torch.manual_seed(0)
    other = timm.create_model("resnet10t", features_only=True, in_chans=1)
    for name, tensor in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], tensor)


def test_an_unknown_model_gets_near_names() -> None:
    with pytest.raises(ModelError, match="got 'resnet81'; did you mean 'resnet18'"):
        create("resnet81")


@pytest.mark.parametrize(
    "option", ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "colour"]
)
def test_options_that_could_open_a_file_are_refused(option: str) -> None:
    with pytest.raises(ValidationError, match=f"expected options from {OPTIONS[0]}.*got {option}"):
        create("resnet10t", options={option: "evil.pth"})


@pytest.mark.parametrize("model", ["local-dir:/tmp/model", "hf-hub:someone/model"])
def test_names_that_are_an_address_are_refused(model: str) -> None:
    with pytest.raises(ModelError, match="expected the name of a timm model"):
        create(model)


def test_published_weights_that_are_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timm.create_model

    def offline(*args: Any, pretrained: bool = False, **kwargs: Any) -> Any:
        if pretrained:
            raise ConnectionError("no route to host")
        return made(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match="published weights of .*no route to host.*pretrained: false") as caught:
        create("resnet10t", pretrained=True)
    assert isinstance(caught.value.__cause__, ConnectionError)
