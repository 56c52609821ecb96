"""The method `unet`: a U-Net that learns from annotated pixels."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, final

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from micraframe import registry
from micraframe.batching import batches
from micraframe.config import Choice, HeadChoice
from micraframe.device import choose_device
from micraframe.errors import ModelError
from micraframe.interfaces import Fitted, Head, Method, Parameters
from micraframe.modelfile import ModelFile, load_model, provenance, save_model
from micraframe.training import Examples, Recipe, fit
from micraframe.types import Annotation, DatasetInfo, FloatArray, Part, Prediction, Run, Sample, ScoreMap, Status
from micraframe_unet.losses import Loss, dice, pixel_loss
from micraframe_unet.networks import begin_with, create
from micraframe_unet.targets import Counts, TargetArray, check_counts, count, log_odds, pixel_targets, pos_weights

NAME = "micraframe-unet/unet"


class PixelRecipe(Recipe):
    """How a U-Net learns: as a classifier does, but in smaller batches, and with every pixel weighing the same."""

    batch_size: int = Field(16, ge=1, description="Examples per step; those of one batch have one size.")
    pos_weight: Literal["auto"] | Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Weight of the pixels of a class; auto is absent / present among the annotated pixels, which finds "
        "more of rare classes and draws masks too wide at a threshold of 0.5.",
    )


@final
class UNet(Method):
    """A U-Net with a probability for each pixel and class by itself, so that classes may overlap.

    It learns from whatever says something of pixels: masks (full, altered, dilated, polygons, scribbles), boxes, which
    are filled, and points, which become discs; a sample may have any of them. It begins by saying everywhere how
    frequent each class is among the annotated pixels. The probability of a class in an image is that of its most
    probable pixel.
    """

    class Params(Parameters):
        encoder: str = Field(
            "unet-encoder",
            description="unet-encoder, which MICRA-Net learns with too, or segmentation-models-pytorch's name for "
            "another: tu-resnet18 is timm's resnet18.",
        )
        widths: tuple[PositiveInt, ...] = Field(
            (16, 32, 64, 128), min_length=1, description="Filters of each stage of unet-encoder; the paper's for MNIST."
        )
        pretrained: bool = Field(False, description="Begin with the encoder's published weights (not unet-encoder).")
        loss: Loss = Field("bce", description="bce, bce+dice, or mse (the paper's for F-actin).")
        point_radius: float = Field(3.0, ge=1, description="Radius in pixels of the disc that a point stands for.")
        background_distance: float | None = Field(
            None,
            gt=0,
            description="Pixels farther than this from every point of a class are not of it; none: unless a class has "
            "no point at all, points say nothing of the background.",
        )
        training: PixelRecipe = Field(PixelRecipe(), description="How the network learns.")
        head: HeadChoice = Field(
            Choice(name="semantic", params={"threshold": {"name": "fixed", "value": 0.5}}), description="What decides."
        )

    learns_from = frozenset({Annotation.MASKS, Annotation.BOXES, Annotation.POINTS})
    decided_after: ClassVar[frozenset[str]] = frozenset({"head"})

    def __init__(self, params: Params) -> None:
        self.params = params

    def fit(self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, run: Run) -> FittedUNet:
        """Train the network on what is known of pixels."""
        params = self.params
        names = [f"dice {name}" for name in info.classes]

        def target(sample: Sample) -> TargetArray:
            return pixel_targets(sample, len(info.classes), params.point_radius, params.background_distance)

        shown = Examples(train, target)
        counts = Counts(*np.sum([count(one) for one in shown.targets()], axis=0))
        check_counts(counts, info.classes)
        rarity = pos_weights(params.training.pos_weight, counts)
        weights = torch.from_numpy(rarity)

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            return pixel_loss(logits, targets, params.loss, weights)

        def measure(logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
            return dict(zip(names, dice(logits > 0, targets).unbind(1), strict=True))

        network = self._network(info, run.seed, params.pretrained)
        begin_with(network, torch.from_numpy(log_odds(counts, rarity)))
        fit(network, shown, Examples(valid, target), loss, params.training, run, measure)
        origin = provenance(run.seed, info.fingerprint)
        return FittedUNet(params, network.to(choose_device(run.device)), info, origin)

    def load(self, folder: Path, device: str = "auto") -> FittedUNet:
        """Read a trained network."""
        saved = load_model(folder)
        if saved.method.name != NAME:
            raise ModelError(f"{folder} holds a {saved.method.name}; a {NAME} is wanted")
        network = self._network(saved.info, seed=0, pretrained=False)
        try:
            network.load_state_dict(dict(saved.tensors))
        except RuntimeError as error:
            raise ModelError(f"{folder}: the weights do not fit the network that its configuration names") from error
        return FittedUNet(self.params, network.to(choose_device(device)), saved.info, saved.provenance)

    def _network(self, info: DatasetInfo, seed: int, pretrained: bool) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return create(self.params.encoder, self.params.widths, pretrained, info.channels, len(info.classes))


@final
class FittedUNet(Fitted):
    """A trained U-Net, and the head that makes masks of its probabilities.

    Attributes:
        network: Maps images (B, C, H, W) to logits (B, K, H, W).
        info: Of the dataset that it learned from.
        head: What decides.
    """

    head: Head

    def __init__(self, params: UNet.Params, network: nn.Module, info: DatasetInfo, origin: Mapping[str, str]) -> None:
        self.network = network.eval()
        self.info = info
        self._params = params
        self._origin = origin
        self.head = registry.build("head", params.head.name, **params.head.params)

    def with_head(self, head: Head) -> FittedUNet:
        """Return the same with another head."""
        other = copy.copy(self)
        other.head = head
        return other

    def predict(self, images: Iterable[FloatArray]) -> Iterator[Prediction]:
        """Yield a prediction for each image, in order."""
        for batch in batches(images, self.info.channels):
            for image, values in zip(batch, self.probabilities(np.stack(batch)), strict=True):
                score_map = as_score_map(values)
                prediction = self.head.decide(score_map, image_scores(values), image)
                yield dataclasses.replace(prediction, score_map=score_map, method=NAME)

    def joined(self, score_map: ScoreMap, scores: FloatArray, parts: Sequence[Part]) -> tuple[ScoreMap, FloatArray]:
        """Return the score map, and the scores of its most probable pixels: those of the tiles' halos do not count."""
        return score_map, image_scores(score_map.values)

    @torch.no_grad()
    def probabilities(self, images: FloatArray) -> FloatArray:
        """Return the probability of each class at each pixel, float32 (B, K, H, W), for images (B, C, H, W)."""
        device = next(self.network.parameters()).device
        logits = self.network(torch.from_numpy(images).to(device))
        values: FloatArray = logits.sigmoid().float().cpu().numpy()
        return values

    def save(self, folder: Path) -> None:
        """Write weights and configuration to a new folder."""
        method = Choice(name=NAME, params=self._params.model_dump(mode="json"))
        save_model(folder, ModelFile(method, self.info, self._origin, self.network.state_dict()))


def image_scores(values: FloatArray) -> FloatArray:
    """Return each class's score, float32 (K,): that of its most probable pixel of (K, H, W)."""
    scores: FloatArray = values.max(axis=(1, 2))
    return scores


def as_score_map(values: FloatArray) -> ScoreMap:
    """Return probabilities (K, H, W) as the score map of all classes, fine and coarse alike."""
    flat = np.ptp(values, axis=(1, 2)) == 0
    status: tuple[Status, ...] = tuple("constant" if one else "ok" for one in flat)
    return ScoreMap(tuple(range(len(values))), values, values, status)
