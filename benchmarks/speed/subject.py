"""What is measured: MICRA-Net's network, with three of ten classes in the image, and images of digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from micraframe import registry
from micraframe.classifier import Classifier, create_classifier
from micraframe.config import Choice
from micraframe.micranet import NAME, MicraNet, MicraNetModel
from micraframe.pipeline import Pipeline
from micraframe.types import DatasetInfo, FloatArray, Normalisation

WIDTHS = (32, 64, 128, 256)
"""The paper's filters."""
NARROW = (4, 8, 16, 32)
"""For a quick run."""
CLASSES = (1, 4, 8)
NUMBER = 10


def classifier(widths: Sequence[int] = WIDTHS, device: str = "cpu", classes: int = NUMBER) -> Classifier:
    """Return a classifier with random weights, which costs what a trained one costs."""
    torch.manual_seed(0)
    return create_classifier(registry.build("backbone", "unet-encoder", widths=widths), 1, classes).eval().to(device)


def digits(count: int, size: int) -> FloatArray:
    """Return images of scattered digits, float32 (count, 1, size, size)."""
    dataset = registry.build("dataset", "modified-digits", size=size, counts=(5,), train=1, valid=1, test=count)
    return np.stack([sample.image for sample in dataset.samples("test")])


def pipeline(network: Classifier, classes: Sequence[int] = CLASSES, **extractor: Any) -> Pipeline:
    """Return the paper's pipeline, which always explains these classes and no others.

    Grad-CAM of all layers, PCA of all but the deepest, its sign by the deepest, the range where that one is positive
    scaled to [0, 1], Otsu's threshold.
    """
    threshold = [0.0 if index in classes else 1.0 for index in range(NUMBER)]
    params = MicraNet.Params(
        extractor=Choice(name="grad-cam", params=extractor),
        combiner=Choice(name="pca", params={"sign": "deepest-weighted"}),
    )
    head = {"presence_threshold": threshold, "rescale": "coarse", "mask_threshold": "otsu"}
    info = DatasetInfo("digits", tuple(map(str, range(NUMBER))), 1, Normalisation(), "0" * 64)
    return assemble(params, network, info).with_head(Choice(name="semantic", params=head))


def assemble(params: MicraNet.Params, network: Classifier, info: DatasetInfo) -> Pipeline:
    """Return the pipeline of a network, with the default head."""
    head = registry.build("head", "semantic")
    method = Choice(name=NAME, params=params.model_dump(mode="json"))
    return Pipeline(method, MicraNetModel(params, network, info), "micraframe/semantic", head, info)


def bare_passes(network: Classifier, images: FloatArray) -> None:
    """Run the minimum of every route: one forward pass, and one backward pass per class to all layers."""
    batch = torch.from_numpy(images).to(next(network.parameters()).device)
    activations = network.features(batch.requires_grad_())
    logits = network.logits(activations[-1])
    for index in CLASSES:
        torch.autograd.grad(logits[:, index].sum(), activations, retain_graph=index != CLASSES[-1])
