"""Draws the README's first picture from a run of the demo: one image, outlined by what each annotation teaches.

    micraframe demo --workers 2 --output runs/demo
    .venv/bin/python -m benchmarks.first_screen runs/demo      # writes docs/images/first-screen.png

The image is the whole test image with the most true nuclei, so no method's result chooses it. The masks are those of
the first seed, put together from the image's crops; hours and IoU are means over all seeds and, for the IoU, over all
test crops that contain a nucleus.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.readme import hours, summaries
from micraframe import config, registry
from micraframe.config import Study
from micraframe.overlay import contours, to_rgb
from micraframe.runtime.files import atomic
from micraframe.study import StudyFolder
from micraframe.study.committed import runs_of
from micraframe.study.pictures import panels
from micraframe.types import BoolArray, Sample

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "first-screen.png"
PANELS = {
    ("image-level", "labels, best"): "from labels",
    ("full, 25 images", "U-Net"): "from 25 outlined crops",
    ("full", "U-Net"): "from all outlines",
}
"""Titles, by the annotator and method of the demo."""

_ENLARGED = 2


def most_objects(samples: Sequence[Sample]) -> Sample:
    """Return the sample with the most numbered objects; of several, the first."""
    return max(samples, key=lambda sample: len(outlines(sample)))


def outlines(sample: Sample) -> BoolArray:
    """Return a mask of each numbered object, bool (N, H, W): touching ones keep their own outlines."""
    assert sample.instances is not None
    numbers = np.unique(sample.instances)
    return np.asarray((sample.instances == numbers[numbers > 0, None, None, None]).any(axis=1))


def joined(crops: Mapping[str, BoolArray], name: str, size: tuple[int, int]) -> BoolArray:
    """Return the masks of an image, put together from those of its crops, bool (K, H, W).

    Args:
        crops: Masks, bool (K, h, w), by the crop's id: `NAME@yYxX` for a crop whose upper left pixel is (Y, X).
        name: The image.
        size: Its height and width.
    """
    whole = np.zeros((len(next(iter(crops.values()))), *size), np.bool_)
    for crop, masks in crops.items():
        place = re.fullmatch(rf"{re.escape(name)}@y(\d+)x(\d+)", crop)
        if place:
            y, x = int(place[1]), int(place[2])
            whole[:, y : y + masks.shape[1], x : x + masks.shape[2]] |= masks
    return whole


def draw(run: Path, path: Path) -> None:
    """Draw the picture of a completed demo."""
    study, folder = config.load(run / "study.yaml", Study), StudyFolder(run.absolute())
    (choice,) = study.datasets
    test = registry.build("dataset", choice.name, **choice.params).samples("test")
    whole = registry.build("dataset", choice.name, **{**choice.params, "crop": None, "stride": None}).samples("test")
    image = most_objects(whole)
    size = image.image.shape[1], image.image.shape[2]
    spent = {(annotator, method): value for (_, annotator, method), value in hours(run).items()}
    rows = [row for row in summaries(run) if row["metric"] == "iou_if_present"]
    iou = {(row["annotator"], row["method"]): float(row["mean"]) for row in rows}
    runs = {(each.annotator, each.method): each for each in runs_of(study, folder) if each.seed == study.seeds[0]}

    columns = len(PANELS) + 1
    figure, (axes,) = panels(1, columns, (2.4 * columns, 2.95), dpi=140)
    for axis, (key, title) in zip(axes, PANELS.items(), strict=False):
        crops = {
            sample.id: masks
            for number, sample in enumerate(test)
            if (masks := folder.masks(runs[key], number, sample.image.shape[2])) is not None
        }
        axis.imshow(_drawn(image, joined(crops, image.id, size)))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(f"{spent[key]:.2g} hours, IoU {iou[key]:.2f}", fontsize=10)
    axes[-1].imshow(_drawn(image, outlines(image)))
    axes[-1].set_title("truth", fontsize=10)
    with atomic(path) as temporary:
        # Without matplotlib's version in the file, the same figure gives the same bytes.
        figure.savefig(temporary, metadata={"Software": None})


def _drawn(image: Sample, masks: BoolArray) -> npt.NDArray[np.uint8]:
    """Return the image with outlines over it, uint8 (H, W, 3), enlarged so that these are thin."""
    rgb = _enlarged(to_rgb(image.image).transpose(2, 0, 1)).transpose(1, 2, 0)
    over = contours(_enlarged(masks), None)
    opacity = over[..., 3:] / 255
    return np.round(rgb * (1 - opacity) + over[..., :3] * opacity).astype(np.uint8)


def _enlarged(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.repeat(_ENLARGED, axis=1).repeat(_ENLARGED, axis=2)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), PICTURE)
