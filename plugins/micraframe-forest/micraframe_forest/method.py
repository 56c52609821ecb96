"""The method: ilastik's pixel features, a random forest, and a head that decides."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, ClassVar, final

import cv2
import numpy as np
import sklearn
from pydantic import Field

from micraframe import registry
from micraframe.batching import batches
from micraframe.config import Choice, HeadChoice
from micraframe.errors import DataError, ModelError
from micraframe.interfaces import Fitted, Head, Method, Parameters
from micraframe.modelfile import ModelFile, load_model, provenance, save_model
from micraframe.types import (
    Annotation,
    BoolArray,
    DatasetInfo,
    FloatArray,
    Part,
    Prediction,
    Run,
    Sample,
    ScoreMap,
    Status,
)
from micraframe_forest.features import SIGMAS, bands, names
from micraframe_forest.pixels import Chosen, Known, choose, known
from micraframe_forest.trees import Forest as Grown
from micraframe_forest.trees import Trees, from_tensors, grow

NAME = "micraframe-forest/forest"


@final
class Forest(Method):
    """A random forest that says of each pixel, by what its neighbourhood looks like, which classes it is of.

    Of the annotated pixels a balanced choice trains it, each weighing as much as the pixels that it stands for, so that
    probabilities are those of what was annotated. It keeps no checkpoints: it learns in a minute or so, and the same
    from the same seed.
    """

    class Params(Parameters):
        sigmas: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
            SIGMAS, min_length=1, description="Scales of the features in pixels; the default is ilastik's."
        )
        trees: int = Field(100, ge=1, description="Number of trees; ilastik's 100.")
        minimum_leaf: int = Field(1, ge=1, description="Least number of training pixels in a leaf.")
        pixels: int = Field(
            30_000, ge=2, description="Training pixels at most, as many of the background and of each class as can be."
        )
        point_radius: float = Field(3.0, ge=0, description="Radius in pixels of the disc that a point stands for.")
        background_distance: float | None = Field(
            None,
            gt=0,
            description="Pixels farther than this from all points are background; none: only images without any point "
            "say what background is.",
        )
        area: int = Field(
            16, ge=1, description="An image's score of a class is the probability that this many of its pixels reach."
        )
        head: HeadChoice = Field(
            Choice(name="semantic", params={"threshold": {"name": "fixed", "value": 0.5}}), description="What decides."
        )

    learns_from = frozenset({Annotation.MASKS, Annotation.INSTANCES, Annotation.BOXES, Annotation.POINTS})
    decided_after: ClassVar[frozenset[str]] = frozenset({"area", "head"})

    def __init__(self, params: Params) -> None:
        self.params = params

    def fit(self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, run: Run) -> FittedForest:
        """Grow the forest on pixels of the training images; validation images are not used."""
        params = self.params

        def know(sample: Sample) -> Known:
            return known(sample, params.point_radius, params.background_distance)

        def tell(label: str, done: int, total: int) -> None:
            if run.progress:
                run.progress.advance(label, done, total)

        chosen = choose(
            train, know, params.pixels, info.classes, run.seed, lambda done: tell("annotations", done, len(train))
        )
        rows, classes = [], []
        for done, one in enumerate(chosen, start=1):
            sample = train[one.sample]
            if len(sample.image) != info.channels:
                raise DataError(
                    f"sample {sample.id!r} has {len(sample.image)} channels; the dataset's have {info.channels}"
                )
            rows.append(_rows(sample.image, one, params.sigmas))
            classes.append(know(sample).masks.reshape(len(info.classes), -1)[:, one.pixels].T)
            tell("features", done, len(chosen))
        targets: BoolArray = np.concatenate(classes)
        weights = np.concatenate([one.weights for one in chosen])
        trees = grow(np.concatenate(rows), targets, weights, params.trees, params.minimum_leaf, run.seed, run.progress)
        versions = {"scikit-learn": sklearn.__version__, "opencv": cv2.__version__}
        return FittedForest(params, trees, info, provenance(run.seed, info.fingerprint) | versions)

    def load(self, folder: Path, device: str = "auto") -> FittedForest:
        """Read a forest; the features that it was grown on must be this method's."""
        saved = load_model(folder)
        if saved.method.name != NAME:
            raise ModelError(f"{folder} holds a {saved.method.name}; a {NAME} is wanted")
        sigmas = saved.method.params.get("sigmas")
        if sigmas != list(self.params.sigmas):
            raise ModelError(
                f"{folder}: the forest was grown on features at sigmas {sigmas}; the method that loads it has "
                f"{list(self.params.sigmas)}: give it the forest's"
            )
        trees = from_tensors(saved.tensors)
        found = trees.features, trees.value.shape[1]
        wanted = len(names(saved.info.channels, sigmas)), len(saved.info.classes)
        if found != wanted:
            raise ModelError(f"{folder}: the forest is of {found} features and classes; {wanted} are wanted")
        return FittedForest(self.params, trees, saved.info, saved.provenance)


