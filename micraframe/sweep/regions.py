"""What a whole pipeline finds within the proposals of a sweep: masks, objects and their outlines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from micraframe.batch.findings import Finding, findings
from micraframe.geojson import write_features
from micraframe.images import write_tiff
from micraframe.metrics.masks_and_labels import instances_of
from micraframe.objects import centroids
from micraframe.pipeline import Pipeline
from micraframe.runtime.files import atomic_folder
from micraframe.runtime.tables import write_csv
from micraframe.sweep.image import LargeImage
from micraframe.sweep.proposals import Proposal
from micraframe.sweep.tiles import forget_files
from micraframe.types import FloatArray, Normalisation, Prediction, Progress

MASKS: Final = "proposal-masks"
OBJECTS: Final = "objects.csv"
OUTLINES: Final = "objects.geojson"

_MASK = re.compile(r"\d+\.tif")


@dataclass(frozen=True)
class RegionObject(Finding):
    """An object that was found in a proposal; positions are in pixels of the whole image.

    Attributes:
        rank: The proposal's.
        id: The object's number within the proposal.
        area: In pixels.
        y: Row of its centroid.
        x: Column of its centroid.
        score: Mean of the class's score map in the object, in [0, 1]; NaN without a map.
    """

    rank: int
    id: int
    area: int
    y: float
    x: float
    score: float


def write_regions(
    pipeline: Pipeline,
    image: LargeImage,
    normalisation: Normalisation,
    proposals: Sequence[Proposal],
    output: Path,
    progress: Progress,
) -> int:
    """Predict every proposal, and write what it shows of its class; return the number of objects.

    The network sees half a proposal more on each side. An object belongs to the proposal that contains its centroid.
    Writes `proposal-masks/RANK.tif`, the mask within the proposal, 0 and 255; `objects.csv`; and `objects.geojson`.
    """
    rows: list[RegionObject] = []
    outlines: list[dict[str, Any]] = []
    with atomic_folder(output / MASKS) as folder:
        for done, one in enumerate(proposals, start=1):
            top, left = max(0, one.y - one.height // 2), max(0, one.x - one.width // 2)
            bottom = min(image.height, one.y + one.height + one.height // 2)
            right = min(image.width, one.x + one.width + one.width // 2)
            part: FloatArray = normalisation.apply(image.read(top, bottom, left, right))
            (prediction,) = pipeline.predict([part])
            index = pipeline.info.classes.index(one.class_)
            place = (slice(one.y - top, one.y - top + one.height), slice(one.x - left, one.x - left + one.width))
            kept = _kept(prediction, index, place)
            found = findings(image.name, kept, pipeline.info.classes, None, (top, left))
            rows += (
                RegionObject(each.image, each.class_, one.rank, each.id, each.area, each.y, each.x, each.score)
                for each in found.objects or ()
            )
            outlines += found.outlines
            assert kept.masks is not None
            write_tiff(folder / f"{one.rank:04}.tif", kept.masks[index][place][None], (one.class_,))
            progress.advance("masks", done, len(proposals))
    write_csv(output / OBJECTS, rows, RegionObject)
    write_features(output / OUTLINES, outlines)
    return len(rows)


def forget_regions(output: Path) -> None:
    """Remove what `write_regions` wrote for an earlier sweep, and nothing else."""
    for name in (OBJECTS, OUTLINES):
        (output / name).unlink(missing_ok=True)
    if (output / MASKS).is_dir():
        forget_files(output / MASKS, _MASK)


def _kept(prediction: Prediction, index: int, place: tuple[slice, slice]) -> Prediction:
    """Return the prediction with those objects of one class whose centroid lies in a place, and nothing else."""
    labels = instances_of(prediction)
    assert labels is not None
    inside = np.array([[place[axis].start - 0.5, place[axis].stop - 0.5] for axis in (0, 1)])
    numbers = np.unique(labels[index][labels[index] > 0])
    (middles,) = centroids(labels[index : index + 1])
    kept = numbers[((middles >= inside[:, 0]) & (middles < inside[:, 1])).all(axis=1)]
    instances = np.zeros_like(labels)
    instances[index] = np.where(np.isin(labels[index], kept), labels[index], 0)
    return dataclasses.replace(prediction, instances=instances, masks=instances > 0, points=None)
