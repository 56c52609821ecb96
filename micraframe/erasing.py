"""Erasing: what must be taken out of an image so that a class is no longer found in it.

It needs image-level labels alone, and says where a map should be cut: too small a mask leaves the class in the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import expit

from micraframe.interfaces import ClassRule, Score
from micraframe.types import BoolArray, FloatArray, Sample, Scores

LEVELS: Final = tuple(float(value) for value in expit(np.arange(-4, 4.25, 0.5)))
"""The candidates of `erasing_threshold`: equal steps in logits."""


def erasing_threshold(
    score: Score, samples: Sequence[Sample], scores: Sequence[Scores], dilation: int = 1, slack: float = 0.1
) -> float | None:
    """Return the highest mask threshold at which a mask, when erased, takes the class with it; None if it is unknown.

    What lies above a threshold t is filled from an image without the class, and r(t) is the mean probability of
    presence that remains. If t is too high, parts of the structure remain and r is high; below the right one, r hardly
    falls further, as there is nothing left to erase. With the candidates `LEVELS`,

        threshold = max {t: r(t) <= min r + slack (max r - min r)}

    Args:
        score: `score` of a trained model or pipeline.
        samples: Their labels are used; those without labels do not count. At most 32 with a class are looked at.
        scores: Scores of the samples, in their order; those without the map of a class are scored again if looked at.
        dilation: Pixels by which a mask is dilated before it is erased, as a square.
        slack: Share of the range of r, in [0, 1], that counts as no difference.
    """
    remaining: list[npt.NDArray[np.float64]] = []
    labels = [sample.labels for sample in samples]
    for index in range(len(scores[0].presence) if scores else 0):
        sides: dict[bool, list[int]] = {True: [], False: []}
        for number, known in enumerate(labels):
            if known is not None:
                sides[bool(known[index])].append(number)
        for present, numbers in sides.items():
            # Images that are recognised, where there are any: only they can lose the class.
            sides[present] = [n for n in numbers if (scores[n].presence[index] >= 0.5) == present] or numbers
        if not all(sides.values()):
            continue
        random = np.random.default_rng((0, index))
        positives = random.permutation(sides[True])[:32].tolist()
        donors = random.choice(sides[False], len(positives)).tolist()
        sums = np.zeros(len(LEVELS))
        for positive, donor in zip(positives, donors, strict=True):
            image, found = samples[positive].image, scores[positive]
            if index not in found.classes:
                found = next(iter(score([image], _only(index))))
            plane = found.maps[found.row(index)]
            other = repeated(samples[donor].image, plane.shape)
            erased = [erase(image, other, plane > level, dilation) for level in LEVELS]
            sums += [left.presence[index] for left in score(erased, lambda presence: ())]
        remaining.append(sums / len(positives))
    if not remaining:
        return None
    mean = np.mean(remaining, axis=0)
    return LEVELS[int(np.flatnonzero(mean <= mean.min() + slack * np.ptp(mean))[-1])]


def _only(index: int) -> ClassRule:
    return lambda presence: (index,)


def erase(image: FloatArray, donor: FloatArray, mask: BoolArray, dilation: int) -> FloatArray:
    """Return an image with a mask, dilated by a square, filled from another image: see `paste`.

    Args:
        image: float32 (C, H, W).
        donor: float32 (C, H, W).
        mask: bool (H, W).
        dilation: Pixels by which the mask is dilated.
    """
    square = np.ones((2 * dilation + 1, 2 * dilation + 1), np.uint8)
    return paste(image, donor, cv2.dilate(mask.astype(np.uint8), square) > 0)


def paste(image: FloatArray, other: FloatArray, mask: BoolArray) -> FloatArray:
    """Return an image that shows another one within a mask, float32 (C, H, W).

    The other one is shifted channel by channel so that both have the same mean outside the mask.

    Args:
        image: float32 (C, H, W).
        other: float32 (C, H, W).
        mask: bool (H, W).
    """
    if mask.all():
        return other
    shift = (image[:, ~mask].mean(1, np.float64) - other[:, ~mask].mean(1, np.float64)).astype(np.float32)
    return np.where(mask, other + shift[:, None, None], image)


def repeated(image: FloatArray, size: tuple[int, ...]) -> FloatArray:
    """Return an image of another size (H, W), cut off or repeated at its lower and right edges, float32 (C, H, W)."""
    rows, columns = (np.arange(wanted) % side for wanted, side in zip(size, image.shape[1:], strict=True))
    return image[:, rows[:, None], columns]
