"""The eight kinds of component, as abstract classes. Start here.

    Sample --Annotator--> Sample (weaker), Work            Method.fit -> Model
    image --Model.score--> Scores --Head.decide--> Prediction --Metric.measure--> statistics --Metric.reduce--> numbers
            \\_ MICRA-Net: Backbone, Extractor -> Maps, Combiner -> Scores

A model only scores and a head only decides; `micraframe.pipeline` joins them, and is the only place that predicts,
tiles, saves and loads. A component is a final class with a nested `Params`, a pydantic model that its constructor
takes. It holds its parameters and nothing that was measured: results are returned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from micraframe.parameters import Parameters
from micraframe.thresholds import PresenceThreshold, ThresholdRule, reaches
from micraframe.types import (
    Annotation,
    BoolArray,
    DatasetInfo,
    FitContext,
    FloatArray,
    Layer,
    Maps,
    Prediction,
    Sample,
    Scores,
    Split,
    Work,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micraframe.classifier import Classifier

P = TypeVar("P", bound=Parameters)
H = TypeVar("H", bound="HeadParams")


class Configured(ABC, Generic[P]):
    """A component with parameters; `class Mean(Combiner["Mean.Params"])` declares their type."""

    Params: ClassVar[type[Parameters]] = Parameters

    def __init__(self, params: P) -> None:
        self.params = params


class Dataset(Configured[P]):
    """Images and their annotation."""

    @abstractmethod
    def info(self) -> DatasetInfo:
        """Return the dataset's metadata."""

    @abstractmethod
    def samples(self, split: Split) -> Sequence[Sample]:
        """Return the samples of a split, each read on access.

        Reading one twice gives the same bytes. No group is in two splits.

        Raises:
            DataError: If a file is missing or broken; the message names it.
        """


class Annotator(Configured[P]):
    """Simulates an annotator: derives weaker annotation from the full annotation."""

    @abstractmethod
    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
        """Return the sample with *only* this annotation, and the work it takes.

        Args:
            sample: Fully annotated.
            seed: Determines, together with the sample's id, everything random.

        Raises:
            DataError: If the sample lacks the annotation that is needed.
        """


