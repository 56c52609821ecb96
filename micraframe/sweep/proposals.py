"""Where to look first: the peaks of a probability map, ranked."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from micraframe.files import atomic, write_json
from micraframe.overlay import COLOURS
from micraframe.types import FloatArray

PROMINENCE = 0.05
"""A peak is one of its own if the probability falls by this much before it rises to a higher one."""


@dataclass(frozen=True)
class Proposal:
    """A place to look at.

    Attributes:
        rank: 1 is the best of all classes.
        class_: Name of the class.
        x: Left edge in pixels.
        y: Upper edge in pixels.
        width: In pixels.
        height: In pixels.
        score: The greatest value of the probability map there, in [0, 1].
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
    threshold: float = 0.5,
    overlap: float = 0.5,
) -> list[Proposal]:
    """Return boxes around the peaks of a probability map, the highest first.

    Each connected region at or above the threshold is divided among its peaks by a watershed. Of boxes of one class
    that overlap much, the one with the higher score is kept (non-maximum suppression).

    Args:
        probability: float32 (K, blocks down, blocks across), in [0, 1].
        classes: Names of the K classes.
        block: Side of a block in pixels.
        size: (H, W) of the image.
        threshold: On the probability.
        overlap: Intersection over union above which two boxes are one proposal.
    """
    found: list[tuple[float, str, tuple[int, int, int, int]]] = []
    for name, plane in zip(classes, probability, strict=True):
        regions = basins(plane, threshold)
        numbers = range(1, int(regions.max()) + 1)
        scores = np.asarray(ndimage.maximum(plane, regions, numbers))
        boxes = np.array(
            [[rows.start, columns.start, rows.stop, columns.stop] for rows, columns in ndimage.find_objects(regions)]
        ).reshape(-1, 4)
        boxes = np.minimum(boxes * block, [*size, *size])
        found += [(float(scores[i]), name, tuple(boxes[i].tolist())) for i in suppress(boxes, scores, overlap)]
    found.sort(key=lambda one: (-one[0], one[1:]))
    return [
        Proposal(rank, name, left, top, right - left, bottom - top, score)
        for rank, (score, name, (top, left, bottom, right)) in enumerate(found, start=1)
    ]


def basins(plane: FloatArray, threshold: float) -> npt.NDArray[np.int32]:
    """Return the regions, numbered from 1, that belong to the peaks of (h, w) at or above the threshold."""
    above = plane >= threshold
    if not above.any():
        return np.zeros(plane.shape, np.int32)
    # The ground lies that much lower, all around, that a region without any rise has a peak too.
    low = threshold - 2 * PROMINENCE
    ground = np.pad(np.where(above, plane, low).astype(np.float64), 1, constant_values=low)
    levelled = reconstruction(ground - PROMINENCE, ground)  # type: ignore[no-untyped-call]
    summits = local_maxima(levelled, connectivity=2)  # type: ignore[no-untyped-call]
    tops = ndimage.label(summits, np.ones((3, 3)))[0]
    flooded = watershed(-ground, tops, connectivity=2, mask=np.pad(above, 1))  # type: ignore[no-untyped-call]
    regions: npt.NDArray[np.int32] = flooded[1:-1, 1:-1].astype(np.int32)
    return regions


def suppress(boxes: npt.NDArray[Any], scores: npt.NDArray[Any], overlap: float) -> list[int]:
    """Return the indices of the boxes to keep, best first: greedy non-maximum suppression.

    Args:
        boxes: (N, 4): y0, x0, y1, x1, the end not included.
        scores: (N,).
        overlap: A box goes if its intersection over union with a better one is greater.
    """
    kept: list[int] = []
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for index in np.argsort(-scores, kind="stable").tolist():
        low = np.maximum(boxes[kept, :2], boxes[index, :2])
        high = np.minimum(boxes[kept, 2:], boxes[index, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        if not (shared > overlap * (areas[kept] + areas[index] - shared)).any():
            kept.append(index)
    return kept


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


def write_table(path: Path, proposals: Sequence[Proposal]) -> None:
    """Write the proposals as CSV."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([field.name.rstrip("_") for field in fields(Proposal)])
        writer.writerows([*astuple(one)[:-1], f"{one.score:.6g}"] for one in proposals)


def write_geojson(path: Path, proposals: Sequence[Proposal], classes: Sequence[str]) -> None:
    """Write the proposals as GeoJSON that QuPath opens as annotations (File > Import objects)."""
    features = []
    for one in proposals:
        left, top, right, bottom = one.x, one.y, one.x + one.width, one.y + one.height
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{one.class_} {ring}")),
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {
                    "objectType": "annotation",
                    "name": f"{one.class_} {one.rank}",
                    "classification": {"name": one.class_, "color": list(colour(classes.index(one.class_)))},
                    "measurements": {"rank": one.rank, "score": one.score},
                },
            }
        )
    write_json(path, {"type": "FeatureCollection", "features": features})


def colour(index: int) -> tuple[int, int, int]:
    """Return the colour of a class: red, green, blue, 0 to 255."""
    return COLOURS[index % len(COLOURS)]
