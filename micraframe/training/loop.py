"""The training loop: epochs, the best network, checkpoints; for any network and any loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from micraframe.errors import ModelError
from micraframe.runtime.device import choose_device, choose_precision
from micraframe.runtime.files import digest, digest_json
from micraframe.training.augmentation import augment, draw
from micraframe.training.checkpoints import Checkpoints, TrainingState, restore_optimiser, state_of, tensors_of
from micraframe.training.examples import Examples, generator, index_batches, seed_for
from micraframe.training.history import Epoch, History, draw_curves, in_progress, write_log
from micraframe.training.history import numbers as in_log
from micraframe.training.processes import Share, accelerator_for, share, share_statistics
from micraframe.training.recipe import Recipe, best, is_over, learning_rate
from micraframe.types import FitContext, Progress

Loss = Callable[[Tensor, Tensor], Tensor]
"""From the network's output (B, ...) and the targets (B, ...) to a scalar: the mean over the examples."""

Measure = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""From the network's output and the targets to named numbers (B,), whose means are logged."""


def fit(
    module: nn.Module,
    train: Examples,
    valid: Examples,
    loss: Loss,
    recipe: Recipe,
    context: FitContext,
    measure: Measure | None = None,
    with_targets: bool = False,
) -> History:
    """Train a network, and leave in it the parameters with the lowest validation loss.

    With a folder, every epoch is logged (`log.csv`), and training can resume from it (`checkpoints`); a training that
    is killed at any moment and resumed ends with the same bytes as one that is not. Running statistics of fully frozen
    modules are not updated.

    If several processes were started (see `processes`), each takes its share of every batch, and all end with the same
    parameters; only the first one writes files and reports progress.

    Args:
        module: Maps images (B, C, H, W) to an output (B, ...). Afterwards it is on the CPU, in evaluation mode.
        train: Training examples.
        valid: Examples to select the best parameters by.
        loss: Loss to minimise.
        recipe: How the network is trained.
        context: Seed, device, precision, folder for checkpoints, progress callback.
        measure: Further measurements on the validation examples.
        with_targets: Call the module with images and targets, as for a detector whose outputs are its losses.

    Returns:
        The measurements after each epoch.

    Raises:
        ModelError: If the loss is not finite, no parameter is trainable, or the folder belongs to another training.
    """
    device = choose_device(context.device)
    accelerator = accelerator_for(device)
    if accelerator.num_processes > 1:
        device = accelerator.device
    precision = choose_precision(context.precision, device)
    checkpoints = state = None
    folder = context.folder
    if folder is not None and accelerator.is_main_process:
        signature = _signature(module, train, valid, recipe, context.seed, precision)
        checkpoints = Checkpoints(folder / "checkpoints", signature)
        state = checkpoints.restore()
    [state] = broadcast_object_list([state])

    _move(module, device, torch.channels_last)
    if state is not None:
        module.load_state_dict(state.module)
    optimiser = _optimiser(module, recipe)
    if state is not None:
        restore_optimiser(optimiser, state.optimiser)
    network = accelerator.prepare(module)
    vars(module).pop("_is_accelerate_prepared", None)  # with this mark, accelerate would not wrap the module again
    epochs = [Epoch(**row) for row in state.rows] if state is not None else []
    kept = state.best if state is not None else {}

    progress = context.progress if accelerator.is_main_process else Progress()
    if epochs and not is_over(recipe, [epoch.valid_loss for epoch in epochs]):
        progress.advance(f"resuming from epoch {len(epochs) + 1} of {recipe.epochs}", 0, 0)
    steps = len(index_batches(train.sizes, recipe.batch_size))
    total = recipe.epochs * steps

    def compute(part: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        """Return the network's output (B, ...) in float32."""
        images = images.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            return cast("Tensor", part(images, targets) if with_targets else part(images)).float()

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while not is_over(recipe, losses := [epoch.valid_loss for epoch in epochs]):
            start = time.perf_counter()
            number = len(epochs)
            done = number * steps
            rates = [learning_rate(recipe, losses, (done + step) / total) for step in range(steps)]
            numbers = in_progress(epochs[-1]) if epochs else {}

            torch.manual_seed(seed_for(context.seed, "network", number) + accelerator.process_index)
            _train_mode(network)
            trained = torch.zeros((), device=device)
            batches = _training_batches(train, recipe, context.seed, number, accelerator)
            for step, (rate, (images, targets, mine)) in enumerate(zip(rates, batches, strict=True), start=1):
                targets = targets.to(device)
                value = loss(compute(network, images, targets), targets)
                _step(network, optimiser, value * mine.scale, rate, recipe.gradient_clipping)
                trained += value.detach() * (len(images) * mine.weight)
                progress.advance("training", done + step, total, numbers)
            train_loss = accelerator.reduce(trained, "sum").item() / len(train)
            share_statistics(module)

            module.eval()
            valid_loss, measures = _validate(
                partial(compute, module), valid, loss, measure, recipe.batch_size, accelerator, device
            )
            if not (math.isfinite(train_loss) and math.isfinite(valid_loss)):
                raise ModelError(
                    f"training diverged in epoch {number + 1}: expected finite losses, got {train_loss} in training "
                    f"and {valid_loss} in validation; lower the learning rate from {rates[0]:g}, or set "
                    "gradient_clipping"
                )
            seconds = time.perf_counter() - start
            epochs.append(Epoch(number + 1, rates[0], train_loss, valid_loss, measures, seconds))
            if best([*losses, valid_loss]) == number:
                kept = state_of(module)
            if folder is not None and checkpoints is not None:
                for logger in context.loggers:  # before the checkpoint, or an epoch could be lost
                    logger.log(folder, number + 1, in_log(epochs[-1]))
                rows = [asdict(epoch) for epoch in epochs]
                checkpoints.save(TrainingState(module.state_dict(), tensors_of(optimiser), kept, rows))
                write_log(folder / "log.csv", epochs)
    progress.advance("training", total, total)

    module.load_state_dict(kept)
    _move(module, torch.device("cpu"), torch.contiguous_format)
    module.eval()
    history = History(tuple(epochs))
    if folder is not None and accelerator.is_main_process:
        draw_curves(folder / "curves.svg", history)
    accelerator.wait_for_everyone()  # until the first one has written
    return history


def _training_batches(
    train: Examples, recipe: Recipe, seed: int, epoch: int, accelerator: Accelerator
) -> Iterator[tuple[Tensor, Tensor, Share]]:
    """Yield this process's share of the batches of one epoch, augmented: a function of the seed and the epoch."""
    drawn = draw(recipe.augmentations, len(train), generator(seed, "augmentation", epoch))
    for indices in index_batches(train.sizes, recipe.batch_size, generator(seed, "order", epoch)):
        mine = share(indices, accelerator.process_index, accelerator.num_processes)
        yield *augment(*train.batch(mine.indices), recipe.augmentations, drawn, mine.indices), mine


def _step(
    module: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, rate: float, longest: float | None
) -> None:
    """Take one step down the gradient of the loss.

    With torch alone: the wrapped network averages gradients over processes, and accelerate's optimiser wrapper looks up
    a package on disk twice per step, for nothing, which takes as long as a layer of a small network.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    if longest is not None:
        nn.utils.clip_grad_norm_(module.parameters(), longest)
    optimiser.step()


@torch.no_grad()
def _validate(
    compute: Callable[[Tensor, Tensor], Tensor],
    valid: Examples,
    loss: Loss,
    measure: Measure | None,
    batch_size: int,
    accelerator: Accelerator,
    device: torch.device,
) -> tuple[float, dict[str, float]]:
    """Return the means of loss and measures over the examples."""
    total = torch.zeros((), device=device)
    sums: dict[str, Tensor] = {}
    for indices in index_batches(valid.sizes, batch_size):
        mine = share(indices, accelerator.process_index, accelerator.num_processes)
        images, targets = valid.batch(mine.indices)
        targets = targets.to(device)
        output = compute(images, targets)
        total += loss(output, targets) * (len(images) * mine.weight)
        for name, values in (measure(output, targets) if measure else {}).items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + values.float().sum() * mine.weight
    total, sums = accelerator.reduce((total, sums), "sum")
    return total.item() / len(valid), {name: value.item() / len(valid) for name, value in sums.items()}


def _train_mode(module: nn.Module) -> None:
    """Set the module to training mode. Running statistics of fully frozen modules are not updated."""
    module.train()
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            part.eval()


def _optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError("expected trainable parameters, but every parameter of the network is frozen")
    optimiser = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    fused = parameters[0].device.type in ("cpu", "cuda")
    return optimiser(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused)


def _move(module: nn.Module, device: torch.device, layout: torch.memory_format) -> None:
    module.to(device=device).to(memory_format=layout)


def _signature(
    module: nn.Module, train: Examples, valid: Examples, recipe: Recipe, seed: int, precision: torch.dtype
) -> str:
    """Return a hash of everything that determines the training."""
    trainable = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    weights = (
        part
        for name, tensor in module.state_dict().items()
        for part in (name, tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    )
    data = [train.fingerprint, valid.fingerprint]
    return digest_json([recipe.model_dump(mode="json"), seed, str(precision), data, trainable, digest(*weights)])