@final
class FittedForest(Fitted):
    """A forest that has grown.

    Attributes:
        trees: The forest.
        info: Of the dataset that it learned from.
        head: What decides.
    """

    head: Head

    def __init__(self, params: Forest.Params, trees: Trees, info: DatasetInfo, origin: Mapping[str, str]) -> None:
        self.trees = trees
        self.info = info
        self._params = params
        self._origin = origin
        self._forest = Grown(trees)
        self.head = registry.build("head", params.head.name, **params.head.params)

    def with_head(self, head: Head) -> FittedForest:
        """Return the same with another head."""
        other = copy.copy(self)
        other.head = head
        return other

    def predict(self, images: Iterable[FloatArray]) -> Iterator[Prediction]:
        """Yield a prediction for each image, in order."""
        for image in chain.from_iterable(batches(images, self.info.channels)):
            probabilities = self.probabilities(image)
            score_map = ScoreMap(
                tuple(range(len(probabilities))),
                probabilities,
                probabilities,
                tuple(_status(one) for one in probabilities),
            )
            prediction = self.head.decide(score_map, image_scores(probabilities, self._params.area), image)
            yield dataclasses.replace(prediction, score_map=score_map, method=NAME)

    def joined(self, score_map: ScoreMap, scores: FloatArray, parts: Sequence[Part]) -> tuple[ScoreMap, FloatArray]:
        """Return the score map, and the scores that its pixels give: those of the tiles' halos do not count."""
        return score_map, image_scores(score_map.values, self._params.area)

    def probabilities(self, image: FloatArray) -> FloatArray:
        """Return each pixel's probability of being of each class, float32 (K, H, W), for an image (C, H, W)."""
        width = image.shape[2]
        parts = [self._forest.probabilities(band.reshape(len(band), -1)) for band in bands(image, self._params.sigmas)]
        return np.concatenate([part.reshape(len(part), -1, width) for part in parts], axis=1)

    def save(self, folder: Path) -> None:
        """Write the trees and the configuration to a new folder."""
        method = Choice(name=NAME, params=self._params.model_dump(mode="json"))
        save_model(folder, ModelFile(method, self.info, self._origin, self.trees.tensors()))


def image_scores(probabilities: FloatArray, area: int) -> FloatArray:
    """Return each class's score, float32 (K,): the probability (K, H, W) that `area` pixels, or else all, reach."""
    flat = probabilities.reshape(len(probabilities), -1)
    rank = max(flat.shape[1] - area, 0)
    return np.partition(flat, rank, axis=1)[:, rank]


def _rows(image: FloatArray, chosen: Chosen, sigmas: Sequence[float]) -> FloatArray:
    """Return the features (n, F) of the chosen pixels of an image."""
    parts, start = [], 0
    for band in bands(image, sigmas):
        flat = band.reshape(len(band), -1)
        first, last = np.searchsorted(chosen.pixels, (start, start + flat.shape[1]))
        parts.append(flat[:, chosen.pixels[first:last] - start].T)
        start += flat.shape[1]
    return np.concatenate(parts)


def _status(probabilities: FloatArray) -> Status:
    if not probabilities.any():
        return "empty"
    return "ok" if np.ptp(probabilities) > 0 else "constant"
