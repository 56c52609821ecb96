"""Tuning of thresholds on labelled images, and applying another head to scores that are already known.

Thresholds tuned on validation images are a result, and annotating these images is part of its cost; those that need
image-level labels alone cost no outlines. Thresholds tuned on the test images are not a result: they give an upper
bound on the mean IoU, among the thresholds that are tried.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from micraframe.errors import DataError, reason_of
from micraframe.interfaces import ClassRule, Head, MaskHeadParams, Thresholds, every_class
from micraframe.metrics.masks_and_labels import labels_of, masks_of
from micraframe.metrics.overlap import overlap
from micraframe.pipeline import Pipeline
from micraframe.types import BoolArray, FloatArray, Origin, Prediction, Sample, Scores

GRID: Final = tuple(float(value) for value in np.round(np.arange(1, 20) / 20, 2))
"""The mask thresholds that are tried, in addition to the head's own rule."""

_MASKS: Final = (None, *GRID)


def room() -> int:
    """Return how many bytes of maps are kept; see `ROOM`."""
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
        memory = pages * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows, or a system that does not know
        return 1 << 30
    return min(memory // 16, 2 << 30) if pages > 0 else 1 << 30


ROOM: Final = room()
"""Bytes of maps that are kept for other heads: a sixteenth of the machine's memory, at most 2 GiB.

Every worker of a study keeps those of test and of validation images. Images whose maps do not fit are scored again.
"""

FILE: Final = "thresholds.json"
"""The file of a study's run that contains its thresholds."""


def tune(pipeline: Pipeline, samples: Sequence[Sample], scores: Sequence[Scores]) -> Thresholds:
    """Return the thresholds that are best on these samples.

    They have the highest mean over images of the mean IoU over classes, as tables report it. Candidates for presence
    are the head's own threshold and, for each class, the most accurate one; candidates for masks are the head's own
    rule and the values of `GRID`. Ties go to the head's own, so that the result is never worse than they are. If no
    sample has masks, or the head makes none, presence is tuned for accuracy and the mask rule stays.

    Args:
        pipeline: A trained pipeline.
        samples: With masks, labels or both. Those with unknown labels do not count for accuracy.
        scores: The pipeline's scores of the samples, in their order.

    Raises:
        DataError: If there are no samples.
    """
    if not samples:
        raise DataError("expected at least 1 image to tune thresholds on, got 0; add images, or set tuning_images: 0")
    presence = np.stack([each.presence for each in scores])
    accurate = _most_accurate(presence, [labels_of(sample) for sample in samples])
    if not isinstance(pipeline.head.params, MaskHeadParams):
        return Thresholds(accurate, None)
    decisions = tuple(dict.fromkeys((None, accurate)))
    candidates = [Thresholds(decision, mask) for decision in decisions for mask in _MASKS]
    heads = [[pipeline.head.with_thresholds(Thresholds(decision, mask)) for mask in _MASKS] for decision in decisions]
    if any(pipeline.cuts(sample.image) for sample in samples):
        deciding, judged = [Thresholds(decision) for decision in decisions], [[row] for row in heads]
    else:  # A class has the same map for every head: scores with all maps that any head needs serve all heads.
        deciding, judged = [Thresholds(_lowest_explained([row[0] for row in heads], presence))], [heads]
    images = [sample.image for sample in samples]
    decided = [
        scores_for(pipeline, pipeline.with_thresholds(thresholds, "validation"), images, scores)
        for thresholds in deciding
    ]
    sums, counts, compared = np.zeros(len(candidates)), np.zeros(len(candidates)), False
    for sample, *found in zip(samples, *decided, strict=True):
        truth = masks_of(sample)
        if truth is None:
            continue
        parts = [_ious(rows, each, pipeline, sample, truth) for rows, each in zip(judged, found, strict=True)]
        values = np.concatenate(parts)
        sums += np.nan_to_num(values)
        counts += ~np.isnan(values)
        compared = True
    if not compared:
        return Thresholds(accurate, None)
    # The first of several: the head's own thresholds, unless others are better.
    means = sums / np.maximum(counts, 1)
    best = int(np.argmax(means))
    return replace(candidates[best], quality=float(means[best]) if counts[best] else None)


def tune_by_labels(
    pipeline: Pipeline, samples: Sequence[Sample], quantile: float = 0.99, scores: Sequence[Scores] | None = None
) -> dict[Origin, Thresholds]:
    """Return the thresholds that follow from image-level labels alone, by origin; masks are not looked at.

    Presence thresholds are, for each class, the most accurate ones. There are two mask thresholds, of the values that
    the classes' maps have in all pixels of the images that do not hold the class, or that do, all classes together:

    - `negatives` is a quantile of the values in images without the class. All pixels there are background, so that a
      share of 1 - `quantile` of them is taken for structure.
    - `expected-share` is the threshold that as large a share of the values in images with the class exceeds as is
      expected if the values are probabilities, which is their mean.

    Args:
        pipeline: A trained pipeline.
        samples: Their labels are used; samples without labels are ignored.
        quantile: Of `negatives`, in [0, 1].
        scores: The pipeline's scores of the samples with the maps of every class, in their order; None: they are scored
            now.

    Returns:
        Nothing of a kind for which there are no values, and nothing at all if the head makes no masks.
    """
    if not isinstance(pipeline.head.params, MaskHeadParams):
        return {}
    places = [place for place, sample in enumerate(samples) if sample.labels is not None]
    known = [samples[place] for place in places]
    truths = [sample.labels for sample in known if sample.labels is not None]
    if scores is None:
        images = iter([sample.image for sample in known])
        every = list(pipeline.score(images, every_class))
    else:
        every = [scores[place] for place in places]
    values: dict[bool, list[FloatArray]] = {False: [], True: []}
    for truth, each in zip(truths, every, strict=True):
        for index, plane in zip(each.classes, each.maps, strict=True):
            values[bool(truth[index])].append(plane.ravel())
    levels: dict[Origin, float] = {}
    if values[False]:
        levels["negatives"] = float(np.quantile(np.concatenate(values[False]), quantile))
    if values[True]:
        levels["expected-share"] = expected_share_threshold(np.concatenate(values[True]))
    accurate = _most_accurate(np.array([each.presence for each in every]), truths)
    return {origin: Thresholds(accurate, level) for origin, level in levels.items()}


def expected_share_threshold(values: FloatArray) -> float:
    """Return the threshold that a share of the values, float32 (N,) in [0, 1], exceeds that is equal to their mean.

    It is exact up to one value, unless some are equal.
    """
    return float(np.quantile(values, 1 - values.mean(dtype=np.float64)))


def apply_head(
    pipeline: Pipeline, other: Pipeline, images: Sequence[FloatArray], scores: Sequence[Scores]
) -> Iterator[Prediction]:
    """Yield what another pipeline of the same model predicts, from known scores where they suffice: `scores_for`."""
    found = scores_for(pipeline, other, images, scores)
    for image, each in zip(images, found, strict=True):
        yield other.decide(each, image)


def scores_for(
    pipeline: Pipeline, other: Pipeline, images: Sequence[FloatArray], scores: Sequence[Scores]
) -> Iterator[Scores]:
    """Yield the scores that another pipeline of the same model needs: the known ones if they contain its maps.

    The merged map of a class is 0 in tiles where the class was judged absent and therefore not explained: images that
    were cut into tiles are scored again if the other head has another presence threshold. Of other images, the maps
    that the first head needs are there too, whether they had been kept or not.

    Args:
        pipeline: The pipeline that made the scores.
        other: The same model with another head.
        images: Each float32 (C, H, W).
        scores: The first pipeline's scores of the images, in their order; maps may be left out, as by `bounded`.
    """

    def either(presence: FloatArray) -> Sequence[int]:
        return sorted({*pipeline.head.classes_to_explain(presence), *other.head.classes_to_explain(presence)})

    alike = pipeline.head.params.presence_threshold == other.head.params.presence_threshold
    cut = [pipeline.cuts(image) for image in images]
    at_hand = [
        set(either(known.presence)) <= set(known.classes) and (alike or not tiles)
        for known, tiles in zip(scores, cut, strict=True)
    ]

    def again(in_tiles: bool, rule: ClassRule | None) -> Iterator[Scores]:
        kinds = zip(images, at_hand, cut, strict=True)
        return other.score(iter([image for image, has, tiles in kinds if not has and tiles == in_tiles]), rule)

    # Scored one by one, as they are asked for below, in the same order.
    tiled, whole = again(True, None), again(False, either)
    for known, has, tiles in zip(scores, at_hand, cut, strict=True):
        yield known if has else next(tiled if tiles else whole)


def bounded(scores: Iterable[Scores], room: int = ROOM) -> Iterator[Scores]:
    """Yield scores; those that no longer fit into memory are yielded without their maps.

    Args:
        scores: Of a series of images.
        room: Bytes that maps and objects may take in total.
    """
    for each in scores:
        size = _bytes([each.maps, each.coarse, each.notes, each.objects])
        if size <= room:
            room -= size
            yield each
        else:
            yield Scores.without_maps(each.presence, each.size)


def best_presence_threshold(presence: FloatArray, labels: BoolArray) -> float:
    """Return the threshold that classifies the most images correctly; of several, the nearest to 0.5.

    Args:
        presence: float32 (N,): the probability of one class; it counts as present where this reaches the threshold.
        labels: bool (N,): whether it is present.
    """
    levels = np.unique(presence.astype(np.float64))
    candidates = np.array([0.5, *((levels[1:] + levels[:-1]) / 2), max(levels[0] / 2, 0.0), (levels[-1] + 1) / 2])
    candidates = candidates[np.argsort(np.abs(candidates - 0.5), kind="stable")]
    order = np.argsort(presence)
    below = np.concatenate([[0], np.cumsum(labels[order])])  # images with the class among the first n
    # In float32, as heads compare.
    first = np.searchsorted(presence[order], candidates.astype(np.float32))
    correct = first - below[first] + below[-1] - below[first]
    return float(candidates[np.argmax(correct)])


def read_thresholds(path: Path, origin: Origin = "validation") -> Thresholds:
    """Return the thresholds that a study tuned for one of its runs.

    Args:
        path: The run's folder, `STUDY/runs/KEY`, or its `thresholds.json`.
        origin: Any but `fixed`.

    Raises:
        DataError: If the file cannot be read, or has no thresholds of this origin.
    """
    file = path / FILE if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["tuned"]
        if origin not in found:
            raise DataError(
                f"{file}: expected thresholds of origin {origin}, got {', '.join(found) or 'none'}; run the study with "
                "tuning_images > 0"
            )
        return TypeAdapter(Thresholds).validate_python(found[origin])  # its other keys are for readers
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(
            f"{file}: expected the thresholds of a study's run (STUDY/runs/KEY), got {reason_of(error)}"
        ) from error


def _bytes(value: Any) -> int:
    """Return the size of the arrays in this, however deep in sequences, mappings and dataclasses."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        value = list(value.values())
    elif not isinstance(value, tuple | list):
        value = list(getattr(value, "__dict__", {}).values())
    return sum(map(_bytes, value))


def _most_accurate(presence: FloatArray, labels: Sequence[BoolArray | None]) -> tuple[float, ...] | None:
    """Return each class's most accurate presence threshold, given presence (N, K); None without labels."""
    known = [(row, truth) for row, truth in zip(presence, labels, strict=True) if truth is not None]
    if not known:
        return None
    rows, truths = (np.stack(each) for each in zip(*known, strict=True))
    return tuple(best_presence_threshold(row, truth) for row, truth in zip(rows.T, truths.T, strict=True))


def _lowest_explained(heads: Sequence[Head[Any]], presence: FloatArray) -> tuple[float, ...]:
    """Return for each of K classes its lowest presence (N, K) at which any head needs its map; 1 where none does."""
    needed = np.zeros(presence.shape, bool)
    for head in heads:
        for row, probabilities in zip(needed, presence, strict=True):
            row[list(head.classes_to_explain(probabilities))] = True
    return tuple(np.where(needed, presence, 1.0).min(axis=0).tolist())


def _ious(
    heads: Sequence[Sequence[Head[Any]]], scores: Scores, pipeline: Pipeline, sample: Sample, truth: BoolArray
) -> npt.NDArray[np.float64]:
    """Return the mean IoU over classes as each head decides, row by row; NaN where truth and masks are empty.

    As in tables, it does not include the contact class.

    Args:
        heads: They differ in thresholds only; all heads of a row have the same presence threshold.
        scores: With the maps that any of them needs.
        pipeline: The pipeline of the heads.
        sample: The image.
        truth: Its masks.
    """
    values: list[float] = []
    averaged = np.array(pipeline.info.roles) != "contact"
    for row in heads:
        # A head that needs no map thresholds none: all mask thresholds give the same result.
        differing = row if row[0].classes_to_explain(scores.presence) else row[:1]
        decided = (head.decide(scores, sample.image, pipeline.info) for head in differing)
        found = [_iou(truth, masks_of(each), sample.ignore, averaged) for each in decided]
        values += found if len(found) == len(row) else found * len(row)
    return np.array(values)


def _iou(truth: BoolArray, predicted: BoolArray | None, ignore: BoolArray | None, averaged: BoolArray) -> float:
    """Return the mean IoU over the classes to average, bool (K,); NaN where none is in truth or prediction."""
    if predicted is None:
        return np.nan
    values = overlap(truth, predicted, ignore)["iou"][averaged]
    return np.nan if np.isnan(values).all() else float(np.nanmean(values, dtype=np.float64))
