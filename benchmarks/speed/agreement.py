"""Do dense and exact sweeps of real images agree?

They differ in what the network sees beyond a window's edge: the image there, or padding. A small classifier (8 to 64
filters) learns in a minute to tell crops with nuclei from empty ones (BBBC038, see the study of nuclei_fluo); then the
largest images of fields that it never saw, in part empty, are swept both ways.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.timing import Record, Settings, Unavailable, record
from micraframe import registry
from micraframe.micranet import MicraNet
from micraframe.sweep import Options, sweep_image
from micraframe.types import Run, Sample

IMAGES = 12
EMPTY = 0.25
"""Share of an image without nuclei, at least: where they are everywhere, there is nothing to find."""

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
    "backbone": {"name": "unet-encoder", "params": {"widths": [8, 16, 32, 64]}},
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
    """Return how alike dense and exact sweeps of held-out images are, one value for each image.

    Raises:
        Unavailable: If the images are not there.
    """
    folder = os.environ.get("MICRAFRAME_DATA")
    if not folder or not (Path(folder) / "nuclei_fluo").is_dir():
        raise Unavailable(f"the images are not there: MICRAFRAME_DATA is {folder!r}, wanted a folder with nuclei_fluo")
    crops = registry.build("dataset", "folder", **DATA, **CROPS)
    training = PARAMS["training"] | ({"epochs": 1} if settings.quick else {})
    method = MicraNet(MicraNet.Params.model_validate(PARAMS | {"training": training}))
    run = Run(device=settings.device)
    fitted = method.fit(crops.samples("train"), crops.samples("valid"), crops.info(), run)
    fitted.classifier.to(settings.device)

    # The same images in the same splits, but whole.
    whole = registry.build("dataset", "folder", **DATA).samples("test")
    sizes = {sample.source: sample.image.size for sample in whole if emptiness(sample, CROPS["crop"]) >= EMPTY}
    largest = sorted(sizes, key=lambda source: (-sizes[source], source))[: 1 if settings.quick else IMAGES]
    found = []
    for source in largest:
        with tempfile.TemporaryDirectory() as output:
            report = sweep_image(fitted, Path(source), Path(output), Options(mode="both"))
        assert report.agreement is not None
        found.append(report.agreement)
    either = [one.windows_above_dense + one.windows_above_exact - one.windows_above for one in found]
    counts = [(one.proposals_dense, one.proposals_exact) for one in found]
    told = ", ".join(f"{dense} and {exact}" for dense, exact in counts)
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
            f"pairs within half a window / mean number of proposals, each image: {told}",
            [2 * one.proposals_in_common / sum(of) if any(of) else 1.0 for one, of in zip(found, counts, strict=True)],
            "share",
        ),
    ]


def emptiness(sample: Sample, side: int) -> float:
    """Return the share of the squares of that side, in pixels, in which nothing is annotated."""
    assert sample.masks is not None
    masks = sample.masks.any(0)
    rows, columns = (np.arange(0, length, side) for length in masks.shape)
    return 1 - float(np.logical_or.reduceat(np.logical_or.reduceat(masks, rows, 0), columns, 1).mean())
