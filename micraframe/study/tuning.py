"""Thresholds tuned on labels: what validation images would have them be, and what the test images would.

The first is a result, and its labels are on the annotation bill. The second is no result: it has seen the test labels,
and bounds from above only what is maximised, among the thresholds that are tried, the head's own being one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe.errors import DataError
from micraframe.interfaces import Fitted, Head
from micraframe.metrics.evidence import labels_of, masks_of
from micraframe.metrics.overlap import overlap
from micraframe.tiling import Tiling, is_cut, predict
from micraframe.types import BoolArray, FloatArray, Prediction, Sample

GRID = tuple(float(value) for value in np.round(np.arange(1, 20) / 20, 2))
"""The thresholds of score maps that are tried, besides the head's own rule."""

_MASKS = (None, *GRID)

ROOM = 1 << 30
"""Bytes of score maps that are kept in memory to be decided anew; beyond, they are made anew."""


class Tuned(NamedTuple):
    """Thresholds that were found best.

    Attributes:
        decision: For each of the K classes, the probability from which on it is present; None: the head's own.
        mask: The threshold of score maps; None: the head's own rule.
    """

    decision: tuple[float, ...] | None
    mask: float | None


def tune(fitted: Fitted, samples: Sequence[Sample], known: Sequence[Prediction], tiling: Tiling | None = None) -> Tuned:
    """Return the thresholds that are best on these samples.

    Those with the highest mean over images of the mean IOU over classes, as tables report it, of presence decided as
    the head does or as is most accurate for each class, with masks cut by the head's own rule or at a value of `GRID`;
    of equals the head's own. They are never worse than the head's own. Where no sample has masks, or the method makes
    none, presence is decided as is most accurate, and the head's own rule stays.

    Args:
        fitted: A method with a head.
        samples: With masks, labels or both. Those whose labels are unknown say nothing of accuracy.
        known: What the method predicts of the samples, in their order.
        tiling: How large images are cut.

    Raises:
        TypeError: If the method has no head.
        DataError: If there are no samples.
    """
    if fitted.head is None:
        raise TypeError(f"{type(fitted).__name__} has no head whose thresholds could be tuned")
    if not samples:
        raise DataError("there are 0 images to tune thresholds on; at least one is wanted: add images, or set tune: 0")
    scores = np.stack([prediction.scores for prediction in known])
    accurate = _accurate(scores, [labels_of(sample) for sample in samples])
    decisions = tuple(dict.fromkeys((None, accurate)))
    candidates = [Tuned(decision, mask) for decision in decisions for mask in _MASKS]
    heads = [[fitted.head.with_thresholds(decision, mask) for mask in _MASKS] for decision in decisions]
    if any(is_cut(sample.image.shape[1:], tiling) for sample in samples):
        deciding, judged = [row[0] for row in heads], [[row] for row in heads]
    else:  # the map of a class is the same whatever is decided: one that holds all that any head wants serves all
        wide = fitted.head.with_thresholds(_least_wanted([row[0] for row in heads], scores))
        deciding, judged = [wide], [heads]
    told = [redecided(fitted, head, samples, known, tiling) for head in deciding]
    sums, counts, compared = np.zeros(len(candidates)), np.zeros(len(candidates)), False
    for sample, *predictions in zip(samples, *told, strict=True):
        truth = masks_of(sample)
        if truth is None or any(one.score_map is None or masks_of(one) is None for one in predictions):
            continue
        parts = [_ious(rows, one, sample, truth) for rows, one in zip(judged, predictions, strict=True)]
        values = np.concatenate(parts)
        sums += np.nan_to_num(values)
        counts += ~np.isnan(values)
        compared = True
    if not compared:
        return Tuned(accurate, None)
    # Of equals the first: the head's own thresholds, where nothing beats them.
    return candidates[int(np.argmax(sums / np.maximum(counts, 1)))]


