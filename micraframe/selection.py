"""Criteria for choosing among trained pipelines by image-level labels alone: no mask is read.

They judge maps and masks of validation images. Every class is explained and cut out in every image, whether or not it
was found there, so that they judge the map and its threshold rather than the decision on presence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from micraframe.erasing import erase, paste, repeated
from micraframe.errors import DataError
from micraframe.interfaces import Column, Thresholds, every_class
from micraframe.metrics.masks_and_labels import masks_of
from micraframe.metrics.precision_recall import average_precision
from micraframe.metrics.reduction import mean_defined, means_defined
from micraframe.pipeline import Pipeline
from micraframe.types import BoolArray, FloatArray, Sample, Scores

Double = npt.NDArray[np.float64]

FILE: Final = "criteria.csv"
"""The file of a study, and of each of its runs, that contains the criteria."""

CRITERIA: Final = (
    Column(
        "pooled_map_ap",
        "the average precision of the map's strongest values as a score for the image's label; maps that are scaled "
        "image by image hardly differ in them",
    ),
    Column(
        "area_in_negatives",
        "the mean share of pixels in the masks of images without the class, where the class is cut out regardless",
        higher_is_better=False,
    ),
    Column(
        "erasing",
        "the share of images with the class in which it is no longer found once its mask, slightly dilated, is filled "
        "from an image without it; low if masks are too small",
    ),
    Column(
        "keeping",
        "the share of images without the class in which it is found once an object's image is pasted within its mask; "
        "low if masks are too small or elsewhere",
    ),
    Column(
        "share",
        "the mean share of pixels in the masks of images with the class: masks that are too large pass erasing and "
        "keeping too, so of equal values there, the smaller share is better",
        higher_is_better=False,
    ),
)
"""The criteria with their directions, in the order of the fields of `LabelCriteria`."""


@dataclass(frozen=True)
class LabelCriteria:
    """What labels alone say of a pipeline: means over the classes for which a criterion is defined, NaN for none.

    Attributes:
        pooled_map_ap: Average precision, in [0, 1], of the mean of a map's strongest values as a score for the image's
            label; high is good. Undefined for a class that is in all images or in none.
        area_in_negatives: Mean share of pixels, in [0, 1], in the masks of images without the class; low is good.
        erasing: Share of images, in [0, 1], that lose the class if its mask is erased; high is good. See
            `erasing_and_keeping`.
        keeping: Share of images, in [0, 1], that gain the class if what its mask shows elsewhere is pasted into them;
            high is good.
        share: Mean share of pixels, in [0, 1], in the masks of images with the class: the smaller of two that are alike
            in erasing and keeping, which do not punish masks that are too large.
    """

    pooled_map_ap: float
    area_in_negatives: float
    erasing: float
    keeping: float
    share: float


def label_criteria(
    pipeline: Pipeline,
    samples: Sequence[Sample],
    seed: int = 0,
    dilation: int = 3,
    scores: Sequence[Scores] | None = None,
) -> LabelCriteria:
    """Return the criteria of a pipeline on images with labels.

    Without maps `pooled_map_ap` is NaN; without masks, as of a head that classifies, the others are.

    Args:
        pipeline: A trained pipeline; its own presence threshold decides which classes are found.
        samples: Validation images. Only image and labels are read; those without labels do not count.
        seed: Draws the pairs of images for erasing and keeping.
        dilation: Pixels by which masks are dilated before they are erased.
        scores: The model's scores of the samples with the maps of every class, in their order, which no threshold
            changes; None: they are scored now.

    Raises:
        DataError: If no sample has labels.
    """
    places = [place for place, sample in enumerate(samples) if sample.labels is not None]
    samples = [samples[place] for place in places]
    if not samples:
        raise DataError("expected at least 1 validation image with labels, got 0; add labels")
    labels = np.stack([sample.labels for sample in samples if sample.labels is not None])
    classes = labels.shape[1]
    # At a threshold of 0, every class counts as present.
    forced = pipeline.with_thresholds(Thresholds(presence=(0.0,) * classes), "fixed")
    pooled, present, found = [], [], []
    if scores is None:
        scored = pipeline.score((sample.image for sample in samples), every_class)
    else:
        scored = iter([scores[place] for place in places])
    for sample, each in zip(samples, scored, strict=True):
        pooled.append(strongest(each))
        present.append(pipeline.head.present(each.presence))
        found.append(masks_of(forced.decide(each, sample.image)))
    masks = [each for each in found if each is not None]
    if len(masks) == len(samples):
        areas = np.stack([mask.mean(axis=(1, 2)) for mask in masks])
        images = [sample.image for sample in samples]
        erased, kept = erasing_and_keeping(pipeline, images, labels, np.stack(present), masks, seed, dilation)
    else:
        areas, (erased, kept) = np.full(labels.shape, np.nan), np.full((2, classes), np.nan)
    numbers = (
        pooled_map_ap(np.stack(pooled), labels),
        mean_area(areas, ~labels),
        erased,
        kept,
        mean_area(areas, labels),
    )
    return LabelCriteria(*map(mean_defined, numbers))


def strongest(scores: Scores) -> FloatArray:
    """Return the mean of each class's map over the strongest 1 % of its pixels, float32 (K,); NaN without a map."""
    found = np.full(len(scores.presence), np.nan, np.float32)
    if scores.classes:
        values = np.sort(scores.maps.reshape(len(scores.classes), -1), axis=1)
        found[list(scores.classes)] = values[:, -max(1, round(0.01 * values.shape[1])) :].mean(1)
    return found


