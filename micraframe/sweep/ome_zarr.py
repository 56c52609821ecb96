"""Writing a map as OME-Zarr, the format that image viewers read piece by piece (OME-NGFF 0.5 on Zarr 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from micraframe.files import atomic_folder
from micraframe.sweep.proposals import colour
from micraframe.types import FloatArray

VERSION = "0.5"
CHUNK = 256


def write_map(path: Path, planes: FloatArray, classes: Sequence[str], block: int) -> None:
    """Write the map and a pyramid of ever coarser ones, each pixel the mean of four, as one OME-Zarr image.

    Laid over the image, which has one unit per pixel, it fits by its scale and translation.

    Args:
        path: The folder to write; the one that is there is replaced.
        planes: float32 (K, h, w), in [0, 1].
        classes: Names of the K classes.
        block: Pixels of the image per pixel of the map.
    """
    with atomic_folder(path) as temporary:
        group = zarr.create_group(temporary, zarr_format=3, overwrite=True)
        datasets: list[Any] = []
        level = 0
        while True:
            array = group.create_array(
                str(level),
                shape=planes.shape,
                chunks=(1, min(CHUNK, planes.shape[1]), min(CHUNK, planes.shape[2])),
                dtype="float32",
                dimension_names=("c", "y", "x"),
            )
            array[:] = planes
            pixel = float(block * 2**level)
            # NGFF's positions are those of pixels' middles; the image's first is at 0.
            middle = (pixel - 1) / 2
            datasets.append(
                {
                    "path": str(level),
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [1.0, pixel, pixel]},
                        {"type": "translation", "translation": [0.0, middle, middle]},
                    ],
                }
            )
            if max(planes.shape[1:]) <= CHUNK:
                break
            planes = _halved(planes)
            level += 1
        group.attrs["ome"] = {
            "version": VERSION,
            "multiscales": [
                {
                    "name": path.name.partition(".")[0],
                    "axes": [
                        {"name": "c", "type": "channel"},
                        {"name": "y", "type": "space"},
                        {"name": "x", "type": "space"},
                    ],
                    "datasets": datasets,
                    "type": "mean",
                }
            ],
            "omero": {
                "channels": [
                    {
                        "label": name,
                        "color": "{:02X}{:02X}{:02X}".format(*colour(index)),
                        "active": True,
                        "window": {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0},
                    }
                    for index, name in enumerate(classes)
                ]
            },
        }


def _halved(planes: FloatArray) -> FloatArray:
    """Return the means of 2 x 2 pixels; a last row or column without a partner is paired with itself."""
    padded = np.pad(planes, ((0, 0), (0, planes.shape[1] % 2), (0, planes.shape[2] % 2)), mode="edge")
    classes, height, width = padded.shape
    halved: FloatArray = padded.reshape(classes, height // 2, 2, width // 2, 2).mean((2, 4), dtype=np.float32)
    return halved
