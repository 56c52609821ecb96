"""Images of discs and squares as files, for tests of commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from micraframe.images import write_png
from micraframe.testing import full_samples


def write_shapes(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write images, their masks in a folder per class, and the table of labels, labels.csv."""
    lines = ["image,disc,square"]
    for sample in full_samples(count, size):
        assert sample.masks is not None
        assert sample.labels is not None
        write_png(folder / "images" / f"{sample.id}.png", (sample.image[0] * 255).astype(np.uint8))
        for class_, mask in zip(("disc", "square"), sample.masks, strict=True):
            write_png(folder / "masks" / class_ / f"{sample.id}.png", mask)
        lines.append(f"{sample.id}.png,{int(sample.labels[0])},{int(sample.labels[1])}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
