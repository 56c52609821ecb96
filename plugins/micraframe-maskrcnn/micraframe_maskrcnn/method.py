"""Mask R-CNN as a method: learns from objects, finds objects."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, final

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from micraframe import registry
from micraframe.config import BackboneChoice, Choice, HeadChoice
from micraframe.device import choose_device
from micraframe.errors import DataError, ModelError
from micraframe.interfaces import Backbone, Fitted, Head, Method, Parameters
from micraframe.modelfile import ModelFile, load_model, provenance, save_model
from micraframe.training import Examples, Recipe, fit
from micraframe.types import (
    Annotation,
    DatasetInfo,
    FloatArray,
    IntArray,
    Part,
    Prediction,
    Run,
    Sample,
    ScoreMap,
    check_image,
)
from micraframe_maskrcnn.detections import as_score_map, best_scores, join
from micraframe_maskrcnn.network import LOSSES, Design, MaskRcnnNetwork
from micraframe_maskrcnn.targets import pack, pad

NAME = "micraframe-maskrcnn/mask-rcnn"

RESNET50 = Choice(name="timm", params={"model": "resnet50", "out_indices": [1, 2, 3, 4]})


@final
class MaskRcnn(Method):
    """Objects, each with a box, a class, a score and a mask (He et al. 2017), from nothing but the samples given.

    It learns from instances; without them from boxes, whose masks are then the filled boxes, and so are those that it
    finds; without these from the components of masks. Boxes of background that is mostly ignored do not count.
    """

    class Params(Parameters):
        backbone: BackboneChoice = Field(
            RESNET50, description="What sees the image; a timm resnet18 or a unet-encoder suits small machines."
        )
        strides: tuple[PositiveInt, ...] = Field(
            (4, 8, 16, 32),
            min_length=1,
            description="Strides of the backbone's layers that the feature pyramid is built over, where it has them.",
        )
        pyramid: int = Field(256, ge=1, description="Channels of the feature pyramid.")
        box_head: int = Field(1024, ge=1, description="Features of each box, of which class and corners are told.")
        mask_head: tuple[PositiveInt, ...] = Field(
            (256, 256, 256, 256), min_length=1, description="Filters of each 3x3 convolution before the masks."
        )
        anchors: tuple[PositiveFloat, ...] = Field(
            (2.0,), min_length=1, description="Edges of the boxes that are refined, in strides of their level."
        )
        ratios: tuple[PositiveFloat, ...] = Field(
            (0.5, 1.0, 2.0), min_length=1, description="Height by width of these boxes."
        )
        regions: int = Field(
            512,
            ge=1,
            description="Boxes of each image that classes and masks are learned from; on a CPU they are most of "
            "the cost, and 64 do for small images.",
        )
        min_size: int | None = Field(
            None,
            ge=1,
            description="Pixels to resize the shorter side of every image, or tile, to; none: they stay as they are.",
        )
        training: Recipe = Field(
            Recipe(epochs=100, batch_size=4, optimiser="adamw", learning_rate=5e-4, gradient_clipping=10.0),
            description="How it learns; pos_weight has no meaning here.",
        )
        overlap: Annotated[float, Field(gt=0, le=1)] = Field(
            0.5, description="Of boxes of one class with a larger IOU than this, the best one stays."
        )
        detections: int = Field(
            300,
            ge=1,
            description="The most detections in an image, or tile; the best stay, before the head decides.",
        )
        head: HeadChoice = Field(
            Choice(name="detections"),
            description="What decides; other heads see the score map, not the detections that it is made of.",
        )

    learns_from = frozenset({Annotation.BOXES, Annotation.MASKS, Annotation.INSTANCES})
    decided_after: ClassVar[frozenset[str]] = frozenset({"overlap", "detections", "head"})

    def __init__(self, params: Params) -> None:
        self.params = params

    def fit(self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, run: Run) -> FittedMaskRcnn:
        """Train the network on objects."""
        count = len(info.classes)
        network = self._network(self._backbone(), info.channels, count, run.seed)
        examples = _examples(train, valid, info)
        fit(network, *examples, _total, self.params.training, run, _parts, with_targets=True)
        return FittedMaskRcnn(
            self.params, network.to(choose_device(run.device)), info, provenance(run.seed, info.fingerprint)
        )

    def load(self, folder: Path, device: str = "auto") -> FittedMaskRcnn:
        """Read a trained network."""
        saved = load_model(folder)
        if saved.method.name != NAME:
            raise ModelError(f"{folder} holds a {saved.method.name}; a {NAME} is wanted")
        network = self._network(self._backbone().untrained(), saved.info.channels, len(saved.info.classes), seed=0)
        try:
            network.load_state_dict(dict(saved.tensors))
        except RuntimeError as error:
            raise ModelError(f"{folder}: the weights do not fit the network that its configuration names") from error
        return FittedMaskRcnn(self.params, network.to(choose_device(device)), saved.info, saved.provenance)

    def _backbone(self) -> Backbone:
        choice = self.params.backbone
        return registry.build("backbone", choice.name, **choice.params)

    def _network(self, backbone: Backbone, channels: int, classes: int, seed: int) -> MaskRcnnNetwork:
        design = Design(**{name: getattr(self.params, name) for name in Design._fields})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return MaskRcnnNetwork(*backbone.create(channels), classes, design)


@final
class FittedMaskRcnn(Fitted):
    """A trained network, and the head that makes objects of its detections.

    Attributes:
        network: The network, in evaluation mode.
        info: Of the dataset that it learned from.
        head: What decides.
    """

    head: Head

    def __init__(
        self, params: MaskRcnn.Params, network: MaskRcnnNetwork, info: DatasetInfo, origin: Mapping[str, str]
    ) -> None:
        self.network = network.eval()
        self.info = info
        self._params = params
        self._origin = origin
        self.head = registry.build("head", params.head.name, **params.head.params)

    def with_head(self, head: Head) -> FittedMaskRcnn:
        """Return the same with another head."""
        other = copy.copy(self)
        other.head = head
        return other

    def predict(self, images: Iterable[FloatArray]) -> Iterator[Prediction]:
        """Yield a prediction for each image, in order; each is seen by itself, in float32."""
        for number, image in enumerate(images):
            check_image(image, f"image {number}")
            if image.shape[0] != self.info.channels:
                raise ModelError(
                    f"image {number} has {image.shape[0]} channels; the model learned from images of "
                    f"{self.info.channels}"
                )
            yield self._predict(image)

    def joined(self, score_map: ScoreMap, scores: FloatArray, parts: Sequence[Part]) -> tuple[ScoreMap, FloatArray]:
        """Return a score map of the tiles' detections: of each, those whose middle lies where the tile is used.

        What is said of an image is then of a tile: how many `detections` stay, and to what `min_size` it is resized.
        """
        size = (score_map.values.shape[1], score_map.values.shape[2])
        joined = as_score_map(join(parts, self._params.overlap), size)
        return joined, best_scores(joined)

    def save(self, folder: Path) -> None:
        """Write weights and configuration to a new folder."""
        method = Choice(name=NAME, params=self._params.model_dump(mode="json"))
        save_model(folder, ModelFile(method, self.info, self._origin, self.network.state_dict()))

    def _predict(self, image: FloatArray) -> Prediction:
        device = next(self.network.parameters()).device
        found = self.network.detect(torch.from_numpy(np.ascontiguousarray(image)).to(device))
        score_map = as_score_map(found, (image.shape[1], image.shape[2]))
        prediction = self.head.decide(score_map, best_scores(score_map), image)
        return dataclasses.replace(prediction, score_map=score_map, method=NAME)


def _examples(train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo) -> tuple[Examples, Examples]:
    """Return what is shown, targets of one depth.

    Raises:
        DataError: If no training sample holds an object of which it is known where it ends.
    """
    count = len(info.classes)
    depth, found = 0, 0
    for sample in train:
        packed = pack(sample, count)
        depth, found = max(depth, len(packed)), max(found, int(packed[:-1].max(initial=0)))
    if not found:
        raise DataError(
            f"dataset {info.name!r}: no training sample has an object of which it is known where it ends (scribbles do "
            "not tell); annotate instances, boxes, or masks of whole objects"
        )
    depth = max([depth, *(len(pack(sample, count)) for sample in valid)])

    def target(sample: Sample) -> IntArray:
        return pad(pack(sample, count), depth)

    return Examples(train, target), Examples(valid, target)


def _total(losses: Tensor, targets: Tensor) -> Tensor:
    return losses.sum(1).mean()


def _parts(losses: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    return dict(zip((f"loss {name}" for name in LOSSES), losses.unbind(1), strict=True))
