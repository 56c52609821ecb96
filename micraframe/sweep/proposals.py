"""Where to look first: the peaks of a probability map, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed
from torchvision.ops import nms

from micraframe.geojson import feature, write_features
from micraframe.overlay import COLOURS
from micraframe.thresholds import PresenceThreshold
from micraframe.types import FloatArray

PROMINENCE = 0.05
"""Two peaks are separate if the probability falls by this much between them."""


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
        score: Maximum of the probability map there, in [0, 1].
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
    threshold: PresenceThreshold = 0.5,
    nms_iou: float = 0.5,
) -> list[Proposal]:
    """Return boxes around the peaks of a probability map, the highest first.

    A watershed divides each connected region at or above the threshold among its peaks. Of boxes of one class that
    overlap much, the one with the higher score is kept (non-maximum suppression).

    Args:
        probability: float32 (K, block rows, block columns), in [0, 1].
        classes: Names of the K classes.
        block: Side of a block in pixels.
        size: (H, W) of the image.
        threshold: Threshold of the probability; one, or one per class.
        nms_iou: Intersection over union above which two boxes are one proposal.
    """
    limits: list[float] = np.broadcast_to(threshold, len(classes)).tolist()
    found: list[tuple[float, str, tuple[int, int, int, int]]] = []
    for name, plane, limit in zip(classes, probability, limits, strict=True):
        regions = basins(plane, limit)
        scores = np.asarray(ndimage.maximum(plane, regions, range(1, int(regions.max()) + 1)))
        boxes = np.array(
            [[rows.start, columns.start, rows.stop, columns.stop] for rows, columns in ndimage.find_objects(regions)]
        ).reshape(-1, 4)
        boxes = np.minimum(boxes * block, [*size, *size])
        # In float64, which holds the areas of large boxes exactly.
        kept = nms(torch.tensor(boxes, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64), nms_iou)
        found += [(float(scores[i]), name, tuple(boxes[i].tolist())) for i in kept.tolist()]
    found.sort(key=lambda one: (-one[0], one[1:]))
    return [
        Proposal(rank, name, left, top, right - left, bottom - top, score)
        for rank, (score, name, (top, left, bottom, right)) in enumerate(found, start=1)
    ]


def basins(plane: FloatArray, threshold: float) -> npt.NDArray[np.int32]:
    """Return the regions, numbered from 1, of the peaks of a plane (h, w) at or above the threshold."""
    above = plane >= threshold
    if not above.any():
        return np.zeros(plane.shape, np.int32)
    # The ground, and a border around the plane, lie low enough for a flat region to have a peak too.
    low = threshold - 2 * PROMINENCE
    ground = np.pad(np.where(above, plane, low).astype(np.float64), 1, constant_values=low)
    levelled = reconstruction(ground - PROMINENCE, ground)  # type: ignore[no-untyped-call]
    summits = local_maxima(levelled, connectivity=2)  # type: ignore[no-untyped-call]
    tops = ndimage.label(summits, np.ones((3, 3)))[0]
    flooded = watershed(-ground, tops, connectivity=2, mask=np.pad(above, 1))  # type: ignore[no-untyped-call]
    regions: npt.NDArray[np.int32] = flooded[1:-1, 1:-1].astype(np.int32)
    return regions


def in_common(one: Sequence[Proposal], other: Sequence[Proposal], distance: float) -> int:
    """Return how many proposals of two lists can be paired, class by class, with centres at most `distance` apart."""
    pairs = 0
    for name in {proposal.class_ for proposal in one}:
        first, second = (
            np.array([(p.y + p.height / 2, p.x + p.width / 2) for p in proposals if p.class_ == name]).reshape(-1, 2)
            for proposals in (one, other)
        )
        near = np.hypot(*np.moveaxis(first[:, None] - second[None], -1, 0)) <= distance
        pairs += int(near[linear_sum_assignment(near, maximize=True)].sum())
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
