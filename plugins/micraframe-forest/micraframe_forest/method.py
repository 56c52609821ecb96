"""The method `forest`: a random forest on ilastik's pixel features."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, final

import numpy as np
from pydantic import Field
from torch import Tensor

from micraframe.interfaces import ClassRule, Method, Model, ScoredTile
from micraframe.parameters import Parameters
from micraframe.types import Annotation, BoolArray, DatasetInfo, FitContext, FloatArray, Sample, Scores
from micraframe_forest.features import SIGMAS, bands, names
from micraframe_forest.pixels import AnnotatedPixels, ChosenPixels, annotated_pixels, choose
from micraframe_forest.trees import TreePredictor, Trees, from_tensors, grow


@final
class Forest(Method["Forest.Params"]):
    """A random forest that classifies pixels by what their neighbourhood looks like.

    It is trained on a balanced choice of the annotated pixels. Each is weighted by the number of pixels that it
    represents, so that probabilities match the class frequencies in the annotation. There are no checkpoints: training
    takes about a minute, and the same seed gives the same forest. Validation images are not used.
    """

    class Params(Parameters):
        sigmas: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
            SIGMAS, min_length=1, description="Scales of the features in pixels; the default is ilastik's."
        )
        trees: int = Field(100, ge=1, description="Number of trees; ilastik's 100.")
        min_samples_leaf: int = Field(1, ge=1, description="Minimum number of training pixels in a leaf.")
        pixels: int = Field(
            30_000,
            ge=2,
            description="Maximum number of training pixels, shared equally between the background and the classes.",
        )
        point_radius: float = Field(3.0, ge=0, description="Radius in pixels of the disc around a point.")
        background_distance: float | None = Field(
            None,
            gt=0,
            description="Pixels farther than this from all points are background; none: only images without any point "
            "show the background.",
        )
        area: int = Field(
            16,
            ge=1,
            description="The presence probability of a class is the pixel probability that this many pixels reach.",
        )

    learns_from = frozenset({Annotation.MASKS, Annotation.INSTANCES, Annotation.BOXES, Annotation.POINTS})
    uses_validation = False
    inference_params = frozenset({"area"})
    default_head = ("micraframe/semantic", {"mask_threshold": {"name": "fixed", "value": 0.5}})

    def fit(
        self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext
    ) -> ForestModel:
        """Train the forest on pixels of the training images."""
        params = self.params
        progress = context.progress

        def annotated(sample: Sample) -> AnnotatedPixels:
            return annotated_pixels(sample, params.point_radius, params.background_distance)

        chosen = choose(
            train,
            annotated,
            params.pixels,
            info.classes,
            context.seed,
            lambda done: progress.advance("annotations", done, len(train)),
        )
        rows, classes = [], []
        for done, one in enumerate(chosen, start=1):
            sample = train[one.sample]
            rows.append(_rows(sample.image, one, params.sigmas))
            classes.append(annotated(sample).masks.reshape(len(info.classes), -1)[:, one.pixels].T)
            progress.advance("features", done, len(chosen))
        targets: BoolArray = np.concatenate(classes)
        weights = np.concatenate([one.weights for one in chosen])
        trees = grow(
            np.concatenate(rows), targets, weights, params.trees, params.min_samples_leaf, context.seed, progress
        )
        return ForestModel(params, trees)

    def restore(self, state: Mapping[str, Tensor], info: DatasetInfo, device: str) -> ForestModel:
        """Return the model with these trees."""
        trees = from_tensors(state)
        found = trees.features, trees.value.shape[1]
        expected = len(names(info.channels, self.params.sigmas)), len(info.classes)
        if found != expected:
            raise RuntimeError(f"expected a forest with {expected} features and classes, got {found}")
        return ForestModel(self.params, trees)


@final
class ForestModel(Model):
    """A trained forest.

    Attributes:
        trees: The forest's nodes.
    """

    def __init__(self, params: Forest.Params, trees: Trees) -> None:
        self.trees = trees
        self._params = params
        self._predictor = TreePredictor(trees)

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        """Yield the scores of each image, with maps of all classes, in order."""
        for image in images:
            maps = self.probabilities(image)
            yield Scores(presence(maps, self._params.area), tuple(range(len(maps))), maps)

    def merge_tiles(self, merged: Scores, tiles: Sequence[ScoredTile]) -> Scores:
        """Return the merged scores with the presence computed from the joined maps: a tile's halo does not count."""
        return dataclasses.replace(merged, presence=presence(merged.maps, self._params.area))

    def state(self) -> Mapping[str, Tensor]:
        """Return the nodes of the trees."""
        return self.trees.tensors()

    def probabilities(self, image: FloatArray) -> FloatArray:
        """Return the probability of each class at each pixel, float32 (K, H, W), for an image (C, H, W)."""
        width = image.shape[2]
        parts = [
            self._predictor.probabilities(band.reshape(len(band), -1)) for band in bands(image, self._params.sigmas)
        ]
        return np.concatenate([part.reshape(len(part), -1, width) for part in parts], axis=1)


def presence(maps: FloatArray, area: int) -> FloatArray:
    """Return the presence probability of each class, float32 (K,), from maps (K, H, W).

    It is the probability that `area` pixels reach, or all pixels of a smaller image.
    """
    flat = maps.reshape(len(maps), -1)
    rank = max(flat.shape[1] - area, 0)
    return np.partition(flat, rank, axis=1)[:, rank]


def _rows(image: FloatArray, chosen: ChosenPixels, sigmas: Sequence[float]) -> FloatArray:
    """Return the features (n, F) of the chosen pixels of an image."""
    parts, start = [], 0
    for band in bands(image, sigmas):
        flat = band.reshape(len(band), -1)
        first, last = np.searchsorted(chosen.pixels, (start, start + flat.shape[1]))
        parts.append(flat[:, chosen.pixels[first:last] - start].T)
        start += flat.shape[1]
    return np.concatenate(parts)