class Backbone(Configured[P]):
    """A convolutional network, seen as a sequence of layers."""

    @abstractmethod
    def create(self, channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
        """Create the network, with weights drawn from torch's global generator.

        Args:
            channels: Number of channels C of the images.

        Returns:
            A module that maps images (B, C, H, W), of any H and W, to the list of its layers' activations, in the order
            of computation, each (B, channels, h, w); and the description of these layers. Usually shallow to deep; a
            decoder's layers follow the deepest one. A classifier pools the last one.

        Raises:
            ModelError: If the network cannot be used as a backbone, e.g. a transformer without feature maps.
        """

    def untrained(self) -> Backbone[Any]:
        """Return the backbone without pretrained weights: weights are loaded from the saved model."""
        return self


ClassRule = Callable[[FloatArray], Sequence[int]]
"""From the presence probabilities of one image, float32 (K,), to the indices of the classes to explain."""


def every_class(presence: FloatArray) -> range:
    """Return all classes: a `ClassRule` for whoever needs all maps, whatever is present."""
    return range(len(presence))


Explain = Callable[[FloatArray, ClassRule], list[Maps]]
"""From a batch of images, float32 (B, C, H, W), and a rule to the maps of each image, in order."""

Score = Callable[[Iterable[FloatArray], ClassRule], Iterator[Scores]]
"""From images and a rule to the scores of each image, in order; see `Model.score`."""


class Extractor(Configured[P]):
    """Explains a classifier: for each class and layer, which positions support the class."""

    @abstractmethod
    def prepare(self, classifier: Classifier) -> Explain:
        """Return a function that explains batches of images.

        It works on a frozen copy: the classifier is unchanged, and no hook, graph or gradient is left behind. A batch
        of N gives the same maps as N batches of one.

        Raises:
            ModelError: If it cannot explain this kind of classifier.
        """


class Combiner(Configured[P]):
    """Combines the maps of all layers into one map per class."""

    @abstractmethod
    def combine(self, maps: Maps, image: FloatArray) -> Scores:
        """Return scores with a map of the image's size for every class in `maps`.

        The framework checks sizes before and after, and adds the coarse map.

        Args:
            maps: The maps of one image.
            image: float32 (C, H, W): may guide the combination.

        Raises:
            ConfigError: If a layer named in the parameters does not exist.
        """


@dataclass(frozen=True)
class Thresholds:
    """Tuned thresholds.

    Attributes:
        presence: For each of the K classes, the probability at which it counts as present; None keeps the head's own.
        mask: The value of a map above which a pixel is in the mask; None keeps the head's own rule.
        quality: Mean IoU over the images on which they were tuned; None if masks were not compared.
    """

    presence: tuple[float, ...] | None = None
    mask: float | None = None
    quality: float | None = field(default=None, compare=False)


class HeadParams(Parameters):
    """The parameters that every head has."""

    presence_threshold: PresenceThreshold = Field(
        0.5, description="Probability at which a class counts as present; one number, or one per class."
    )


class MaskHeadParams(HeadParams):
    """The parameters that every head has that makes masks."""

    mask_threshold: ThresholdRule = Field(
        ThresholdRule(), description="Threshold of the map: otsu, triangle, percentile, fixed or block-otsu."
    )


class Head(Configured[H]):
    """Decides: turns scores into classes, masks, instances or points."""

    Params: ClassVar[type[HeadParams]] = HeadParams

    def classes_to_explain(self, presence: FloatArray) -> tuple[int, ...]:
        """Return the indices of the classes whose maps `decide` needs, given presence probabilities, float32 (K,).

        Default: the classes that count as present. Others are skipped at no cost.
        """
        return tuple(np.flatnonzero(self.present(presence)).tolist())

    @abstractmethod
    def decide(self, scores: Scores, image: FloatArray, info: DatasetInfo) -> Prediction:
        """Return the prediction for one image.

        Args:
            scores: Have maps of the classes to explain; maps of other classes are ignored.
            image: float32 (C, H, W).
            info: Metadata of the dataset that the model learned from: class names, roles and pixel size.
        """

    @final
    def present(self, presence: FloatArray) -> BoolArray:
        """Return which classes count as present, bool (K,), given their probabilities, float32 (K,)."""
        return reaches(presence, self.params.presence_threshold)

    @final
    def with_thresholds(self, thresholds: Thresholds) -> Head[H]:
        """Return this head with tuned thresholds; the mask threshold is ignored by heads that make no masks."""
        changed: dict[str, Any] = {}
        if thresholds.presence is not None:
            changed["presence_threshold"] = thresholds.presence
        if thresholds.mask is not None and isinstance(self.params, MaskHeadParams):
            changed["mask_threshold"] = {"name": "fixed", "value": thresholds.mask}
        return type(self)(type(self.params).model_validate(self.params.model_dump() | changed))


@dataclass(frozen=True, eq=False)
class ScoredTile:
    """The scores of one tile of an image, and its position.

    Attributes:
        rows: First row of the image that the tile covers and, exclusive, the last.
        columns: First column and, exclusive, the last.
        used_rows: The rows that are taken from this tile rather than from a neighbour.
        used_columns: The columns that are taken from this tile.
        scores: The tile's scores.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    used_rows: tuple[int, int]
    used_columns: tuple[int, int]
    scores: Scores

    @property
    def used(self) -> tuple[slice, slice]:
        """The used rows and columns, in the tile's own coordinates."""
        top, left = self.rows[0], self.columns[0]
        return (
            slice(self.used_rows[0] - top, self.used_rows[1] - top),
            slice(self.used_columns[0] - left, self.used_columns[1] - left),
        )


class Model(ABC):
    """A trained method. It scores images and decides nothing."""

    @abstractmethod
    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        """Yield the scores of each image, in order, in constant memory.

        Args:
            images: Each a valid float32 (C, H, W), of any size, normalised as the training images were; the framework
                has checked them.
            rule: Chooses the classes that need a map. A model whose maps cost nothing extra may return all of them.
        """

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """Return everything that was learned, as tensors by name."""

    def merge_tiles(self, merged: Scores, tiles: Sequence[ScoredTile]) -> Scores:
        """Return the scores of an image that was scored in tiles.

        Override it if a class's presence is not its highest presence in any tile, or if scores hold more than maps.

        Args:
            merged: Maps joined along the middles of the overlaps; presence is the highest of the tiles.
            tiles: The tiles.
        """
        return merged


class Method(Configured[P]):
    """Learns a model from annotated samples.

    Attributes:
        learns_from: The annotations that it can use. It receives only these.
        uses_validation: Whether it uses validation samples. If not, it receives none and is not charged for them.
        continues: Whether `fit` can start from the weights of another model, `FitContext.start`.
        deterministic: Whether training gives the same model for every seed.
        inference_params: Names of the parameters that do not influence what `fit` learns. They can be changed after
            training; a study that varies them trains once.
        default_head: Name and parameters of the head that is used unless another is named.
    """

    learns_from: ClassVar[frozenset[Annotation]]
    uses_validation: ClassVar[bool] = True
    continues: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False
    inference_params: ClassVar[frozenset[str]] = frozenset()
    default_head: ClassVar[tuple[str, Mapping[str, Any]]] = ("micraframe/semantic", {})

    @abstractmethod
    def fit(self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext) -> Model:
        """Learn.

        Args:
            train: Training samples.
            valid: Validation samples, for selecting the best model; empty if `uses_validation` is false.
            info: Metadata of the dataset that both come from.
            context: Seed, device, precision, folder for checkpoints, progress callback.

        Raises:
            DataError: If the samples lack the annotation that the method learns from.
        """

    def untrained(self, info: DatasetInfo) -> Model | None:
        """Return a model that has learned nothing, on the CPU; None where there is none.

        Before training, the framework predicts an image with it: what would fail after training fails at once.
        """
        return None

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor], info: DatasetInfo, device: str) -> Model:
        """Return the model whose `state` this is, with this method's inference parameters.

        Args:
            state: What `Model.state` returned.
            info: Metadata of the dataset that it learned from.
            device: `auto` (a GPU when there is one), or a torch device.

        Raises:
            RuntimeError: If the tensors do not fit, as raised by `load_state_dict`, or KeyError if one is missing; the
                framework names the file.
        """


