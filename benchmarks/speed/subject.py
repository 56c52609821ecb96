"""What the maps and masks are made of: MICRA-Net's network, ten classes of which three are in the image, and digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.config import Choice
from micraframe.micranet import FittedMicraNet, MicraNet
from micraframe.types import DatasetInfo, FloatArray, Normalisation

WIDTHS = (32, 64, 128, 256)
"""The paper's filters."""
NARROW = (4, 8, 16, 32)
"""For a quick run."""
CLASSES = (1, 4, 8)
NUMBER = 10


def classifier(widths: Sequence[int] = WIDTHS, device: str = "cpu") -> Classifier:
    """Return a classifier with random weights, which costs what a trained one costs."""
    torch.manual_seed(0)
    return (
        Classifier(*registry.build("backbone", "unet-encoder", widths=widths).create(1), classes=NUMBER)
        .eval()
        .to(device)
    )


def digits(count: int, size: int) -> FloatArray:
    """Return images of scattered digits, float32 (count, 1, size, size)."""
    dataset = registry.build("dataset", "modified-digits", size=size, counts=(5,), train=1, valid=1, test=count)
    return np.stack([sample.image for sample in dataset.samples("test")])


def pipeline(network: Classifier, classes: Sequence[int] = CLASSES, **extractor: Any) -> FittedMicraNet:
    """Return the paper's pipeline, of which these classes, and no others, are always wanted.

    Grad-CAM of all layers, PCA of all but the deepest, its sign by the deepest, the range where that one is positive
    brought to [0, 1], Otsu's threshold.
    """
    decision = [0.0 if index in classes else 1.0 for index in range(NUMBER)]
    params = MicraNet.Params(
        extractor=Choice(name="grad-cam", params=extractor),
        combiner=Choice(name="pca", params={"sign": "deepest-weighted"}),
        head=Choice(name="semantic", params={"decision": decision, "rescale": "coarse", "threshold": "otsu"}),
    )
    info = DatasetInfo("digits", tuple(map(str, range(NUMBER))), 1, Normalisation(), "0" * 64)
    return FittedMicraNet(params, network, info, {})


def bare_passes(network: Classifier, images: FloatArray, classes: Sequence[int] = CLASSES) -> None:
    """Run what no route can do without: one forward pass, and one backward pass per class to all layers."""
    batch = torch.from_numpy(images).to(next(network.parameters()).device)
    activations = network.features(batch.requires_grad_())
    logits = network.logits(activations[-1])
    for index in classes:
        torch.autograd.grad(logits[:, index].sum(), activations, retain_graph=index != classes[-1])
