"""Thresholds tuned on labels: what validation images would have them be, and what the test images would.

The first is a result, and its labels are on the annotation bill; the second is an upper bound and never a result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe.interfaces import Fitted, Head
from micraframe.metrics.overlap import overlap
from micraframe.types import BoolArray, FloatArray, Prediction, Sample

GRID = tuple(float(value) for value in np.round(np.arange(1, 20) / 20, 2))
"""The thresholds of score maps that are tried, besides the head's own rule."""

ROOM = 1 << 30
"""Bytes of score maps that are kept in memory to be decided anew; beyond, they are made anew."""


class Tuned(NamedTuple):
    """Thresholds that were found best.

    Attributes:
        decision: For each of the K classes, the probability from which on it is present.
        mask: The threshold of score maps, or None where the head's own rule was best.
    """

    decision: tuple[float, ...]
    mask: float | None


def tune(fitted: Fitted, samples: Sequence[Sample], known: Sequence[Prediction]) -> Tuned:
    """Return the thresholds that are best on these samples.

    Those of presence maximise each class's accuracy. With these, that of masks maximises the mean over images of the
    mean IOU over classes, as tables report it.

    Args:
        fitted: A method with a head.
        samples: With labels; those with masks as well say which threshold of masks is best.
        known: What the method predicts of the samples, in their order.

    Raises:
        TypeError: If the method has no head.
    """
    if fitted.head is None:
        raise TypeError(f"{type(fitted).__name__} has no head whose thresholds could be tuned")
    scores = np.stack([prediction.scores for prediction in known])
    labels = np.stack([_labels(sample, scores.shape[1]) for sample in samples])
    decision = tuple(best_decision(mine, truth) for mine, truth in zip(scores.T, labels.T, strict=True))
    heads = [fitted.head.with_thresholds(decision, value) for value in (None, *GRID)]
    sums, counts = np.zeros(len(heads)), np.zeros(len(heads))
    for sample, prediction in zip(samples, redecided(fitted, heads[0], samples, known), strict=True):
        if sample.masks is None or prediction.score_map is None:
            continue
        values = np.array([_iou(head, prediction, sample) for head in heads])
        sums += np.nan_to_num(values)
        counts += ~np.isnan(values)
    # Of equal thresholds the first: the head's own rule, where nothing beats it.
    best = int(np.argmax(sums / np.maximum(counts, 1)))
    return Tuned(decision, None if best == 0 else GRID[best - 1])


def redecided(
    fitted: Fitted, head: Head, samples: Sequence[Sample], known: Sequence[Prediction]
) -> Iterator[Prediction]:
    """Yield what the method predicts with another head, made of the score maps at hand where they hold what it wants.

    Args:
        fitted: A method with a head.
        head: The other one.
        samples: Of which to predict.
        known: What the method predicts of them with its own head.
    """
    at_hand = [
        prediction.score_map is not None and set(head.wanted(prediction.scores)) <= set(prediction.score_map.classes)
        for prediction in known
    ]
    # One by one, as they are asked for below, in the same order.
    anew = fitted.with_head(head).predict(sample.image for sample, has in zip(samples, at_hand, strict=True) if not has)
    for sample, prediction, has in zip(samples, known, at_hand, strict=True):
        if not has or prediction.score_map is None:
            yield next(anew)
            continue
        decided = head.decide(prediction.score_map, prediction.scores, sample.image)
        yield dataclasses.replace(decided, score_map=prediction.score_map, method=prediction.method)


def kept(predictions: Iterable[Prediction], room: int = ROOM) -> Iterator[Prediction]:
    """Yield predictions without what `redecided` does not need: without masks, and without score maps beyond `room`.

    Args:
        predictions: Of a method with a head.
        room: Bytes that the score maps may take together.
    """
    for prediction in predictions:
        score_map = prediction.score_map
        if score_map is not None:
            size = score_map.values.nbytes + score_map.coarse.nbytes
            if size <= room:
                room -= size
            else:
                score_map = None
        yield Prediction(prediction.scores, prediction.present, score_map=score_map, method=prediction.method)


def best_decision(scores: FloatArray, labels: BoolArray, usual: float = 0.5) -> float:
    """Return the threshold of one class's scores (N,) that is right most often; of equals that nearest to `usual`.

    A class counts as present where its score reaches the threshold.
    """
    levels = np.unique(scores.astype(np.float64))
    candidates = np.array([usual, *((levels[1:] + levels[:-1]) / 2), max(levels[0] / 2, 0.0), (levels[-1] + 1) / 2])
    candidates = candidates[np.argsort(np.abs(candidates - usual), kind="stable")]
    # In float32, as heads compare.
    right: npt.NDArray[np.float64] = ((scores >= candidates.astype(np.float32)[:, None]) == labels).mean(axis=1)
    return float(candidates[np.argmax(right)])


def _labels(sample: Sample, classes: int) -> BoolArray:
    if sample.labels is not None:
        return sample.labels
    if sample.masks is not None:
        return np.asarray(sample.masks.any(axis=(1, 2)))
    return np.zeros(classes, bool)


def _iou(head: Head, prediction: Prediction, sample: Sample) -> float:
    """Return the mean IOU over classes when this head decides; NaN where no class is in truth or prediction."""
    assert prediction.score_map is not None
    assert sample.masks is not None
    decided = head.decide(prediction.score_map, prediction.scores, sample.image)
    if decided.masks is None:
        return np.nan
    values = overlap(sample.masks, decided.masks, sample.ignore)["iou"]
    return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan
