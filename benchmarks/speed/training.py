"""How long does training take, how much of it is loading and augmentation, and what does bfloat16 cost?

The demo's network (8 to 64 filters), its images (96 x 96) and its batches (16): an epoch with `auto` precision
(channels-last, bfloat16 where the machine is fast at it), against a plain torch loop in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.speed.timing import Record, Route, Settings, record, take_turns
from micraframe import registry
from micraframe.classifier import Classifier, create_classifier
from micraframe.interfaces import Dataset
from micraframe.training import ClassifierRecipe, Examples, fit, fit_classifier
from micraframe.training.augmentation import augment, draw
from micraframe.training.examples import generator, index_batches
from micraframe.types import FitContext

WIDTHS = (8, 16, 32, 64)
NUMBER = 10
RECIPE = ClassifierRecipe(
    epochs=1,
    batch_size=16,
    optimiser="adamw",
    learning_rate=1e-2,
    weight_decay=1e-2,
    schedule="one-cycle",
    early_stopping=None,
    pos_weight=None,
    augmentations=(),
)
FOUR = RECIPE.model_copy(update={"augmentations": ClassifierRecipe().augmentations})
"""The same with the default augmentations of a recipe."""


def records(settings: Settings) -> list[Record]:
    """Return the speed-up over plain torch, and the fraction of loading and augmentation in an epoch."""
    data = digits(32 if settings.quick else 320, valid=1)
    train, valid = (Examples(data.samples(split), lambda sample: sample.labels) for split in ("train", "valid"))
    seconds = take_turns(routes(train, valid, settings), settings)
    return [
        record("training: an epoch", "seconds: micraframe, auto", seconds["auto"], "seconds"),
        record(
            "training: auto",
            "plain torch in float32 / micraframe, auto",
            seconds["plain"] / seconds["auto"],
            target=">= 2",
        ),
        record(
            "training: float32",
            "plain torch in float32 / micraframe, float32",
            seconds["plain"] / seconds["float32"],
        ),
        record("training: loading", "loading / an epoch", seconds["loading"] / seconds["auto"]),
        record(
            "training: loading and four augmentations",
            "loading and augmentation / an epoch",
            seconds["loading, four"] / seconds["auto, four"],
            target="<= 0.1",
        ),
    ]


def accuracy(settings: Settings) -> list[Record]:
    """Return the accuracies of three seeds trained in float32 and with `auto` precision; takes minutes."""
    data = digits(*((32, 16) if settings.quick else (1500, 500)))
    recipe = RECIPE.model_copy(update={"epochs": 1 if settings.quick else 8})

    def trained(seed: int, precision: str) -> float:
        context = FitContext(seed=seed, device=settings.device, precision=precision)
        history = fit_classifier(network(seed), data.samples("train"), data.samples("valid"), recipe, context)
        return sum(history.best.measures.values()) / NUMBER

    seeds = range(1 if settings.quick else 3)
    found = {precision: [trained(seed, precision) for seed in seeds] for precision in ("auto", "float32")}
    differences = [auto - exact for auto, exact in zip(found["auto"], found["float32"], strict=True)]
    return [
        *(
            record(f"training: accuracy, {precision}", "class-wise, on validation images", values, "accuracy")
            for precision, values in found.items()
        ),
        record("training: accuracy, difference", "auto - float32, each seed", differences, "accuracy", ">= -0.01"),
    ]


def routes(train: Examples, valid: Examples, settings: Settings) -> Mapping[str, Route]:
    """Return the routes: each an epoch, or its loading alone."""

    def ours(recipe: ClassifierRecipe, precision: str) -> Route:
        context = FitContext(device=settings.device, precision=precision)
        return lambda: fit(network(), train, valid, loss, recipe, context)

    return {
        "plain": lambda: plain(train, settings.device),
        "auto": ours(RECIPE, "auto"),
        "float32": ours(RECIPE, "float32"),
        "loading": lambda: load(train, RECIPE),
        "auto, four": ours(FOUR, "auto"),
        "loading, four": lambda: load(train, FOUR),
    }


def plain(train: Examples, device: str) -> None:
    """Train for an epoch with a plain torch loop."""
    module = network().to(device)
    optimiser = torch.optim.AdamW(module.parameters(), RECIPE.learning_rate, weight_decay=RECIPE.weight_decay)
    for indices in index_batches(train.sizes, RECIPE.batch_size, generator(0, "order")):
        images, targets = train.batch(indices)
        optimiser.zero_grad()
        loss(module(images.to(device)), targets.to(device)).backward()
        optimiser.step()


def load(train: Examples, recipe: ClassifierRecipe) -> None:
    """Load and augment an epoch's batches, as training does."""
    drawn = draw(recipe.augmentations, len(train), generator(0, "augmentation"))
    for indices in index_batches(train.sizes, recipe.batch_size, generator(0, "order")):
        augment(*train.batch(indices), recipe.augmentations, drawn, indices)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy."""
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def network(seed: int = 0) -> Classifier:
    """Return the demo's network, untrained."""
    torch.manual_seed(seed)
    backbone = registry.build("backbone", "unet-encoder", widths=WIDTHS, norm="narrow")
    return create_classifier(backbone, 1, NUMBER, dropout=0.0)


def digits(train: int, valid: int) -> Dataset:
    """Return the demo's images, 96 x 96, of one to five digits."""
    counts = (1, 2, 3, 4, 5)
    return registry.build("dataset", "modified-digits", size=96, counts=counts, train=train, valid=valid, test=1)
