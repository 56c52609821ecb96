from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from table_files import rows_of
from torch import Tensor, nn
from torch.nn import functional

from micraframe.backbones.unet_encoder import UNetEncoder
from micraframe.classifier import Classifier, create_classifier
from micraframe.errors import ModelError
from micraframe.training import ClassifierRecipe, Examples, History, fit, fit_classifier, pos_weights
from micraframe.types import FitContext, Progress, Sample

RECIPE = ClassifierRecipe(epochs=4, batch_size=8, optimiser="adamw", schedule="one-cycle", learning_rate=1e-2)


def samples(count: int, sizes: tuple[tuple[int, int], ...] = ((16, 16),), start: int = 0) -> list[Sample]:
    """Images with a bright square (class 0) and a dark one (class 1), each in every second image or so."""
    made = []
    for number in range(start, start + count):
        rng = np.random.default_rng(number)
        image = 0.5 + 0.05 * rng.standard_normal((1, *sizes[number % len(sizes)])).astype(np.float32)
        present = rng.random(2) > 0.5
        for index, value in enumerate((1.0, 0.0)):
            if present[index]:
                y, x = rng.integers(0, 10, 2)
                image[0, y : y + 5, x : x + 5] = value
        made.append(Sample(f"s{number}", image, labels=present))
    return made


def classifier(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return create_classifier(UNetEncoder(UNetEncoder.Params(widths=(4, 8))), 1, 2, dropout=0.1)


def trained(
    recipe: ClassifierRecipe = RECIPE, context: FitContext | None = None, count: int = 48, **kwargs: Any
) -> tuple[Classifier, History]:
    model = classifier()
    history = fit_classifier(model, samples(count), samples(16, start=1000), recipe, context or FitContext(), **kwargs)
    return model, history


def print_of(module: nn.Module) -> str:
    content = b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns(precision: Any) -> None:
    _, history = trained(RECIPE.model_copy(update={"epochs": 12}), FitContext(precision=precision), count=96)
    assert history.best.valid_loss < 0.3 < history.epochs[0].valid_loss
    assert all(accuracy > 0.9 for accuracy in history.best.measures.values())


def test_same_seed_same_bytes_other_seed_other_bytes() -> None:
    one, history = trained()
    again, other_history = trained()
    assert print_of(one) == print_of(again)
    assert history.losses == other_history.losses
    assert print_of(trained(context=FitContext(seed=1))[0]) != print_of(one)


def test_the_callers_random_numbers_are_left_alone() -> None:
    model = classifier()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit_classifier(model, samples(8), samples(4), RECIPE, FitContext())
    assert torch.equal(torch.rand(3), expected)


def test_the_best_network_is_returned_ready_for_inference() -> None:
    recipe = ClassifierRecipe(epochs=6, batch_size=8, schedule="constant", learning_rate=0.05)
    model, history = trained(recipe)
    assert not model.training
    assert all(tensor.is_contiguous() for tensor in model.state_dict().values())
    valid = samples(16, start=1000)
    images = torch.stack([torch.tensor(one.image) for one in valid])
    labels = torch.stack([torch.tensor(one.labels) for one in valid])
    learned = np.stack([one.labels for one in samples(48)])
    weight = torch.from_numpy(pos_weights("auto", (~learned).sum(0), learned.sum(0)))
    with torch.no_grad():
        logits = model(images)
        loss = functional.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=weight)
    assert loss.item() == pytest.approx(history.best.valid_loss, rel=0.02)  # trained in bfloat16 where that is fast
    accuracies = ((logits > 0) == labels).float().mean(0).tolist()
    assert list(history.best.measures.values()) == pytest.approx(accuracies)


def scripted(losses: list[float], **params: Any) -> tuple[nn.Module, History]:
    """Train while the validation losses are these, whatever the network says."""
    script = iter(losses)

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        return bce(output, targets) if output.requires_grad else torch.tensor(next(script))

    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    data = Examples(samples(8), lambda sample: sample.labels)
    return network, fit(network, data, data, loss, ClassifierRecipe(epochs=len(losses), **params), FitContext())


def test_the_best_network_is_that_of_the_lowest_validation_loss() -> None:
    constant = {"schedule": "constant"}
    kept, history = scripted([3.0, 1.0, 2.0, 1.0], **constant)
    assert history.best.epoch == 2
    assert print_of(kept) == print_of(scripted([3.0, 1.0], **constant)[0])
    assert print_of(kept) != print_of(scripted([3.0, 2.0, 1.0], **constant)[0])


def test_plateau_uses_each_validation_loss() -> None:
    _, history = scripted([1.0, 2.0, 3.0, 0.5, 2.0, 0.1], plateau_patience=1, learning_rate=1e-2)
    assert [epoch.learning_rate for epoch in history.epochs] == pytest.approx([1e-2, 1e-2, 1e-2, 1e-3, 1e-3, 1e-3])


