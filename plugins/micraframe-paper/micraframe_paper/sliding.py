"""The method `sliding-window`: finds objects in large images with a classifier of crops."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Final, Literal, final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from micraframe.classifier import part_of
from micraframe.config import MICRA_NET, MethodChoice, build_learner
from micraframe.errors import ConfigError, DataError
from micraframe.interfaces import ClassRule, Method, Model, ScoredTile
from micraframe.metrics.precision_recall import curve_of
from micraframe.parameters import Parameters
from micraframe.types import Annotation, BoolArray, DatasetInfo, FitContext, FloatArray, Sample, Scores

_CLASSIFIER: Final = "classifier."
_THRESHOLDS: Final = "thresholds"
_MARGIN: Final = 1e-6
"""Smallest distance of a threshold from 0 and 1, so that its odds are finite."""


@final
class SlidingWindow(Method["SlidingWindow.Params"]):
    """Detection as in the MICRA-Net paper: the probability of every window of an image, averaged pixel by pixel.

    With p_w the probability that the class is in window w, a pixel x has the value m(x) = mean of p_w over the windows
    that contain x. The class counts as found where m(x) reaches a threshold t, which is the one with the highest F1 on
    the validation crops' curve of precision against recall: it needs their labels and nothing else. Maps are returned
    with odds divided by those of t, m (1 - t) / (m (1 - t) + (1 - m) t), so that every class has the threshold 0.5.
    The presence probability of a class is its highest pixel value.

    Training and validation samples are crops, and test images are whole: give the dataset a `crop` and
    `whole_images: [test]`.

    Bilodeau, A. et al. "Microscopy analysis neural network to solve detection, enumeration and segmentation from
    image-level annotations". Nature Machine Intelligence 4 (2022), Methods, "Auxiliary tasks".
    """

    class Params(Parameters):
        classifier: MethodChoice = Field(
            MICRA_NET, description="Method that learns from labels which classes are in a crop."
        )
        window: int | None = Field(
            None, ge=1, description="Side of a window in pixels; null: that of the dataset's crops."
        )
        overlap: float = Field(
            0.75, ge=0, lt=1, description="Fraction of a window that the next one covers too, in both directions."
        )
        threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["precision-recall"] = Field(
            "precision-recall",
            description="Mean probability at which a class counts as found: a number, or precision-recall: for each "
            "class the one with the highest F1 on the validation crops.",
        )

    learns_from = frozenset({Annotation.LABELS})
    inference_params = frozenset({"window", "overlap"})
    default_head = ("micraframe/detection", {"mask_threshold": {"name": "fixed", "value": 0.5}})

    def __init__(self, params: SlidingWindow.Params) -> None:
        """Build the classifier.

        Raises:
            ConfigError: If it cannot learn from labels.
            PluginError: If it is not installed.
        """
        super().__init__(params)
        self._classifier = build_learner("classifier", params.classifier, Annotation.LABELS)

    def fit(
        self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext
    ) -> SlidingWindowModel:
        """Train the classifier on crops, then choose the thresholds on the validation crops.

        Raises:
            DataError: If there is no validation crop to choose thresholds on.
            ConfigError: If neither the parameters nor the dataset give the size of a window.
        """
        window, threshold = self._window(info), self.params.threshold
        if threshold == "precision-recall" and not valid:
            raise DataError(
                "sliding-window: expected one or more validation crops to choose thresholds on, got none; add some, or "
                "set threshold to a number"
            )
        model = self._classifier.fit(train, valid if self._classifier.uses_validation else (), info, context)
        if threshold == "precision-recall":
            presence = _presence(model, (sample.image for sample in valid))
            labels = np.stack([sample.labels for sample in valid if sample.labels is not None])
            thresholds = np.array([best_f1_threshold(*pair) for pair in zip(labels.T, presence.T, strict=True)])
        else:
            thresholds = np.full(len(info.classes), threshold)
        return SlidingWindowModel(model, thresholds, window, self.params.overlap)

    def untrained(self, info: DatasetInfo) -> SlidingWindowModel | None:
        """Return the model of a classifier that has learned nothing."""
        if (model := self._classifier.untrained(info)) is None:
            return None
        thresholds = np.full(len(info.classes), 0.5)
        return SlidingWindowModel(model, thresholds, self._window(info), self.params.overlap)

    def restore(self, state: Mapping[str, Tensor], info: DatasetInfo, device: str) -> SlidingWindowModel:
        """Return the model of this classifier and these thresholds."""
        model = self._classifier.restore(part_of(state, _CLASSIFIER), info, device)
        return SlidingWindowModel(model, state[_THRESHOLDS].numpy(), self._window(info), self.params.overlap)

    def _window(self, info: DatasetInfo) -> tuple[int, int]:
        if self.params.window:
            return self.params.window, self.params.window
        if info.image_size is None:
            raise ConfigError(
                f"sliding-window: expected crops of one size in dataset {info.name!r}, got whole images; set the "
                "dataset's crop, or window"
            )
        return info.image_size


@final
class SlidingWindowModel(Model):
    """A classifier of crops that is moved over images.

    Attributes:
        classifier: Knows which classes are in a crop.
        thresholds: float64 (K,), in (0, 1): the mean probability at which each class counts as found.
        window: (height, width) of a window in pixels.
        overlap: Fraction of a window that the next one covers too, in [0, 1).
    """

    def __init__(
        self, classifier: Model, thresholds: npt.NDArray[np.float64], window: tuple[int, int], overlap: float
    ) -> None:
        self.classifier = classifier
        self.thresholds = thresholds
        self.window = window
        self.overlap = overlap

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        """Yield the scores of each image, with maps of all classes, in order."""
        for image in images:
            maps = at_one_half(self.mean_probability(image), self.thresholds)
            yield Scores(maps.max(axis=(1, 2)), tuple(range(len(maps))), maps)

    def mean_probability(self, image: FloatArray) -> FloatArray:
        """Return each pixel's mean probability over the windows that contain it, float32 (K, H, W), for (C, H, W)."""
        spans = [lay(side, size, self.overlap) for side, size in zip(image.shape[1:], self.window, strict=True)]
        crops = (image[:, slice(*rows), slice(*columns)] for rows, columns in itertools.product(*spans))
        probabilities = _presence(self.classifier, crops).T.reshape(-1, *map(len, spans))
        rows, columns = (averaging(part, side) for part, side in zip(spans, image.shape[1:], strict=True))
        # A pixel is in a window if its row and its column are, so the mean is taken along one axis after the other.
        return np.clip(rows @ probabilities @ columns.T, 0, 1).astype(np.float32)

    def merge_tiles(self, merged: Scores, tiles: Sequence[ScoredTile]) -> Scores:
        """Return the merged scores with the presence computed from the joined maps: a tile's halo does not count."""
        return dataclasses.replace(merged, presence=merged.maps.max(axis=(1, 2)))

    def state(self) -> Mapping[str, Tensor]:
        """Return the classifier's state and the thresholds."""
        learned = {_CLASSIFIER + name: tensor for name, tensor in self.classifier.state().items()}
        return learned | {_THRESHOLDS: torch.from_numpy(self.thresholds)}


