"""The eight kinds of component, as abstract classes. Read this file to know the framework.

    Sample -> (Annotator) -> Method.fit
    image -> classifier (Backbone) -> Extractor -> Maps -> Combiner -> ScoreMap -> Head -> Prediction -> Metric -> row

A component is a final class with a nested `Params`, a pydantic model, which its constructor takes. It holds its
parameters and nothing that was measured: what comes of work is returned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from micraframe.types import (
    Annotation,
    Cost,
    DatasetInfo,
    FloatArray,
    Layer,
    Maps,
    Part,
    Prediction,
    Run,
    Sample,
    ScoreMap,
    Split,
)

if TYPE_CHECKING:
    from torch import nn

    from micraframe.classifier import Classifier


class Parameters(BaseModel):
    """The parameters of a component: each with a description, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Configured(ABC):
    """What all components share: they are made from their `Params`."""

    Params: ClassVar[type[Parameters]] = Parameters

    def __init__(self, params: Any) -> None:
        self.params = params


class Dataset(Configured):
    """Images and what is known of them."""

    @abstractmethod
    def info(self) -> DatasetInfo:
        """Return what must be known of the dataset besides its samples."""

    @abstractmethod
    def samples(self, split: Split) -> Sequence[Sample]:
        """Return the samples of a split, each read when it is asked for.

        Reading one twice gives the same bytes. No group is in two splits.

        Raises:
            DataError: If a file is missing or broken; the message names it.
        """


class Annotator(Configured):
    """Somebody who knows the truth and writes down less."""

    @abstractmethod
    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Cost]:
        """Return the same sample with *only* this annotation, and what it costs.

        Args:
            sample: Fully annotated.
            seed: Together with the sample's id, fixes all that is random.

        Raises:
            DataError: If the sample lacks what the annotation is made from.
        """


