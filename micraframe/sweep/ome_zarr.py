"""Writing a map as OME-Zarr, which image viewers read piece by piece: OME-NGFF 0.4 on Zarr 2, 0.5 on Zarr 3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from micraframe.runtime.files import atomic_folder
from micraframe.sweep.proposals import colour
from micraframe.types import FloatArray

NgffVersion = Literal["0.4", "0.5"]

CHUNK = 256


def write_map(path: Path, planes: FloatArray, classes: Sequence[str], block: int, version: NgffVersion = "0.5") -> None:
    """Write a map and a pyramid of ever coarser ones, each pixel the mean of four, as one OME-Zarr image.

    Its scale and translation place it over the image, whose pixels are one unit wide.

    Args:
        path: Folder to write; an existing one is replaced.
        planes: float32 (K, h, w), in [0, 1].
        classes: Names of the K classes.
        block: Pixels of the image per pixel of the map.
        version: Version of OME-NGFF; some viewers read 0.4 only.
    """
    levels = [planes]
    while max(levels[-1].shape[1:]) > CHUNK:
        levels.append(_halved(levels[-1]))
    v2 = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    layout: dict[str, Any] = v2 if version == "0.4" else {"dimension_names": ("c", "y", "x")}
    with atomic_folder(path) as temporary:
        group = zarr.create_group(temporary, zarr_format=2 if version == "0.4" else 3, overwrite=True)
        for number, level in enumerate(levels):
            chunks = (1, min(CHUNK, level.shape[1]), min(CHUNK, level.shape[2]))
            group.create_array(str(number), data=level, chunks=chunks, **layout)
        multiscale: dict[str, Any] = {
            "name": path.name.partition(".")[0],
            "axes": [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space"} for axis in "yx")],
            "datasets": [
                {"path": str(number), "coordinateTransformations": _placement(float(block * 2**number))}
                for number in range(len(levels))
            ],
            "type": "mean",
        }
        channels: list[Any] = [
            {
                "label": name,
                "color": "{:02X}{:02X}{:02X}".format(*colour(index)),
                "active": True,
                "window": {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0},
            }
            for index, name in enumerate(classes)
        ]
        if version == "0.4":
            group.attrs.update({"multiscales": [{"version": version, **multiscale}], "omero": {"channels": channels}})
        else:
            group.attrs["ome"] = {"version": version, "multiscales": [multiscale], "omero": {"channels": channels}}


def _placement(pixel: float) -> list[dict[str, Any]]:
    """Return the transformations of a level whose pixels are `pixel` pixels of the image wide."""
    # NGFF positions refer to pixel centres; the first pixel of the image is at 0.
    centre = (pixel - 1) / 2
    return [
        {"type": "scale", "scale": [1.0, pixel, pixel]},
        {"type": "translation", "translation": [0.0, centre, centre]},
    ]


def _halved(planes: FloatArray) -> FloatArray:
    """Return the means of 2 x 2 pixels; an odd last row or column is paired with itself."""
    padded = np.pad(planes, ((0, 0), (0, planes.shape[1] % 2), (0, planes.shape[2] % 2)), mode="edge")
    classes, height, width = padded.shape
    halved: FloatArray = padded.reshape(classes, height // 2, 2, width // 2, 2).mean((2, 4), dtype=np.float32)
    return halved