def lay(side: int, window: int, overlap: float) -> list[tuple[int, int]]:
    """Return the windows along a side of an image: start and, exclusive, end; the last one is flush with the end.

    Args:
        side: Of the image, in pixels.
        window: Side of a window in pixels; at most the image's is used.
        overlap: Fraction of a window that the next one covers too, in [0, 1).
    """
    window = min(window, side)
    step, last = max(1, round(window * (1 - overlap))), side - window
    return [(start, start + window) for start in sorted({*range(0, last, step), last})]


def averaging(spans: Sequence[tuple[int, int]], side: int) -> npt.NDArray[np.float64]:
    """Return the matrix (side, windows) that takes values of windows to their mean at each pixel of a side."""
    first, last = np.array(spans).T
    pixels = np.arange(side)[:, None]
    inside = (first <= pixels) & (pixels < last)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))


def best_f1_threshold(labels: BoolArray, scores: FloatArray) -> float:
    """Return the threshold with the highest F1 on the curve of precision against recall; 0.5 if nothing is positive.

    It lies in the middle between the lowest score that counts as positive and the next one. Of equal F1, the highest.

    Args:
        labels: bool (N,).
        scores: float32 (N,), in [0, 1].
    """
    if not labels.any():
        return 0.5
    thresholds, precision, recall, _ = curve_of(labels, scores, int(np.count_nonzero(labels)))
    best = int(np.argmax(2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)))
    below = thresholds[best + 1] if best + 1 < len(thresholds) else 0.0
    return float(np.clip((float(thresholds[best]) + float(below)) / 2, _MARGIN, 1 - _MARGIN))


def at_one_half(values: FloatArray, thresholds: npt.NDArray[np.float64]) -> FloatArray:
    """Return probabilities, float32 (K, H, W), with each class's odds divided by those of its threshold (K,)."""
    # Outside (0, 1), a threshold has no odds.
    limits = np.asarray(thresholds, np.float32)[:, None, None]
    above = values * (1 - limits)
    return np.asarray(above / (above + (1 - values) * limits), np.float32)


def _presence(model: Model, images: Iterable[FloatArray]) -> FloatArray:
    """Return the presence probabilities of images, float32 (N, K)."""
    return np.stack([scores.presence for scores in model.score(images, lambda presence: ())])
