"""Objectives beside the labels: their formulas, and a training with them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from noise_samples import make_samples
from pydantic import ValidationError
from torch import Tensor, nn

from micraframe.backbones.unet import UNetBackbone
from micraframe.backbones.unet_encoder import UNetEncoder
from micraframe.classifier import Classifier, create_classifier
from micraframe.errors import ConfigError
from micraframe.micranet import MicraNet
from micraframe.pooling import LogSumExp, Pooling
from micraframe.training import ClassifierRecipe, fit_classifier, objectives
from micraframe.training.objectives import MixConsistency, WithObjectives, averaged_images, draw_rectangles, mix
from micraframe.types import FitContext, Progress

MIXED: dict[str, Any] = {"objectives": ["mix-consistency"], "average": 0.9}
RECIPE: dict[str, Any] = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2, "augmentations": []}


def make(pooling: Pooling = LogSumExp(), decoder: bool = True) -> Classifier:  # noqa: B008  # frozen
    torch.manual_seed(0)
    backbone = UNetBackbone if decoder else UNetEncoder
    return create_classifier(backbone(backbone.Params(widths=(2, 3))), 1, 2, pooling, 0.0)


def train(classifier: Classifier, **changes: Any) -> dict[str, Tensor]:
    context = FitContext(seed=3, folder=changes.pop("folder", None), progress=changes.pop("progress", Progress()))
    recipe = ClassifierRecipe(**RECIPE | changes)
    fit_classifier(classifier, make_samples(12), make_samples(6, start=100), recipe, context)
    return {name: tensor.clone() for name, tensor in classifier.state_dict().items()}


def test_rectangles_lie_inside_and_have_every_area() -> None:
    torch.manual_seed(0)
    drawn = draw_rectangles(400, (8, 12)).float()
    for image in drawn:
        rows, columns = image.amax(1), image.amax(0)
        assert torch.equal(image, rows[:, None] * columns)  # a rectangle
        assert int((rows.diff() != 0).sum()) <= 2
    shares = drawn.mean((1, 2))
    assert shares.min() < 0.05
    assert shares.max() > 0.95
    assert 0.42 < shares.mean() < 0.58


def test_a_rectangle_of_the_partner_is_pasted() -> None:
    values, partners = torch.rand(3, 2, 4, 4), torch.tensor([1, 2, 0])
    inside = torch.zeros(3, 4, 4, dtype=torch.bool)
    inside[0, 1:3, 2:] = True
    mixed = mix(values, partners, inside)
    assert torch.equal(mixed[0, :, 1:3, 2:], values[1, :, 1:3, 2:])
    assert torch.equal(mixed[0, :, 0], values[0, :, 0])
    assert torch.equal(mixed[1:], values[1:])


@pytest.mark.parametrize("decoder", [True, False])
def test_the_output_is_followed_by_the_loss(decoder: bool) -> None:
    images, labels = torch.rand(4, 1, 9, 10), torch.tensor([[True, False]] * 4)

    def weighted(weight: float) -> tuple[WithObjectives, Tensor]:
        network = WithObjectives(make(decoder=decoder), (MixConsistency(weight=weight),), 0.9).train()
        torch.manual_seed(1)
        return network, network(images, labels)

    network, output = weighted(2)
    classifier = network.classifier
    assert output.shape == (4, 3)
    torch.testing.assert_close(output[:, :2], classifier.logits(classifier.features(images)[-1]))
    torch.testing.assert_close(output[:, 2], 2 * weighted(1)[1][:, 2])
    assert (output[:, 2] > 0).all()
    output[:, 2].sum().backward()
    assert network.average is not None
    assert all(parameter.grad is None for parameter in network.average.parameters())
    assert classifier.linear.weight.grad is not None
    assert network.eval()(images, labels).shape == (4, 2)


class Pixels(nn.Module):
    """A backbone whose layer is the image: the evidence is the image itself, with the weights below."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


