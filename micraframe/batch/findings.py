"""The tables and outlines of a prediction: what was found in an image, in the image's own pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from micraframe import geojson
from micraframe.metrics.masks_and_labels import instances_of
from micraframe.objects import windows
from micraframe.types import Prediction


@dataclass(frozen=True)
class Finding:
    """The first columns of every table.

    Attributes:
        image: The image's file name.
        class_: The class.
    """

    image: str
    class_: str


@dataclass(frozen=True)
class ClassFinding(Finding):
    """A row of the table of predictions.

    Attributes:
        presence: Probability that the class is in the image, in [0, 1].
        present: Whether it was judged to be in the image: 1 or 0.
        area: Pixels of its mask; NaN where the head makes no masks.
        objects: Number of its instances or, without instances, of its mask's connected components (8-connected); NaN
            without masks.
        status: ok, empty, constant, negative or absent.
    """

    presence: float
    present: int
    area: float
    objects: float
    status: str


@dataclass(frozen=True)
class ObjectFinding(Finding):
    """A row of the table of objects.

    Attributes:
        id: The object's number in the label image of its class.
        area: In pixels.
        y: Row of its centroid, in pixels.
        x: Column of its centroid, in pixels.
        score: Mean of the class's score map in the object, in [0, 1]; NaN without a map.
        pixel_size_um: Edge of a pixel in micrometres; NaN where unknown.
    """

    id: int
    area: int
    y: float
    x: float
    score: float
    pixel_size_um: float


@dataclass(frozen=True)
class PointFinding(Finding):
    """A row of the table of points.

    Attributes:
        y: Row, in pixels.
        x: Column, in pixels.
        score: Confidence; higher is more certain.
    """

    y: float
    x: float
    score: float


@dataclass(frozen=True)
class Findings:
    """What was found in an image.

    Attributes:
        classes: A row for each class.
        objects: A row for each object; None without masks.
        points: A row for each point; None without points.
        outlines: GeoJSON features, one for each object.
    """

    classes: tuple[ClassFinding, ...]
    objects: tuple[ObjectFinding, ...] | None
    points: tuple[PointFinding, ...] | None
    outlines: tuple[dict[str, Any], ...]


def findings(
    image: str,
    prediction: Prediction,
    classes: Sequence[str],
    pixel_size_um: float | None,
    corner: tuple[int, int] = (0, 0),
) -> Findings:
    """Return what was found in an image.

    Args:
        image: The image's file name.
        prediction: In the image's pixels.
        classes: Names of the K classes.
        pixel_size_um: Edge of a pixel in micrometres.
        corner: Row and column, in the image, of the first pixel of the part of it that was predicted.
    """
    labels = instances_of(prediction)
    rows: list[ObjectFinding] = []
    outlines: list[dict[str, Any]] = []
    for index, name in enumerate(classes if labels is not None else ()):
        assert labels is not None
        scores = prediction.scores
        plane = scores.maps[scores.classes.index(index)] if index in scores.classes else None
        for number, window in windows(labels[index]):
            inside = labels[index][window] == number
            y, x = np.nonzero(inside)
            row = ObjectFinding(
                image,
                name,
                number,
                len(y),
                float(y.mean()) + corner[0] + window[0].start,
                float(x.mean()) + corner[1] + window[1].start,
                math.nan if plane is None else float(plane[window][inside].mean(dtype=np.float64)),
                math.nan if pixel_size_um is None else pixel_size_um,
            )
            rows.append(row)
            measurements = {
                "id": row.id,
                "area (px)": row.area,
                "area (um^2)": row.area * row.pixel_size_um**2,
                "centroid y (px)": row.y,
                "centroid x (px)": row.x,
                "score": row.score,
            }
            polygons = geojson.outlines(inside, (corner[0] + window[0].start, corner[1] + window[1].start))
            outlines.append(geojson.feature(polygons, f"{name} {number}", (index, name), measurements))
    points = None
    if prediction.points is not None:
        points = tuple(
            PointFinding(image, name, float(y) + corner[0], float(x) + corner[1], float(score))
            for name, found in zip(classes, prediction.points, strict=True)
            for y, x, score in found.astype(np.float64)
        )
    return Findings(
        tuple(
            ClassFinding(
                image,
                name,
                float(prediction.scores.presence[index]),
                int(prediction.present[index]),
                math.nan if prediction.masks is None else int(prediction.masks[index].sum()),
                math.nan if labels is None else sum(one.class_ == name for one in rows),
                prediction.status[index] if prediction.status else "",
            )
            for index, name in enumerate(classes)
        ),
        None if labels is None else tuple(rows),
        points,
        tuple(outlines),
    )