def redecided(
    fitted: Fitted,
    head: Head,
    samples: Sequence[Sample],
    known: Sequence[Prediction],
    tiling: Tiling | None = None,
) -> Iterator[Prediction]:
    """Yield what the method predicts with another head, made of the score maps at hand where they hold what it wants.

    A joined score map is blank in tiles in which the class was not explained, as presence was decided then: where
    another head decides presence differently, images that were cut are predicted anew.

    Args:
        fitted: A method with a head.
        head: The other one.
        samples: Of which to predict.
        known: What the method predicts of them with its own head.
        tiling: How large images are cut.
    """
    alike = _decision(head) == _decision(fitted.head)
    at_hand = [
        prediction.score_map is not None
        and set(head.wanted(prediction.scores)) <= set(prediction.score_map.classes)
        and (alike or not is_cut(sample.image.shape[1:], tiling))
        for sample, prediction in zip(samples, known, strict=True)
    ]
    # Images and nothing else: through a generator's frame, a method would find the samples. They are explained one by
    # one, as they are asked for below, in the same order.
    images = iter([sample.image for sample, has in zip(samples, at_hand, strict=True) if not has])
    anew = predict(fitted.with_head(head), images, tiling)
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
            size = _bytes([score_map.values, score_map.coarse, score_map.notes])
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


def _decision(head: Head | None) -> object:
    """Return the parameter that `Head.with_thresholds` sets; None where there is none."""
    return None if head is None else getattr(head.params, "decision", None)


def _bytes(value: object) -> int:
    """Return what the arrays in this take, however deep in tuples, lists and mappings."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        value = list(value.values())
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0


def _accurate(scores: FloatArray, labels: Sequence[BoolArray | None]) -> tuple[float, ...] | None:
    """Return for each of K classes the threshold of scores (N, K) that is right most often; None without labels."""
    told = [(row, truth) for row, truth in zip(scores, labels, strict=True) if truth is not None]
    if not told:
        return None
    rows, truths = (np.stack(each) for each in zip(*told, strict=True))
    return tuple(best_decision(mine, truth) for mine, truth in zip(rows.T, truths.T, strict=True))


def _least_wanted(heads: Sequence[Head], scores: FloatArray) -> tuple[float, ...]:
    """Return for each of K classes the least of the scores (N, K) at which any head wants its score map; else 1."""
    wanted = np.zeros(scores.shape, bool)
    for head in heads:
        for mine, row in zip(wanted, scores, strict=True):
            mine[list(head.wanted(row))] = True
    return tuple(np.where(wanted, scores, 1.0).min(axis=0).tolist())


def _ious(
    heads: Sequence[Sequence[Head]], prediction: Prediction, sample: Sample, truth: BoolArray
) -> npt.NDArray[np.float64]:
    """Return the mean IOU over classes as each head decides, row by row; NaN where truth and masks are blank.

    Args:
        heads: They differ in nothing but thresholds; those of a row decide presence alike.
        prediction: With the score maps that any of them wants.
        sample: Of which it is.
        truth: The sample's masks.
    """
    score_map = prediction.score_map
    assert score_map is not None
    values: list[float] = []
    for row in heads:
        # A head that wants no score map cuts none: one threshold of masks is as good as another.
        differing = row if row[0].wanted(prediction.scores) else row[:1]
        decided = (head.decide(score_map, prediction.scores, sample.image) for head in differing)
        found = [_iou(truth, masks_of(each), sample.ignore) for each in decided]
        values += found if len(found) == len(row) else found * len(row)
    return np.array(values)


def _iou(truth: BoolArray, predicted: BoolArray | None, ignore: BoolArray | None) -> float:
    """Return the mean IOU over classes; NaN where none is in truth or prediction."""
    if predicted is None:
        return np.nan
    values = overlap(truth, predicted, ignore)["iou"]
    return np.nan if np.isnan(values).all() else float(np.nanmean(values, dtype=np.float64))