def test_a_network_that_sees_pixels_alone_is_consistent() -> None:
    classifier = make()
    classifier.backbone = Pixels()
    classifier.linear = nn.Linear(1, 2)
    with torch.no_grad():
        classifier.linear.weight.fill_(60.0)
        classifier.linear.bias.fill_(-30.0)
    network = WithObjectives(classifier, (MixConsistency(),), 0.5).train()
    images = (torch.rand(6, 1, 8, 8) > 0.5).float()
    assert network(images, torch.ones(6, 2, dtype=torch.bool))[:, 2].max() < 1e-6
    # The teacher's finds in images without the class are not believed.
    assert network(images, torch.zeros(6, 2, dtype=torch.bool))[:, 2].min() > 1


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 12),
)
def test_the_average_is_asked_about_images_with_a_class(labels: list[tuple[bool, bool]], least: int) -> None:
    chosen = averaged_images(torch.tensor(labels).float(), least).tolist()
    needed = [number for number, row in enumerate(labels) if any(row)]
    assert chosen == sorted(set(chosen))
    assert set(needed) <= set(chosen)
    assert len(chosen) == max(len(needed), min(least, len(labels)))


def test_not_asking_it_about_the_others_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(40).reshape(20, 2) < 33

    def losses() -> tuple[int, Tensor]:
        network = WithObjectives(make(), (MixConsistency(),), 0.5).train()
        assert network.average is not None
        asked: list[int] = []
        network.average.backbone.register_forward_pre_hook(lambda module, given: asked.append(len(given[0])))
        torch.manual_seed(1)
        found = network(images, labels)[:, 2]
        return sum(asked), found

    few, found = losses()
    monkeypatch.setattr(objectives, "averaged_images", lambda present: torch.arange(len(present)))
    every, expected = losses()
    assert torch.equal(found, expected)
    assert (few, every) == (17, 20)


def test_the_average_follows_the_weights_and_is_what_is_validated() -> None:
    classifier = make()
    network = WithObjectives(classifier, (), 0.9).train()
    assert network.average is not None
    before = network.average.linear.weight.clone()
    with torch.no_grad():
        classifier.linear.weight += 1
    images, labels = torch.rand(2, 1, 8, 8), torch.ones(2, 2, dtype=torch.bool)
    network(images, labels)
    torch.testing.assert_close(network.average.linear.weight, before + 0.9)  # 1 - (1 + 0) / (10 + 0)
    network(images, labels)
    torch.testing.assert_close(network.average.linear.weight, before + 0.9 + 0.1 * 9 / 11)
    assert torch.equal(network.eval()(images, labels), network.average(images))
    assert not network.train().average.training


def test_what_is_kept_is_the_average() -> None:
    plain, averaged = train(make()), train(make(), average=0.9)
    assert plain.keys() == averaged.keys() == make().state_dict().keys()
    assert not torch.equal(plain["linear.weight"], averaged["linear.weight"])


def test_without_objectives_nothing_changes() -> None:
    changes: dict[str, Any] = {"objectives": ()}
    one, other = train(make("max", decoder=False)), train(make("max", decoder=False), **changes)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, other = train(make(), **MIXED), train(make(), **MIXED)
    assert all(torch.equal(one[name], other[name]) for name in one)


class Stop(Progress):
    def advance(self, label: str, done: int, total: int, numbers: object = ()) -> None:
        if done == 5:
            raise KeyboardInterrupt


def test_a_training_that_is_interrupted_ends_as_one_that_is_not(tmp_path: Any) -> None:
    whole = train(make(), **MIXED)
    classifier = make()
    with pytest.raises(KeyboardInterrupt):
        train(copy.deepcopy(classifier), folder=tmp_path, progress=Stop(), **MIXED)
    resumed = train(classifier, folder=tmp_path, **MIXED)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_objectives_need_evidence() -> None:
    with pytest.raises(ConfigError, match="objectives mix-consistency: expected pooling log-sum-exp.*got max"):
        train(make("max"), **MIXED)
    with pytest.raises(ValidationError, match="training: objectives mix-consistency: expected pooling log-sum-exp"):
        MicraNet.Params(training=ClassifierRecipe(**MIXED))
    MicraNet.Params(pooling="log-sum-exp", training=ClassifierRecipe(**MIXED))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"objectives": ["mix-consistency"]}, "needs a moving average of the weights; set average"),
        ({"objectives": ["mix-consistency", "mix-consistency"]}, "each at most once"),
        ({"objectives": ["shape"]}, "'mix-consistency'"),
        ({"average": 1.0}, "less than 1"),
    ],
)
def test_impossible_recipes_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClassifierRecipe(**wrong)


def test_recipes_survive_being_saved() -> None:
    recipe = ClassifierRecipe(**MIXED)
    assert ClassifierRecipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert recipe.objectives == (MixConsistency(),)
