"""Do dense and exact sweeps of real images agree?

They differ in the network's input beyond a window's edge: the rest of the image, or padding. A small classifier (8 to
64 filters) learns in a minute to distinguish crops with nuclei from empty ones (BBBC038, see the study of nuclei_fluo);
then the largest, partly empty images of held-out fields are swept both ways.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.timing import Record, Settings, Unavailable, record
from micraframe import pipeline, registry
from micraframe.sweep import SweepOptions, sweep_image
from micraframe.types import FitContext, Sample

IMAGES = 12
EMPTY = 0.25
"""Minimum fraction of an image without nuclei: if they are everywhere, there is nothing to find."""

DATA: dict[str, Any] = {
    "name": "nuclei_fluo",
    "images": "$MICRAFRAME_DATA/nuclei_fluo/images",
    "masks": "$MICRAFRAME_DATA/nuclei_fluo/masks",
    "mask_kind": "instances",
    "classes": ("nucleus",),
    "index": "$MICRAFRAME_DATA/nuclei_fluo/index.csv",
    "group": "field_group",
    "normalisation": {"kind": "percentile", "low": 0.5, "high": 99.5},
}
CROPS: dict[str, Any] = {"crop": 64, "share": 0.02, "max_crops_per_image": 6}
PARAMS: dict[str, Any] = {
    "backbone": {"name": "unet-encoder", "params": {"widths": [8, 16, 32, 64], "norm": "narrow"}},
    "dropout": 0.0,
    "training": {
        "epochs": 8,
        "batch_size": 32,
        "optimiser": "adamw",
        "learning_rate": 5e-3,
        "schedule": "one-cycle",
        "early_stopping": None,
    },
}


def records(settings: Settings) -> list[Record]:
    """Return the agreement of dense and exact sweeps of held-out images, one value per image.

    Raises:
        Unavailable: If the images do not exist.
    """
    folder = os.environ.get("MICRAFRAME_DATA")
    if not folder or not (Path(folder) / "nuclei_fluo").is_dir():
        raise Unavailable(f"expected MICRAFRAME_DATA to name a folder with nuclei_fluo, got {folder!r}")
    crops = registry.build("dataset", "folder", **DATA, **CROPS)
    training = PARAMS["training"] | ({"epochs": 1} if settings.quick else {})
    method = {"name": "micra-net", "params": PARAMS | {"training": training}}
    context = FitContext(device=settings.device)
    trained = pipeline.fit(method, crops.samples("train"), crops.samples("valid"), crops.info(), context)

    # The same images in the same splits, but whole.
    whole = registry.build("dataset", "folder", **DATA).samples("test")
    sizes = {sample.source: sample.image.size for sample in whole if emptiness(sample, CROPS["crop"]) >= EMPTY}
    largest = sorted(sizes, key=lambda source: (-sizes[source], source))[: 1 if settings.quick else IMAGES]
    found = []
    for source in largest:
        with tempfile.TemporaryDirectory() as output:
            report = sweep_image(trained, Path(source), Path(output), SweepOptions(mode="both"))
        assert report.agreement is not None
        found.append(report.agreement)
    either = [one.windows_above_dense + one.windows_above_exact - one.windows_above for one in found]
    counts = [(one.proposals_dense, one.proposals_exact) for one in found]
    numbers = ", ".join(f"{dense} and {exact}" for dense, exact in counts)
    return [
        record(
            "agreement: windows' probabilities",
            f"dense and exact, each of {len(found)} images",
            [one.correlation for one in found if one.correlation is not None],
            "correlation",
        ),
        record(
            "agreement: difference of probabilities",
            "absolute difference of dense and exact, mean over the windows, each image",
            [one.mean_difference for one in found],
            "share",
        ),
        record(
            "agreement: windows above 0.5 in common",
            "in both sweeps / in either, each image",
            [one.windows_above / of if of else 1.0 for one, of in zip(found, either, strict=True)],
            "share",
        ),
        record(
            "agreement: proposals in common",
            f"pairs within half a window / mean number of proposals, each image: {numbers}",
            [2 * one.proposals_in_common / sum(of) if any(of) else 1.0 for one, of in zip(found, counts, strict=True)],
            "share",
        ),
    ]


def emptiness(sample: Sample, side: int) -> float:
    """Return the fraction of the squares of that side, in pixels, in which nothing is annotated."""
    assert sample.masks is not None
    masks = sample.masks.any(0)
    rows, columns = (np.arange(0, length, side) for length in masks.shape)
    return 1 - float(np.logical_or.reduceat(np.logical_or.reduceat(masks, rows, 0), columns, 1).mean())
