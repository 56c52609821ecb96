from __future__ import annotations

import pytest
import torch
from noise_samples import make_samples
from torch import nn

from micraframe.backbones.timm_features import TimmFeatures
from micraframe.backbones.unet_encoder import UNetEncoder
from micraframe.classifier import Classifier, create_classifier
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError
from micraframe.micranet import MicraNet, MicraNetModel
from micraframe.training import ClassifierRecipe, fit_classifier, frozen_except, renamed
from micraframe.training.finetune import stages, unfrozen
from micraframe.types import DatasetInfo, FitContext, Normalisation

RECIPE = ClassifierRecipe(epochs=2, batch_size=4, learning_rate=1e-2)
INFO = DatasetInfo("noise", ("rings", "fibers"), 1, Normalisation(), "0" * 64)


def classifier(backbone: UNetEncoder | TimmFeatures | None = None) -> Classifier:
    torch.manual_seed(0)
    return create_classifier(backbone or UNetEncoder(UNetEncoder.Params(widths=(2, 3, 4, 5))), 1, 2)


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_stages_of_the_unet_encoder_are_in_its_names() -> None:
    model = classifier()
    found = stages(model)
    assert found == {name: int(name.split(".")[2][0]) for name, _ in model.named_parameters() if "backbone" in name}


def test_stages_of_a_timm_model() -> None:
    found = stages(classifier(TimmFeatures(TimmFeatures.Params(model="resnet10t", out_indices=(1, 3)))))
    parts = {(name.split(".")[1], stage) for name, stage in found.items()}
    assert parts == {("conv1", 1), ("bn1", 1), ("layer1", 1), ("layer2", 2), ("layer3", 2)}


def test_looking_for_stages_leaves_the_network_as_it_was() -> None:
    model = classifier().train()
    model.backbone.blocks["1a"].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    assert stages(model)["backbone.blocks.1a.conv.weight"] == 1
    assert changed(model, before) == set()
    assert [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()] == flags
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("unfreeze", "learning"),
    [("linear", ""), ("linear+4", "4"), ("linear+3,4", "34"), ("linear+1", "1"), ("all", "1234")],
)
def test_only_what_is_named_learns(unfreeze: str, learning: str) -> None:
    model = classifier()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = {name for name in before if name.startswith("linear") or name.split(".")[2][0] in learning}
    with frozen_except(model, unfreeze):
        history = fit_classifier(model, make_samples(12), make_samples(4, start=50), RECIPE, FitContext())
    assert len(history.epochs) == 2
    # Convolutions before a batch normalisation have a bias whose gradient is rounding; statistics change, too.
    assert changed(model, before) | {name for name in expected if name.endswith("conv.bias")} == expected
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("unfreeze", ["", "nothing", "linear+", "4", "linear+3;4", "linear,4", "ALL"])
def test_names_of_no_parts(unfreeze: str) -> None:
    with pytest.raises(ConfigError, match="expected linear, linear\\+4"):
        unfrozen(classifier(), unfreeze)


def test_a_stage_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="stages from 1, 2, 3, 4, got 5, 7"):
        unfrozen(classifier(), "linear+4,5,7")


@pytest.fixture(scope="module")
def model() -> MicraNetModel:
    backbone = Choice(name="unet-encoder", params={"widths": [2, 3]})
    method = MicraNet(MicraNet.Params(backbone=backbone, training=RECIPE))
    return method.fit(make_samples(8), make_samples(4, start=50), INFO, FitContext(device="cpu"))


def test_a_finetuned_model_is_another_one(model: MicraNetModel) -> None:
    before = {name: tensor.clone() for name, tensor in model.classifier.state_dict().items()}
    info = DatasetInfo("other device", INFO.classes, 1, Normalisation(), "1" * 64)
    recipe = RECIPE.model_copy(update={"epochs": 1})
    context = FitContext(seed=7, device="cpu")
    tuned = model.finetune("linear+2", recipe, make_samples(8, start=90), make_samples(4), info, context)
    assert changed(model.classifier, before) == set()
    assert {name.split(".")[2][0] for name in changed(tuned.classifier, before) if "backbone" in name} == {"2"}
    assert (tuned.info, tuned.params.training) == (info, recipe)


@pytest.mark.parametrize(("classes", "channels"), [(("fibers", "rings"), 1), (("rings",), 1), (INFO.classes, 3)])
def test_other_classes_or_channels_are_refused(model: MicraNetModel, classes: tuple[str, ...], channels: int) -> None:
    info = DatasetInfo("other", classes, channels, Normalisation(), "")
    with pytest.raises(DataError, match="expected the model's classes rings, fibers and 1 channel, got"):
        model.finetune("all", RECIPE, make_samples(4), make_samples(4), info, FitContext())


def test_a_dataset_may_call_the_classes_by_other_names(model: MicraNetModel) -> None:
    info = DatasetInfo("other", ("lattice", "fibers"), 1, Normalisation(), "1" * 64)
    samples, context = (make_samples(8), make_samples(4)), FitContext(device="cpu")
    tuned = model.finetune("linear", RECIPE, *samples, info, context, {"rings": "lattice"})
    assert tuned.info.classes == ("lattice", "fibers")
    same = model.finetune("linear", RECIPE, *samples, INFO, context)
    assert not changed(tuned.classifier, same.classifier.state_dict())
    with pytest.raises(DataError, match=r"expected the model's classes rings, fibers .* set rename"):
        model.finetune("linear", RECIPE, *samples, info, context)
    with pytest.raises(ConfigError, match=r"one of the model's classes rings, fibers, got 'ring'"):
        renamed(INFO.classes, {"ring": "lattice"})
    with pytest.raises(ConfigError, match="distinct names of classes, got fibers, fibers"):
        renamed(INFO.classes, {"rings": "fibers"})
    assert renamed(INFO.classes, {"rings": "fibers", "fibers": "rings"}) == ("fibers", "rings")