class Backbone(Configured):
    """A convolutional network, seen as a row of layers."""

    @abstractmethod
    def create(self, channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
        """Make the network, with weights drawn from torch's global generator.

        Args:
            channels: Number of channels C of the images.

        Returns:
            A module that maps images (B, C, H, W), of any H and W, to the list of its layers' activations, shallow to
            deep, each (B, channels, h, w); and what these layers are.

        Raises:
            ModelError: If the network cannot serve, such as a transformer without feature maps.
        """

    def untrained(self) -> Backbone:
        """Return the backbone without weights from elsewhere, which is what a saved model's are loaded into."""
        return self


ClassRule = Callable[[FloatArray], Sequence[Sequence[int]]]
"""Chooses the classes to explain: from scores, float32 (B, K) in [0, 1], the indices for each image."""

Explain = Callable[[FloatArray, ClassRule], list[Maps]]
"""Explains a batch: images, float32 (B, C, H, W), and a rule, to the maps of each image in order."""


class Extractor(Configured):
    """Explains a classifier's decisions: for each class and layer, where in the image they come from."""

    @abstractmethod
    def prepare(self, classifier: Classifier) -> Explain:
        """Make a function that explains batches of images.

        The classifier is left as it was: the function works on a frozen copy, and leaves no hook, graph or gradient
        behind. A batch of N gives what N batches of one give. It raises `DataError` if the rule does not return one
        list of classes for every image.
        """


class Combiner(Configured):
    """Joins the maps of all layers to one map per class."""

    @abstractmethod
    def combine(self, maps: Maps, image: FloatArray) -> ScoreMap:
        """Return a score map of the image's size.

        Args:
            maps: The maps of one image.
            image: float32 (C, H, W), the image they explain, which a combiner may let guide it.

        Raises:
            DataError: If the image is not of the maps' size.
            ConfigError: If a layer named in the parameters is not there.
        """


class Head(Configured):
    """Turns a score map into what the user asked for: a decision, masks, objects or positions."""

    @abstractmethod
    def wanted(self, scores: FloatArray) -> tuple[int, ...]:
        """Return the indices of the classes whose score map `decide` needs, given every class's probability (K,).

        What is not wanted is not explained, and costs nothing.
        """

    @abstractmethod
    def decide(self, score_map: ScoreMap, scores: FloatArray, image: FloatArray) -> Prediction:
        """Return the prediction for one image.

        Args:
            score_map: Of the classes that are wanted, and perhaps of others, which do not matter.
            scores: float32 (K,), in [0, 1]: the probability of every class.
            image: float32 (C, H, W).
        """

    def with_thresholds(self, decision: tuple[float, ...] | None, mask: float | None = None) -> Head:
        """Return this head with other thresholds, tuned on labels, in place of its own.

        They go to the parameters `decision` and `threshold`; a head without the one or the other keeps what it has.

        Args:
            decision: The probability from which on each of the K classes is present; None keeps the head's own.
            mask: The value of a score map above which a pixel is in the mask; None keeps the head's own rule.
        """
        changed: dict[str, Any] = {}
        if decision is not None:
            changed["decision"] = decision
        if mask is not None:
            changed["threshold"] = {"name": "fixed", "value": mask}
        known = {name: value for name, value in changed.items() if name in self.Params.model_fields}
        return type(self)(self.Params.model_validate(self.params.model_dump() | known))


class Fitted(ABC):
    """A method that has learned.

    Attributes:
        head: What decides, where a head does, so that its thresholds can be tuned: a prediction is then what the head
            makes of the prediction's score map and scores. None: the method decides by itself.
    """

    head: Head | None = None

    def with_head(self, head: Head) -> Fitted:
        """Return the same with another head; for methods that have one.

        Raises:
            TypeError: If the method decides by itself.
        """
        raise TypeError(f"{type(self).__name__} has no head that could be replaced")

    @abstractmethod
    def predict(self, images: Iterable[FloatArray]) -> Iterator[Prediction]:
        """Yield a prediction for each image, in order, in memory that does not grow with their number.

        Args:
            images: Each float32 (C, H, W), of any size, normalised as the training images were.
        """

    def joined(self, score_map: ScoreMap, scores: FloatArray, parts: Sequence[Part]) -> tuple[ScoreMap, FloatArray]:
        """Return the score map and scores of an image that was predicted in tiles, for the head to decide on.

        Override it where the score of an image is not that of the tile in which a class is surest, or where a score map
        holds more than pixels.

        Args:
            score_map: The tiles' joined, each pixel from the tile in which it is further from the edge.
            scores: float32 (K,): the highest of the tiles'.
            parts: The tiles.
        """
        return score_map, scores

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all that was learned to a new folder; no file of it can run code."""


class Method(Configured):
    """Learns from annotated samples; then predicts.

    Attributes:
        learns_from: The annotations that it can use. It is given these and no others.
        decided_after: The parameters that do not influence what `fit` learns. A study that varies them trains nothing
            again: it loads what was learned into a method with other values of them.
    """

    learns_from: ClassVar[frozenset[Annotation]]
    decided_after: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def fit(self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, run: Run) -> Fitted:
        """Learn.

        Args:
            train: What to learn from.
            valid: What to choose the best model, and thresholds, by.
            info: Of the dataset that both are from.
            run: Seed, device, precision, where to keep checkpoints, whom to tell of progress.

        Raises:
            DataError: If the samples lack the annotation that the method learns from.
        """

    @abstractmethod
    def load(self, folder: Path, device: str = "auto") -> Fitted:
        """Read what `Fitted.save` wrote; parameters in `decided_after` are this method's, not the file's.

        Args:
            folder: The saved model.
            device: `auto` (a GPU when there is one), or a torch device; methods without a network ignore it.

        Raises:
            ModelError: If it is not that, or was written by another format version.
        """


class Metric(Configured):
    """Measures a prediction against the truth."""

    @abstractmethod
    def measure(self, prediction: Prediction, truth: Sample) -> Mapping[str, FloatArray]:
        """Return named numbers for one image.

        Returns:
            For each name, float32 (K,): one number per class, NaN where it is undefined.
        """

    def rank(self, scores: FloatArray, labels: FloatArray) -> Mapping[str, FloatArray]:
        """Return named numbers of images that depend on how all images were scored; none, unless a metric has such.

        Args:
            scores: float32 (N, K): of N images, how strongly each class is there.
            labels: float32 (N, K): 1 where it is there, 0 where it is not, NaN where the truth does not say.

        Returns:
            For each name, float32 (N, K), NaN where it is undefined.
        """
        return {}


INTERFACES: dict[str, type[Configured]] = {
    "dataset": Dataset,
    "annotator": Annotator,
    "backbone": Backbone,
    "extractor": Extractor,
    "combiner": Combiner,
    "head": Head,
    "method": Method,
    "metric": Metric,
}
"""The interface of each kind."""
