"""Small inputs, made here, and the same in every run."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from micraframe.classifier import Classifier
from micraframe.objects import bounding_boxes
from micraframe.pooling import Pooling
from micraframe.types import DatasetInfo, FloatArray, Layer, Maps, Normalisation, Role, Sample

SIZES = ((32, 32), (33, 47), (61, 40))
"""(H, W) of the images that components are tried on: odd and non-square too."""

_LAYERS = (Layer("L1", 4, 1), Layer("L2", 6, 2), Layer("L3", 8, 4))


def full_samples(count: int = 4, size: tuple[int, int] = (48, 48)) -> list[Sample]:
    """Return fully annotated samples of two classes, bright discs and bright squares, either of which may be absent."""
    samples = []
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(count):
        generator = np.random.default_rng(number)
        y, x = generator.integers(10, np.array(size) - 10)
        masks = np.stack([np.hypot(rows - y, columns - x) < 7, (np.abs(rows - x) < 6) & (np.abs(columns - y) < 6)])
        masks[number % 2] &= number % 4 != 0
        masks[1] &= ~masks[0]
        image = generator.normal(0.1, 0.05, size) + masks.any(0)
        instances = masks.astype(np.int32)
        samples.append(
            Sample(
                f"sample-{number}",
                np.clip(image, 0, 1).astype(np.float32)[None],
                labels=np.asarray(masks.any((1, 2))),
                points=tuple(np.argwhere(mask)[:1].astype(np.float32) for mask in masks),
                boxes=bounding_boxes(instances),
                masks=masks,
                instances=instances,
            )
        )
    return samples


class _Blocks(nn.ModuleList):
    def forward(self, images: Tensor) -> list[Tensor]:
        return list(itertools.accumulate(self, lambda activation, block: block(activation), initial=images))[1:]


def small_classifier(classes: int = 3, pooling: Pooling = "max") -> Classifier:
    """Return a classifier of three layers, for one channel, with fixed random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = (
            nn.Sequential(
                nn.MaxPool2d(2) if before > 1 else nn.Identity(),
                nn.Conv2d(before, after, 3, padding=1),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for before, after in itertools.pairwise((1, *(layer.channels for layer in _LAYERS)))
        )
        return Classifier(_Blocks(blocks), _LAYERS, 1, classes, pooling).eval()


def random_maps(size: tuple[int, int], classes: int, change: Callable[[FloatArray], FloatArray]) -> Maps:
    """Return random signed maps of three layers, each passed through `change`."""
    generator = np.random.default_rng(7)
    arrays = tuple(
        change(generator.normal(size=(classes, *(edge // layer.stride for edge in size))).astype(np.float32))
        for layer in _LAYERS
    )
    return Maps(size, tuple(range(classes)), _LAYERS, arrays, np.full(3, 0.5, np.float32))


def class_info(classes: int, contact: bool = False) -> DatasetInfo:
    """Return metadata of two or three classes; the last one can be the contact class."""
    names = ("disc", "square", "ring")[:classes]
    roles: tuple[Role, ...] = ("object", "object", "contact") if contact else ()
    return DatasetInfo("conformance", names, 1, Normalisation("min-max"), "0" * 64, roles=roles)
