"""Outlines of masks as polygons, and GeoJSON files that QuPath opens (File > Import objects).

Coordinates are (x, y) in pixels of the image, with (0, 0) the upper left *corner* of the first pixel, as in QuPath.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from micraframe.overlay import COLOURS
from micraframe.runtime.files import atomic
from micraframe.types import BoolArray

Ring = list[tuple[int, int]]
"""The corners (x, y) of a closed line; the first is repeated at the end."""

Polygon = list[Ring]
"""An outer ring, and the rings of its holes."""


def outlines(mask: BoolArray, corner: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Return the polygons that cover exactly the pixels of a mask.

    There is one for each component that is connected over edges. Rings are simple: where a mask touches itself at a
    corner, two rings touch there. Outer rings have a positive area by the shoelace formula, holes a negative one.

    Args:
        mask: bool (H, W), perhaps a window of an image.
        corner: Row and column of the image at which the window begins.
    """
    rings = [ring for loop in _loops(mask, corner) for ring in _simple(loop)]
    outer = [ring for ring in rings if _area(ring) > 0]
    if len(outer) <= 1:
        return [[*outer, *(ring for ring in rings if _area(ring) < 0)]] if rings else []
    labels, _ = ndimage.label(mask)
    return [
        polygon
        for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1)
        for polygon in outlines(labels[rows, columns] == label, (corner[0] + rows.start, corner[1] + columns.start))
    ]


def feature(
    polygons: Sequence[Polygon],
    name: str,
    class_: tuple[int, str],
    measurements: Mapping[str, float],
    object_type: Literal["annotation", "detection"] = "detection",
) -> dict[str, Any]:
    """Return an object of QuPath as a GeoJSON feature.

    Args:
        polygons: Its outline; several make it a multi-polygon.
        name: Its name in QuPath.
        class_: Index of its class, which determines the colour, and the class's name.
        measurements: Its numbers; undefined ones (NaN) are left out.
        object_type: What QuPath is to make of it.
    """
    index, class_name = class_
    whole = len(polygons) == 1
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{class_name} {polygons[0][0] if whole else polygons}")),
        "geometry": {
            "type": "Polygon" if whole else "MultiPolygon",
            "coordinates": polygons[0] if whole else list(polygons),
        },
        "properties": {
            "objectType": object_type,
            "name": name,
            "classification": {"name": class_name, "color": list(COLOURS[index % len(COLOURS)])},
            "measurements": {key: value for key, value in measurements.items() if np.isfinite(value)},
        },
    }


def write_features(path: Path, features: Iterable[Mapping[str, Any]]) -> None:
    """Write a GeoJSON file, one feature on each line."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        for number, one in enumerate(features):
            stream.write(",\n" if number else "\n")
            stream.write(json.dumps(one, sort_keys=True, allow_nan=False, ensure_ascii=False))
        stream.write("\n]}\n")


def _loops(mask: BoolArray, corner: tuple[int, int]) -> Iterator[list[tuple[int, int]]]:
    """Yield the corners (x, y) of each closed line between mask and background, the mask on its right-hand side.

    At a corner where two pixels of the mask touch, a line stays with its own pixel, so that it may meet itself there.
    """
    padded = np.pad(mask, 1)
    inside, above, below = padded[1:-1], padded[:-2], padded[2:]
    left, right = padded[:, :-2], padded[:, 2:]
    height, width = mask.shape
    # Per corner, a bit for each direction in which a line leaves it.
    leaving = np.zeros((height + 1, width + 1), np.uint8)
    leaving[:-1, :-1] |= (inside & ~above)[:, 1:-1] * np.uint8(1)
    leaving[:-1, 1:] |= (padded[:, 1:-1] & ~right)[1:-1] * np.uint8(2)
    leaving[1:, 1:] |= (inside & ~below)[:, 1:-1] * np.uint8(4)
    leaving[1:, :-1] |= (padded[:, 1:-1] & ~left)[1:-1] * np.uint8(8)
    bits, row = bytearray(leaving.tobytes()), width + 1
    strides = (1, row, -1, -row)
    # Every line has a corner at which it turns to the right and goes on to the right: at the start of a row of pixels.
    for first in np.flatnonzero(leaving & 1).tolist():
        if not bits[first] & 1:
            continue
        position, direction, corners = first, 0, []
        while bits[position] & (1 << direction):
            bits[position] ^= 1 << direction
            position += strides[direction]
            for turn in (1, 0, 3):  # right, straight on, left
                following = (direction + turn) % 4
                if bits[position] & (1 << following):
                    break
            else:
                following = 0  # the line is closed: its first step went to the right
            if following != direction:
                corners.append((corner[1] + position % row, corner[0] + position // row))
                direction = following
        yield corners


def _simple(corners: list[tuple[int, int]]) -> Iterator[Ring]:
    """Divide a closed line where it meets itself, into rings."""
    path: list[tuple[int, int]] = []
    places: dict[tuple[int, int], int] = {}
    for point in corners:
        if point in places:
            start = places[point]
            yield [*path[start:], point]
            for passed in path[start + 1 :]:
                del places[passed]
            del path[start + 1 :]
        else:
            places[point] = len(path)
            path.append(point)
    yield [*path, path[0]]


def _area(ring: Ring) -> float:
    x, y = np.array(ring, np.int64).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
