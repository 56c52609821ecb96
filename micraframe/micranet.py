"""MICRA-Net: from image-level labels to masks. The paper's figure 2, as code.

A classifier learns which classes are in an image. For every class that it finds, the class activation maps of all its
layers are taken, combined to one score map, and cut at a threshold:

    classifier -> extractor -> combiner -> head

Bilodeau, A. et al. "Microscopy analysis neural network to solve detection, enumeration and segmentation from
image-level annotations". Nature Machine Intelligence 4 (2022).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, final

import numpy as np
import torch
from pydantic import Field

from micraframe import registry
from micraframe.batching import batches
from micraframe.classifier import Classifier, Pooling
from micraframe.config import BackboneChoice, Choice, CombinerChoice, ExtractorChoice, HeadChoice
from micraframe.device import choose_device
from micraframe.errors import DataError, ModelError
from micraframe.interfaces import Backbone, Fitted, Head, Method, Parameters
from micraframe.modelfile import ModelFile, load_model, provenance, save_model
from micraframe.training import Recipe, finetune_classifier, fit_classifier
from micraframe.types import (
    Annotation,
    DatasetInfo,
    FloatArray,
    Maps,
    Prediction,
    Run,
    Sample,
    ScoreMap,
)

NAME = "micraframe/micra-net"


class Steps(NamedTuple):
    """Everything that was made of one image on the way to its prediction."""

    maps: Maps
    score_map: ScoreMap
    prediction: Prediction


@final
class MicraNet(Method):
    """Masks from image-level labels, by combining the class activation maps of every layer."""

    class Params(Parameters):
        backbone: BackboneChoice = Field(Choice(name="unet-encoder"), description="What sees the image.")
        pooling: Pooling = Field("max", description="Over the deepest layer's positions: max (the paper's) or mean.")
        dropout: float = Field(
            0.5, ge=0, lt=1, description="Before the linear layer; the paper's 0.5 stops narrow networks from learning."
        )
        training: Recipe = Field(Recipe(), description="How the classifier learns.")
        extractor: ExtractorChoice = Field(Choice(name="grad-cam"), description="What explains its decisions.")
        combiner: CombinerChoice = Field(Choice(name="pca"), description="What joins the layers' maps.")
        head: HeadChoice = Field(Choice(name="semantic"), description="What decides.")

    learns_from = frozenset({Annotation.LABELS})
    decided_after: ClassVar[frozenset[str]] = frozenset({"extractor", "combiner", "head"})

    def __init__(self, params: Params) -> None:
        self.params = params

    def fit(self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, run: Run) -> FittedMicraNet:
        """Train the classifier on image-level labels."""
        classifier = self._classifier(self._backbone(), info.channels, len(info.classes), run.seed)
        fit_classifier(classifier, train, valid, self.params.training, run, info.classes)
        return FittedMicraNet(self.params, classifier, info, provenance(run.seed, info.fingerprint))

    def load(self, folder: Path, device: str = "auto") -> FittedMicraNet:
        """Read a trained classifier."""
        saved = load_model(folder)
        backbone = self._backbone().untrained()
        classifier = self._classifier(backbone, saved.info.channels, len(saved.info.classes), seed=0)
        try:
            classifier.load_state_dict(dict(saved.tensors))
        except RuntimeError as error:
            raise ModelError(f"{folder}: the weights do not fit the network that its configuration names") from error
        return FittedMicraNet(self.params, classifier.to(choose_device(device)), saved.info, saved.provenance)

    def _backbone(self) -> Backbone:
        choice = self.params.backbone
        return registry.build("backbone", choice.name, **choice.params)

    def _classifier(self, backbone: Backbone, channels: int, classes: int, seed: int) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network, layers = backbone.create(channels)
            return Classifier(network, layers, classes, self.params.pooling, self.params.dropout)


@final
class FittedMicraNet(Fitted):
    """A trained classifier, and the parts that make masks of its decisions.

    Attributes:
        classifier: The trained network.
        info: Of the dataset that it learned from.
        head: What decides.
    """

    head: Head

    def __init__(
        self, params: MicraNet.Params, classifier: Classifier, info: DatasetInfo, origin: Mapping[str, str]
    ) -> None:
        self.classifier = classifier
        self.info = info
        self._params = params
        self._origin = origin
        extractor = registry.build("extractor", params.extractor.name, **params.extractor.params)
        self._combiner = registry.build("combiner", params.combiner.name, **params.combiner.params)
        self.head = registry.build("head", params.head.name, **params.head.params)
        self._explain = extractor.prepare(classifier)

    def with_head(self, head: Head) -> FittedMicraNet:
        """Return the same with another head; the network and the extractor are shared."""
        other = copy.copy(self)
        other.head = head
        return other

    def predict(self, images: Iterable[FloatArray]) -> Iterator[Prediction]:
        """Yield a prediction for each image, in order."""
        return (steps.prediction for steps in self.steps(images))

    def steps(self, images: Iterable[FloatArray]) -> Iterator[Steps]:
        """Yield for each image, in order, the maps, the score map and the prediction."""
        for batch in batches(images, self.info.channels):
            explained = self._explain(np.stack(batch), self._wanted)
            for image, maps in zip(batch, explained, strict=True):
                score_map = self._combiner.combine(maps, image)
                prediction = self.head.decide(score_map, maps.scores, image)
                yield Steps(maps, score_map, dataclasses.replace(prediction, score_map=score_map, method=NAME))

    def finetune(
        self,
        update: str,
        recipe: Recipe,
        train: Sequence[Sample],
        valid: Sequence[Sample],
        info: DatasetInfo,
        run: Run,
    ) -> FittedMicraNet:
        """Return a model that has gone on learning, from images of another device; this one stays as it is.

        Args:
            update: What learns: `linear`, `linear+4`, `linear+3,4` (stages of the backbone), or `all`.
            recipe: How.
            train: Samples with labels.
            valid: Samples with labels, to choose the best model by.
            info: Of the dataset that both are from; its classes and channels must be this model's.
            run: Seed, device, precision, folder, whom to tell of progress.

        Raises:
            DataError: If the dataset has other classes or another number of channels.
            ConfigError: If `update` does not name parts of the network.
        """
        if (info.classes, info.channels) != (self.info.classes, self.info.channels):
            raise DataError(
                f"dataset {info.name!r} has classes {', '.join(info.classes)} and {info.channels} channels; the model "
                f"learned {', '.join(self.info.classes)} from images of {self.info.channels}: both must be the same"
            )
        classifier = copy.deepcopy(self.classifier)
        finetune_classifier(classifier, update, train, valid, recipe, run, info.classes)
        before = {f"before {update}: {key}": self._origin[key] for key in ("seed", "data") if key in self._origin}
        origin = {**provenance(run.seed, info.fingerprint), **before}
        return FittedMicraNet(self._params.model_copy(update={"training": recipe}), classifier, info, origin)

    def save(self, folder: Path) -> None:
        """Write weights and configuration to a new folder."""
        method = Choice(name=NAME, params=self._params.model_dump(mode="json"))
        save_model(folder, ModelFile(method, self.info, self._origin, self.classifier.state_dict()))

    def _wanted(self, scores: FloatArray) -> list[tuple[int, ...]]:
        return [self.head.wanted(row) for row in scores]
