"""MICRA-Net: from image-level labels to masks. The paper's figure 2, as code.

A classifier learns which classes are in an image. For every class that it finds, the class activation maps of all its
layers are computed and combined into one map, which a head turns into a mask:

    classifier -> extractor -> combiner (-> head)

Bilodeau, A. et al. "Microscopy analysis neural network to solve detection, enumeration and segmentation from
image-level annotations". Nature Machine Intelligence 4 (2022).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, final

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from micraframe import registry
from micraframe.batching import batches
from micraframe.classifier import Classifier, create_classifier, probe_size
from micraframe.combiners.layers import coarse_map
from micraframe.config import BackboneChoice, Choice, CombinerChoice, ExtractorChoice
from micraframe.errors import DataError, InterfaceError, counted
from micraframe.interfaces import Backbone, ClassRule, Method, Model
from micraframe.parameters import Parameters
from micraframe.pooling import LogSumExp, Pooling
from micraframe.runtime.device import choose_device
from micraframe.training import ClassifierRecipe, fit_classifier, frozen_except, renamed
from micraframe.training.objectives import needs_evidence
from micraframe.types import Annotation, DatasetInfo, FitContext, FloatArray, Maps, Sample, Scores

NAME = "micraframe/micra-net"


@final
class MicraNet(Method["MicraNet.Params"]):
    """Masks from image-level labels, by combining the class activation maps of every layer."""

    class Params(Parameters):
        backbone: BackboneChoice = Field(Choice(name="micraframe/unet-encoder"), description="The network.")
        pooling: Pooling = Field(
            "max",
            description="Pooling over the last layer's positions: of its features, max (as in the paper) or mean; or "
            "of the logits at every position, which extractor evidence shows: log-sum-exp.",
        )
        dropout: float = Field(
            0.5,
            ge=0,
            lt=1,
            description="Dropout before the linear layer; the paper's 0.5 stops narrow networks from learning.",
        )
        training: ClassifierRecipe = Field(ClassifierRecipe(), description="How the classifier is trained.")
        extractor: ExtractorChoice = Field(
            Choice(name="micraframe/grad-cam"), description="How its decisions are explained."
        )
        combiner: CombinerChoice = Field(Choice(name="micraframe/pca"), description="How layers are combined.")

        @model_validator(mode="after")
        def _objectives_fit(self) -> MicraNet.Params:
            if self.training.objectives and not isinstance(self.pooling, LogSumExp):
                raise ValueError(f"training: {needs_evidence(self.training.objectives)}, got {self.pooling}")
            return self

    learns_from = frozenset({Annotation.LABELS})
    inference_params = frozenset({"extractor", "combiner"})

    def fit(
        self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext
    ) -> MicraNetModel:
        """Train the classifier on image-level labels.

        Raises:
            ConfigError: If the combiner names a layer that the backbone lacks.
            ModelError: If the extractor cannot explain the network.
        """
        classifier = self._classifier(self._backbone(), info, context.seed)
        # The framework rehearses a method, but not those within it, such as the teacher of self-training.
        noise = np.random.default_rng(0).random((info.channels, *probe_size(classifier.layers)), np.float32)
        list(MicraNetModel(self.params, classifier, info).score([noise], lambda presence: [0]))
        fit_classifier(classifier, train, valid, self.params.training, context, info.classes)
        return MicraNetModel(self.params, classifier.to(choose_device(context.device)), info)

    def restore(self, state: Mapping[str, Tensor], info: DatasetInfo, device: str) -> MicraNetModel:
        """Return the model with these weights."""
        classifier = self._classifier(self._backbone().untrained(), info, seed=0)
        classifier.load_state_dict(dict(state))
        return MicraNetModel(self.params, classifier.to(choose_device(device)), info)

    def untrained(self, info: DatasetInfo) -> MicraNetModel:
        """Return the model with random weights."""
        return MicraNetModel(self.params, self._classifier(self._backbone().untrained(), info, seed=0), info)

    def _backbone(self) -> Backbone[Any]:
        return registry.build("backbone", self.params.backbone.name, **self.params.backbone.params)

    def _classifier(self, backbone: Backbone[Any], info: DatasetInfo, seed: int) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return create_classifier(
                backbone, info.channels, len(info.classes), self.params.pooling, self.params.dropout
            )


@final
class MicraNetModel(Model):
    """A trained classifier, with the extractor and the combiner that turn its decisions into maps.

    Attributes:
        classifier: The trained network.
        info: Metadata of the dataset that it learned from.
        params: The method's parameters.
    """

    def __init__(self, params: MicraNet.Params, classifier: Classifier, info: DatasetInfo) -> None:
        self.classifier = classifier
        self.info = info
        self.params = params
        extractor = registry.build("extractor", params.extractor.name, **params.extractor.params)
        self._combiner = registry.build("combiner", params.combiner.name, **params.combiner.params)
        self._explain = extractor.prepare(classifier)

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        """Yield the scores of each image, in order."""
        for batch in batches(images):
            for image, maps in zip(batch, self._explain(np.stack(batch), rule), strict=True):
                yield self.combine(maps, image)

    def explain(self, images: Iterable[FloatArray], classes: ClassRule | Sequence[int]) -> Iterator[Maps]:
        """Yield the class activation maps of each image, in order.

        Args:
            images: Each float32 (C, H, W), normalised as the training images were.
            classes: Indices of the classes to explain, or a rule that chooses them by their presence probabilities.
        """
        rule = classes if callable(classes) else lambda presence: classes
        for batch in batches(images):
            yield from self._explain(np.stack(batch), rule)

    def combine(self, maps: Maps, image: FloatArray) -> Scores:
        """Return the combiner's scores for an image's maps, with the coarse map of the deepest layer.

        Args:
            maps: The image's maps.
            image: float32 (C, H, W).

        Raises:
            DataError: If the image does not have the maps' size.
            InterfaceError: If the combiner's result does not fit the maps.
        """
        if image.ndim != 3 or image.shape[1:] != maps.size:
            raise DataError(f"expected an image of size {maps.size}, the size of the maps, got shape {image.shape}")
        scores = self._combiner.combine(maps, image) if maps.classes else Scores.without_maps(maps.presence, maps.size)
        if (scores.classes, scores.size) != (maps.classes, maps.size):
            raise InterfaceError(
                f"combiner {self.params.combiner.name}: expected maps of classes {maps.classes} and size "
                f"{maps.size}, got classes {scores.classes} and size {scores.size}"
            )
        return scores if scores.coarse is not None else dataclasses.replace(scores, coarse=coarse_map(maps))

    def state(self) -> Mapping[str, Tensor]:
        """Return the classifier's weights."""
        return self.classifier.state_dict()

    def finetune(
        self,
        unfreeze: str,
        recipe: ClassifierRecipe,
        train: Sequence[Sample],
        valid: Sequence[Sample],
        info: DatasetInfo,
        context: FitContext,
        rename: Mapping[str, str] = MappingProxyType({}),
    ) -> MicraNetModel:
        """Return a model that continued learning, from images of another device; this one is unchanged.

        Args:
            unfreeze: The parts that learn: `linear`, `linear+4`, `linear+3,4` (stages of the backbone), or `all`.
            recipe: How it is trained.
            train: Samples with labels.
            valid: Samples with labels, for selecting the best model.
            info: Metadata of the dataset that both come from; its classes and channels must be this model's.
            context: Seed, device, precision, folder, progress callback.
            rename: What the dataset calls the model's classes, by the model's names; others keep their names.

        Raises:
            DataError: If the dataset has other classes or another number of channels.
            ConfigError: If `unfreeze` does not name parts of the network, or `rename` is not about its classes.
        """
        self.check_alike(info, rename)
        classifier = copy.deepcopy(self.classifier)
        with frozen_except(classifier, unfreeze):
            fit_classifier(classifier, train, valid, recipe, context, info.classes)
        return MicraNetModel(self.params.model_copy(update={"training": recipe}), classifier, info)

    def check_alike(self, info: DatasetInfo, rename: Mapping[str, str]) -> None:
        """Check that a dataset has the model's classes, which it may call by other names, and its channels.

        Raises:
            DataError: If it does not.
            ConfigError: If `rename` is not about the model's classes.
        """
        classes = renamed(self.info.classes, rename)
        if (info.classes, info.channels) != (classes, self.info.channels):
            raise DataError(
                f"dataset {info.name!r}: expected the model's classes {', '.join(classes)} and "
                f"{counted(self.info.channels, 'channel')}, got {', '.join(info.classes)} and {info.channels}; if "
                "classes have other names, set rename; if they are in another order, set the dataset's 'classes'"
            )
