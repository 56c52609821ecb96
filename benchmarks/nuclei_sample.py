"""Makes the embedded dataset `nuclei-sample` from BBBC038's fluorescence images, `$MICRAFRAME_DATA/nuclei_fluo`.

    MICRAFRAME_DATA=... .venv/bin/python -m benchmarks.nuclei_sample     # writes micraframe/datasets/nuclei

The rule, which looks at no method's result:

1. One image of each field of view is drawn at random, so that no two images show the same field.
2. Images are taken in turn from each size of image, which stands for its source, until there are 60: all of the rare
   sizes, and as many of one common size as of the other.
3. Of each size, a quarter is for testing and 15 % for validation, rounded to whole images; the rest is for training.
4. Of an image larger than 256 x 256, a window of that size is cut at a random place, drawn again while it shows no
   nucleus: every image of the set shows some, and without any, normalisation would stretch noise to full contrast.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from skimage.segmentation import relabel_sequential

from micraframe.datasets.crops import Window
from micraframe.datasets.nuclei_sample import FOLDER
from micraframe.datasets.paths import resolve
from micraframe.images import read_labels, read_planes, write_png
from micraframe.runtime.files import write_text
from micraframe.types import IntArray

COUNT, SIDE, SEED = 60, 256, 0
TEST, VALID = 0.25, 0.15

Cells = dict[str, str]


def choose(rows: Sequence[Cells]) -> list[Cells]:
    """Return the rows of the sample's index, by name, from those of `nuclei_fluo/index.csv`, in any order."""
    rng = np.random.default_rng(SEED)
    fields = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["name"]):
        fields[row["field_group"]].append(row)
    sizes = defaultdict(list)
    for _, images in sorted(fields.items()):
        image = images[rng.integers(len(images))]
        sizes[int(image["height"]), int(image["width"])].append(image)
    drawn = {size: [images[index] for index in rng.permutation(len(images))] for size, images in sorted(sizes.items())}
    turns = sorted((turn, size) for size, images in drawn.items() for turn in range(len(images)))[:COUNT]
    index = []
    for size, images in drawn.items():
        taken = sum(one == size for _, one in turns)
        test, valid = round(TEST * taken), round(VALID * taken)
        splits = ["test"] * test + ["valid"] * valid + ["train"] * (taken - test - valid)
        for image, split in zip(images, splits, strict=False):
            kept = {key: image[key] for key in ("name", "bbbc038_id", "height", "width")}
            index.append({**kept, "group": image["field_group"], "split": split})
    return sorted(index, key=lambda row: row["name"])


def place(labels: IntArray, rng: np.random.Generator) -> Window:
    """Draw a window that shows a nucleus, from the numbered nuclei of an image, (H, W)."""
    while True:
        window = Window(*(int(rng.integers(max(length - SIDE, 0) + 1)) for length in labels.shape), SIDE, SIDE)
        if labels[window.place].any():
            return window


def make(source: Path, target: Path) -> None:
    """Write images, masks and index of the sample, from the folder of all images, to another folder."""
    with (source / "index.csv").open(newline="", encoding="utf-8") as stream:
        index = choose(list(csv.DictReader(stream)))
    rng = np.random.default_rng(SEED)
    for row in index:
        file = f"{row['name']}.png"
        labels, image = read_labels(source / "masks" / file), read_planes(source / "images" / file)[0]
        window = place(labels, rng)
        row |= {"y": str(window.y), "x": str(window.x)}
        labels, _, _ = relabel_sequential(labels[window.place])
        write_png(target / "images" / file, image[window.place])
        write_png(target / "masks" / file, labels.astype(np.uint8 if labels.max() < 256 else np.uint16))
    table = io.StringIO()
    writer = csv.DictWriter(table, index[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(index)
    write_text(target / "index.csv", table.getvalue())


if __name__ == "__main__":
    make(resolve("$MICRAFRAME_DATA/nuclei_fluo"), FOLDER)
