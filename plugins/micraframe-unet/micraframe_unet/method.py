"""The method `unet`: a U-Net that learns from annotated pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal, final

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from micraframe.backbones.encoder import Norm
from micraframe.batching import batches
from micraframe.interfaces import ClassRule, Method, Model, ScoredTile
from micraframe.parameters import Parameters
from micraframe.runtime.device import choose_device, exact_float32
from micraframe.training import Examples, Recipe, fit, pos_weights
from micraframe.types import Annotation, DatasetInfo, FitContext, FloatArray, Sample, Scores
from micraframe_unet.losses import Loss, dice, pixel_loss
from micraframe_unet.networks import continue_from, create, start_at
from micraframe_unet.targets import Counts, TargetArray, check_counts, count, log_odds, pixel_targets


class PixelRecipe(Recipe):
    """How a U-Net is trained: like a classifier, but in smaller batches, and with equal weight for every pixel."""

    batch_size: int = Field(16, ge=1, description="Images per step; all images of a batch have the same size.")
    pos_weight: Literal["auto"] | Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Weight of the pixels of a class; auto is absent / present among the annotated pixels, which finds "
        "more of rare classes and makes masks too wide at a threshold of 0.5.",
    )


@final
class UNet(Method["UNet.Params"]):
    """A U-Net with an independent probability for each pixel and class, so that classes may overlap.

    It learns from any annotation of pixels: masks (full, altered, dilated, polygons, scribbles), boxes, which are
    filled, and points, which become discs; samples may have different ones. Its initial output is, at every pixel, the
    frequency of the class among the annotated pixels. The presence probability of a class is its highest
    pixel probability.
    """

    class Params(Parameters):
        encoder: str = Field(
            "unet-encoder",
            description="unet-encoder, as in MICRA-Net, or the segmentation-models-pytorch name of another: "
            "tu-resnet18 is timm's resnet18.",
        )
        widths: tuple[PositiveInt, ...] = Field(
            (16, 32, 64, 128), min_length=1, description="Filters of each stage of unet-encoder; the paper's for MNIST."
        )
        norm: Norm = "torch"
        pretrained: bool = Field(
            False, description="Start from the encoder's published weights (not for unet-encoder)."
        )
        loss: Loss = Field(
            "bce",
            description="bce, bce+dice, mse (the paper's for F-actin), or generalised-cross-entropy (for masks with "
            "errors, such as those that a network made).",
        )
        point_radius: float = Field(3.0, ge=1, description="Radius in pixels of the disc around a point.")
        background_distance: float | None = Field(
            None,
            gt=0,
            description="Pixels farther than this from every point of a class do not belong to it; none: points carry "
            "no information about the background, unless a class has no point at all.",
        )
        training: PixelRecipe = Field(PixelRecipe(), description="How the network is trained.")

    learns_from = frozenset({Annotation.MASKS, Annotation.BOXES, Annotation.POINTS})
    continues = True
    default_head = ("micraframe/semantic", {"mask_threshold": {"name": "fixed", "value": 0.5}})

    def fit(
        self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext
    ) -> UNetModel:
        """Train the network on annotated pixels."""
        params = self.params
        names = [f"dice {name}" for name in info.classes]

        def target(sample: Sample) -> TargetArray:
            return pixel_targets(sample, params.point_radius, params.background_distance)

        examples = Examples(train, target)
        counts = Counts(*np.sum([count(targets) for targets in examples.targets()], axis=0))
        check_counts(counts, info.classes)
        rarity = pos_weights(params.training.pos_weight, *counts)
        weights = torch.from_numpy(rarity)

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            return pixel_loss(logits, targets, params.loss, weights)

        def measure(logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
            return dict(zip(names, dice(logits > 0, targets).unbind(1), strict=True))

        network = self._network(info, context.seed, params.pretrained)
        if context.start is not None:
            continue_from(network, context.start)
        start_at(network, torch.from_numpy(log_odds(counts, rarity)))
        fit(network, examples, Examples(valid, target), loss, params.training, context, measure)
        return UNetModel(network.to(choose_device(context.device)))

    def untrained(self, info: DatasetInfo) -> UNetModel:
        """Return the model with random weights."""
        return UNetModel(self._network(info, seed=0, pretrained=False))

    def restore(self, state: Mapping[str, Tensor], info: DatasetInfo, device: str) -> UNetModel:
        """Return the model with these weights."""
        network = self._network(info, seed=0, pretrained=False)
        network.load_state_dict(dict(state))
        return UNetModel(network.to(choose_device(device)))

    def _network(self, info: DatasetInfo, seed: int, pretrained: bool) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return create(
                self.params.encoder, info.channels, len(info.classes), self.params.widths, self.params.norm, pretrained
            )


@final
class UNetModel(Model):
    """A trained U-Net.

    Attributes:
        network: Maps images (B, C, H, W) to logits (B, K, H, W).
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        """Yield the scores of each image, with maps of all classes, in order."""
        for batch in batches(images):
            for maps in self.probabilities(np.stack(batch)):
                yield Scores(presence(maps), tuple(range(len(maps))), maps)

    def merge_tiles(self, merged: Scores, tiles: Sequence[ScoredTile]) -> Scores:
        """Return the merged scores with the presence computed from the joined maps: a tile's halo does not count."""
        return dataclasses.replace(merged, presence=presence(merged.maps))

    def state(self) -> Mapping[str, Tensor]:
        """Return the network's weights."""
        return self.network.state_dict()

    @torch.no_grad()
    @exact_float32()
    def probabilities(self, images: FloatArray) -> FloatArray:
        """Return the probability of each class at each pixel, float32 (B, K, H, W), for images (B, C, H, W)."""
        device = next(self.network.parameters()).device
        logits = self.network(torch.from_numpy(images).to(device))
        values: FloatArray = logits.sigmoid().float().cpu().numpy()
        return values


def presence(maps: FloatArray) -> FloatArray:
    """Return the presence probability of each class, float32 (K,): its highest pixel probability in (K, H, W)."""
    highest: FloatArray = maps.max(axis=(1, 2))
    return highest