def test_early_stopping() -> None:
    _, history = scripted([3.0, 2.0, 2.5, 2.2, 1.0, 0.5], early_stopping=2)
    assert history.losses == pytest.approx([3.0, 2.0, 2.5, 2.2])


def test_images_of_several_sizes() -> None:
    sizes = ((16, 16), (15, 23), (31, 17))
    model = classifier()
    history = fit_classifier(model, samples(40, sizes), samples(9, sizes, start=1000), RECIPE, FitContext())
    assert len(history.epochs) == 4


def test_validation_does_not_depend_on_the_batch_size() -> None:
    model = classifier()
    data = Examples(samples(13), lambda sample: sample.labels)
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = []
    for batch_size in (13, 4, 5):
        model.load_state_dict(frozen)
        recipe = ClassifierRecipe(epochs=1, batch_size=batch_size, learning_rate=1e-12, augmentations=())
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.0
        losses += fit(model, data, data, bce, recipe, FitContext(precision="float32")).losses
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def bce(output: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(output, targets.float())


def test_log_and_curves(tmp_path: Path) -> None:
    _, history = trained(context=FitContext(folder=tmp_path), classes=("bright", "dark"))
    rows = rows_of(tmp_path / "log.csv")
    header = ["epoch", "learning_rate", "train_loss", "valid_loss", "accuracy bright", "accuracy dark", "seconds"]
    assert list(rows[0]) == header
    assert [float(row["valid_loss"]) for row in rows] == history.losses
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert "<svg" in (tmp_path / "curves.svg").read_text()


def test_progress_is_reported() -> None:
    class Recorder(Progress):
        def __init__(self) -> None:
            self.steps: list[tuple[int, int]] = []

        def advance(self, label: str, done: int, total: int, numbers: Any = ()) -> None:
            self.steps.append((done, total))

    recorder = Recorder()
    trained(context=FitContext(progress=recorder))
    assert recorder.steps == [*((step, 24) for step in range(1, 25)), (24, 24)]


def test_a_module_that_makes_masks(tmp_path: Path) -> None:
    """The loop serves networks that are not classifiers; masks follow their augmented images."""

    def masked(number: int) -> Sample:
        image = np.random.default_rng(number).random((1, 12, 10)).astype(np.float32)
        return Sample(f"m{number}", image, masks=image > 0.6)

    torch.manual_seed(0)
    network = nn.Conv2d(1, 1, 1)
    train, valid = (
        Examples([masked(number) for number in numbers], lambda one: one.masks)
        for numbers in (range(32), range(100, 108))
    )
    recipe = ClassifierRecipe(
        epochs=30, batch_size=4, learning_rate=0.3, augmentations=({"kind": "flip"}, {"kind": "rotation"})
    )

    def agreement(output: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"agreement": ((output > 0) == targets).float().mean((1, 2, 3))}

    history = fit(network, train, valid, bce, recipe, FitContext(folder=tmp_path), agreement)
    assert history.best.measures["agreement"] > 0.95


def test_frozen_parts_keep_parameters_and_statistics() -> None:
    model = classifier()
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit_classifier(model, samples(16), samples(8), RECIPE, FitContext())
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"linear.weight", "linear.bias"}


def test_nothing_to_train_is_refused() -> None:
    model = classifier().requires_grad_(False)
    with pytest.raises(ModelError, match="frozen"):
        fit_classifier(model, samples(4), samples(4), RECIPE, FitContext())


def test_divergence_is_an_error() -> None:
    recipe = ClassifierRecipe(epochs=5, batch_size=8, learning_rate=1e30, schedule="constant")
    with pytest.raises(ModelError, match="diverged in epoch 1.*lower the learning rate"):
        trained(recipe)


def test_gradients_are_clipped() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    seen: list[float] = []
    network[1].weight.register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad.norm().item()))
    norms: list[float] = []
    step = torch.optim.Adam.step

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        norms.append(torch.stack([p.grad.norm() for group in self.param_groups for p in group["params"]]).norm().item())
        return step(self, *args, **kwargs)

    data = Examples(samples(8), lambda sample: sample.labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", spy)
        fit(network, data, data, bce, ClassifierRecipe(epochs=2, gradient_clipping=1e-3), FitContext())
    assert min(seen) > 1e-2
    assert max(norms) <= 1.001e-3


def test_weights_of_presence() -> None:
    labels = np.array([[1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=bool)
    counts = (~labels).sum(0), labels.sum(0)
    assert pos_weights("auto", *counts).tolist() == pytest.approx([3, 1, 1, 1 / 3])
    assert pos_weights(2.5, *counts).tolist() == [2.5] * 4
    assert pos_weights(None, *counts).tolist() == [1] * 4