def pooled_map_ap(pooled: FloatArray, labels: BoolArray) -> Double:
    """Return the average precision of each class's pooled maps, (K,).

    It is NaN for a class that is in all images or in none, or that lacks a map.

    Args:
        pooled: float32 (N, K): pooled maps.
        labels: bool (N, K).
    """
    pairs = zip(labels.T, pooled.T, strict=True)
    return np.array([np.nan if np.isnan(maps).any() else average_precision(known, maps) for known, maps in pairs])


def mean_area(areas: Double, which: BoolArray) -> Double:
    """Return the mean share of pixels of each class over these images, (K,); NaN over none.

    Args:
        areas: float64 (N, K): share of an image's pixels in the class's mask; NaN where unknown.
        which: bool (N, K): the images that count for each class.
    """
    return means_defined(np.where(which, areas, np.nan).T)


def erasing_and_keeping(
    pipeline: Pipeline,
    images: Sequence[FloatArray],
    labels: BoolArray,
    present: BoolArray,
    masks: Sequence[BoolArray],
    seed: int = 0,
    dilation: int = 3,
) -> tuple[Double, Double]:
    """Return the shares of images that lose and that gain each class when its masks are exchanged, each float64 (K,).

    Each positive image is paired with a random negative one. *Erasing* fills the positive image's mask, dilated, with
    the negative image's pixels: the class should no longer be found. *Keeping* pastes the positive image's pixels
    within the mask into the negative image: the class should be found there. Both are 1 for a perfect mask. A mask that
    is too small fails, one that is too large does not. Only images that the pipeline classifies correctly count; both
    are NaN for a class without a positive or a negative one.

    Args:
        pipeline: Classifies.
        images: Each float32 (C, H, W), N of them.
        labels: bool (N, K): whether each class is in the image.
        present: bool (N, K): whether the pipeline finds it there.
        masks: Each bool (K, H, W): the class's mask, whether or not it was found.
        seed: Draws the pairs.
        dilation: Pixels by which a mask is dilated before it is erased, as a square.
    """

    def found_in(images: list[FloatArray], index: int) -> float:
        scored = pipeline.score(images, lambda presence: ())
        return float(np.mean([pipeline.head.present(scores.presence)[index] for scores in scored]))

    shares = np.full((2, labels.shape[1]), np.nan)
    for index in range(labels.shape[1]):
        positives = np.flatnonzero(labels[:, index] & present[:, index])
        negatives = np.flatnonzero(~labels[:, index] & ~present[:, index])
        if not (positives.size and negatives.size):
            continue
        erased, kept = [], []
        # By class, so that a class draws the same pairs whatever was drawn for the others.
        drawn = np.random.default_rng((seed, index)).choice(negatives, len(positives))
        for positive, negative in zip(positives.tolist(), drawn.tolist(), strict=True):
            image, mask = images[positive], masks[positive][index]
            donor = repeated(images[negative], mask.shape)
            erased.append(erase(image, donor, mask, dilation))
            kept.append(paste(donor, image, mask))
        shares[:, index] = 1 - found_in(erased, index), found_in(kept, index)
    return shares[0], shares[1]
