"""Measurements after each epoch, as a table and as a figure."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from micraframe.runtime.files import atomic, write_text
from micraframe.training.recipe import best


@dataclass(frozen=True)
class Epoch:
    """The measurements of one epoch.

    Attributes:
        epoch: Counted from 1.
        learning_rate: At its first step.
        train_loss: Mean over the training examples, during the epoch.
        valid_loss: Mean over the validation examples, after the epoch.
        measures: Means over the validation examples, by name.
        seconds: Its duration.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    valid_loss: float
    measures: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class History:
    """The measurements of a training.

    Attributes:
        epochs: In order.
    """

    epochs: tuple[Epoch, ...]

    @property
    def losses(self) -> list[float]:
        """The validation losses."""
        return [epoch.valid_loss for epoch in self.epochs]

    @property
    def best(self) -> Epoch:
        """The epoch whose network was kept: the one with the lowest validation loss."""
        return self.epochs[best(self.losses)]


def numbers(one: Epoch) -> dict[str, float]:
    """Return the numbers of an epoch by their names in the log."""
    losses = {"learning_rate": one.learning_rate, "train_loss": one.train_loss, "valid_loss": one.valid_loss}
    return {**losses, **one.measures, "seconds": round(one.seconds, 3)}


def in_progress(one: Epoch) -> dict[str, float]:
    """Return the numbers of an epoch for a line of progress: the losses, and the mean of each measure over classes.

    Measures of classes are named by a measure and a class, such as `accuracy disc`.
    """
    found: dict[str, list[float]] = {"loss": [one.train_loss], "valid": [one.valid_loss]}
    for name, value in one.measures.items():
        found.setdefault(name.partition(" ")[0], []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def write_log(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write a CSV with one row for each of one or more epochs."""
    stream = StringIO()
    writer = csv.DictWriter(stream, ["epoch", *numbers(epochs[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": one.epoch, **numbers(one)} for one in epochs)
    write_text(path, stream.getvalue())


def draw_curves(path: Path, history: History) -> None:
    """Draw losses, measures and the learning rate over the epochs, as SVG or PNG by the path's suffix."""
    # Not pyplot, which keeps figures in memory and needs a display.
    from matplotlib.figure import Figure

    epochs = history.epochs
    axis = [one.epoch for one in epochs]
    panels = 3 if epochs[0].measures else 2
    figure = Figure(figsize=(4 * panels, 3.2))
    # No layout engine: measuring every text would take as long as everything else.
    figure.subplots_adjust(left=0.8 / (4 * panels), right=1 - 0.1 / (4 * panels), bottom=0.16, top=0.97, wspace=0.4)
    axes = figure.subplots(1, panels)
    axes[0].plot(axis, [one.train_loss for one in epochs], label="training")
    axes[0].plot(axis, history.losses, label="validation")
    axes[0].set_ylabel("loss")
    for name in epochs[0].measures:
        axes[1].plot(axis, [one.measures[name] for one in epochs], label=name)
    if panels == 3:
        axes[1].set_ylabel("validation")
    axes[-1].plot(axis, [one.learning_rate for one in epochs])
    axes[-1].set(ylabel="learning rate", yscale="log")
    for panel in axes:
        panel.set_xlabel("epoch")
        panel.axvline(history.best.epoch, color="0.6", linewidth=1, linestyle=":")
        panel.xaxis.get_major_locator().set_params(integer=True)
    for panel in axes[:-1]:
        panel.legend(fontsize="x-small", frameon=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)