Statistics = Mapping[str, npt.NDArray[np.floating[Any]]]
"""Named numbers: per class (K,) of one image, or (N, K) of N images; NaN where undefined."""


@dataclass(frozen=True)
class Column:
    """A number that a metric reports.

    Attributes:
        name: Its name in tables.
        definition: One line that completes "name: ...".
        higher_is_better: Whether larger values are better.
        range: Lowest and highest possible value.
        numerator: Statistic that is summed over images; by default the one with the column's name.
        denominator: Statistic that the sum is divided by. By default the number of images for which the numerator is
            defined, which makes the column a mean over images; name another statistic to pool counts.
        pooled: If the column is not a ratio of sums: the statistics that the metric computes it from in `reduce`. One
            that ends in `@` stands for all that begin with it.
    """

    name: str
    definition: str
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    numerator: str = ""
    denominator: str = ""
    pooled: tuple[str, ...] = ()

    @property
    def is_mean(self) -> bool:
        """Whether the column is a mean over images, so that it has a value for each of them."""
        return not (self.denominator or self.pooled)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The statistics that it is computed from; in `pooled` columns, one that ends in `@` stands for several."""
        numerator = self.numerator or self.name
        return self.pooled or (numerator, self.denominator or numerator)

    def select(self, statistics: Statistics) -> Statistics:
        """Return those statistics that it is computed from."""
        names = set(self.statistics)
        return {name: each for name, each in statistics.items() if {name, f"{name.partition('@')[0]}@"} & names}


class Metric(Configured[P]):
    """Measures predictions against the truth: statistics per image, and how they reduce to numbers."""

    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """Return the numbers that it reports."""

    @abstractmethod
    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return the statistics of one image, one float per class (K,), NaN where undefined.

        Every column has a statistic of its name, or names its numerator and denominator, or is `pooled`. A statistic
        missing for an image is NaN, such as the score of a 17th detection in an image with 16.

        Raises:
            DataError: If truth and prediction do not have the same classes and size.
        """

    def reduce(self, statistics: Statistics) -> Statistics:
        """Return each column's number per class, (K,), from statistics of N images, (N, K).

        By default, columns that are not `pooled` become sum(numerator) / sum(denominator) over the images for which
        both are defined, if their statistics are given. Override it to add pooled columns, such as a pooled average
        precision; it may be given no other statistics than those of all pooled columns.
        """
        given = (
            column for column in self.columns() if not column.pooled and set(column.statistics) <= statistics.keys()
        )
        return {column.name: ratio_of_sums(column, statistics) for column in given}


def ratio_parts(column: Column, statistics: Statistics) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return a column's numerators and denominators, float64 (N, K), 0 where undefined."""
    numerator = np.asarray(statistics[column.numerator or column.name], np.float64)
    if column.denominator:
        denominator = np.asarray(statistics[column.denominator], np.float64)
    else:
        denominator = np.where(np.isnan(numerator), np.nan, 1.0)
    defined = ~(np.isnan(numerator) | np.isnan(denominator))
    return np.where(defined, numerator, 0.0), np.where(defined, denominator, 0.0)


def ratio_of_sums(column: Column, statistics: Statistics) -> npt.NDArray[np.float64]:
    """Return a column's sum(numerator) / sum(denominator) over images, (K,); NaN if the denominator is 0."""
    return quotient(*(part.sum(axis=0) for part in ratio_parts(column, statistics)))


def quotient(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return numerator / denominator; NaN where the denominator is not positive."""
    empty = np.full(denominator.shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=empty, where=denominator > 0))


INTERFACES: dict[str, type[Configured[Any]]] = {
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
