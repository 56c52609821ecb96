from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from micraframe.training import Examples, Recipe, fit
from micraframe.training.augmentation import Flip
from micraframe.types import FitContext, Sample


class Detector(nn.Module):
    """Returns its loss: the squared distance of a weighted image from its mask."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        return ((self.weight * images - targets.float()) ** 2).mean((1, 2, 3))


def samples(count: int) -> list[Sample]:
    images = np.random.default_rng(0).random((count, 1, 8, 8)).round().astype(np.float32)
    return [Sample(f"s{number}", image, masks=image > 0) for number, image in enumerate(images)]


def test_a_network_that_returns_its_losses_gets_the_targets_which_follow_the_image() -> None:
    examples = Examples(samples(8), lambda sample: sample.masks)
    recipe = Recipe(
        epochs=60, batch_size=4, learning_rate=0.1, schedule="one-cycle", early_stopping=None, augmentations=(Flip(),)
    )
    network = Detector()
    history = fit(
        network,
        examples,
        examples,
        lambda losses, targets: losses.mean(),
        recipe,
        FitContext(precision="float32", device="cpu"),
        lambda losses, targets: {"distance": losses},
        with_targets=True,
    )
    assert abs(network.weight.item() - 1) < 0.01
    assert history.best.valid_loss < 1e-3
    assert history.best.measures["distance"] == history.best.valid_loss
