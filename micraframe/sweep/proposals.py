"""Where to look first: boxes around the peaks of a probability map, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from micraframe.geojson import feature, write_features
from micraframe.metrics.association import match_by_distance
from micraframe.overlay import COLOURS
from micraframe.thresholds import PresenceThreshold
from micraframe.types import FloatArray

PROMINENCE = np.float32(0.05)
"""A block is a peak if no block within half a window exceeds it by more than this. Without this rule, the flanks of a
structure become proposals too: on a dense section of axons 49 % of all proposals were correct rather than 66 %, and on
blood smears 71 % rather than 76 %."""


@dataclass(frozen=True)
class Proposal:
    """A place to look at.

    Attributes:
        rank: 1 is the best of all classes.
        class_: Name of the class.
        x: Left edge in pixels.
        y: Upper edge in pixels.
        width: Width in pixels.
        height: Height in pixels.
        score: Mean of the probability map there, in [0, 1].
    """

    rank: int
    class_: str
    x: int
    y: int
    width: int
    height: int
    score: float


def propose(
    probability: FloatArray,
    classes: Sequence[str],
    block: int,
    size: tuple[int, int],
    window: tuple[int, int],
    threshold: PresenceThreshold = 0.5,
) -> list[Proposal]:
    """Return boxes around the likeliest places, the best first.

    Every block at or above the threshold that is a peak (see `PROMINENCE`) is a candidate: its box is as large as a
    window, rounded up to whole blocks, and is moved into the image where it would leave it. Candidates are taken by
    falling mean of the map in their box, unless their box overlaps one of the same class that was taken before
    (non-maximum suppression). The mean, unlike the maximum, does not saturate: it is highest where the structure fills
    the box or is in its middle. Boxes that follow the outline of the map instead grow with it: of a dense section of
    axons, the first ten covered 49 % with 3 of 10 correct, and ten windows cover 7 % with 10 of 10 correct.

    Args:
        probability: float32 (K, block rows, block columns), in [0, 1].
        classes: Names of the K classes.
        block: Side of a block in pixels.
        size: (H, W) of the image.
        window: (height, width) of a window in pixels.
        threshold: Threshold of the probability; one, or one per class.
    """
    limits: list[float] = np.broadcast_to(threshold, len(classes)).tolist()
    found: list[tuple[float, str, tuple[int, int, int, int]]] = []
    height, width = (min(-(-side // block), cells) for side, cells in zip(window, probability.shape[1:], strict=True))
    for name, plane, limit in zip(classes, probability, limits, strict=True):
        means = _means(plane, height, width)
        around = ndimage.maximum_filter(plane, (height // 2 * 2 + 1, width // 2 * 2 + 1), mode="nearest")
        rows, columns = np.nonzero((plane >= np.float32(limit)) & (plane >= around - PROMINENCE))
        tops, lefts = (
            np.clip(middle - side // 2, 0, most - 1)
            for middle, side, most in zip((rows, columns), (height, width), means.shape, strict=True)
        )
        # Of boxes with the same mean, the one whose middle has the higher value goes first.
        order = np.lexsort((-plane[rows, columns], -means[tops, lefts]))
        free = np.ones(means.shape, bool)
        for top, left in zip(tops[order].tolist(), lefts[order].tolist(), strict=True):
            if free[top, left]:
                free[max(0, top - height + 1) : top + height, max(0, left - width + 1) : left + width] = False
                edges = np.minimum(np.array([top, left, top + height, left + width]) * block, [*size, *size])
                found.append((float(means[top, left]), name, tuple(edges.tolist())))
    found.sort(key=lambda one: (-one[0], one[1:]))
    return [
        Proposal(rank, name, left, top, right - left, bottom - top, score)
        for rank, (score, name, (top, left, bottom, right)) in enumerate(found, start=1)
    ]


def _means(plane: FloatArray, height: int, width: int) -> FloatArray:
    """Return the mean of every box of that size in a plane, by its first row and column."""
    sums = np.pad(plane.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inner = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    return np.asarray(inner / (height * width), np.float32)


def in_common(one: Sequence[Proposal], other: Sequence[Proposal], distance: float) -> int:
    """Return how many proposals of two lists can be paired, class by class, with centres at most `distance` apart."""
    pairs = 0
    for name in {proposal.class_ for proposal in one}:
        first, second = (
            np.array([(p.y + p.height / 2, p.x + p.width / 2) for p in proposals if p.class_ == name]).reshape(-1, 2)
            for proposals in (one, other)
        )
        pairs += len(match_by_distance(first, second, distance))
    return pairs


def write_geojson(path: Path, proposals: Sequence[Proposal], classes: Sequence[str]) -> None:
    """Write the proposals as GeoJSON, which QuPath opens as annotations."""
    features = []
    for one in proposals:
        left, top, right, bottom = one.x, one.y, one.x + one.width, one.y + one.height
        ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        class_ = (classes.index(one.class_), one.class_)
        numbers = {"rank": one.rank, "score": one.score}
        features.append(feature([[ring]], f"{one.class_} {one.rank}", class_, numbers, "annotation"))
    write_features(path, features)


def colour(index: int) -> tuple[int, int, int]:
    """Return the colour of a class: red, green, blue, 0 to 255."""
    return COLOURS[index % len(COLOURS)]
