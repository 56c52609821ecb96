"""Figure 1f of the MICRA-Net paper, decisions and hours of annotation, recomputed from the counts that it publishes.

The figure compares, for each dataset, labels of crops with the outlines that full supervision needs. Its numbers are in
a picture; its text (Methods 4.2 and 4.7) gives most of what they are made of. What cannot be recomputed is NaN, with
the count that is missing.

    decisions = crops that were labelled, or pixels on the edges of structures
    hours = 2 s times crops, or seconds per image times images (+ seconds per object times objects)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

Supervision = Literal["image-level", "outline"]

SECONDS_PER_CROP: Final = 2.0
"""Time to judge a crop, the mean over all datasets (figure 1)."""


@dataclass(frozen=True)
class Effort:
    """The annotation of a dataset's training and validation images.

    Attributes:
        dataset: Name.
        supervision: `image-level`, or `outline` for full supervision.
        decisions: Crops labelled, or edge pixels drawn; NaN if unknown.
        hours: Time; NaN if unknown.
        basis: The published counts that it is computed from, or what is missing.
    """

    dataset: str
    supervision: Supervision
    decisions: float
    hours: float
    basis: str


def labels_of_crops(dataset: str, train: int, valid: int, note: str = "") -> Effort:
    """Return the effort of labelling crops, 2 s each."""
    crops = train + valid
    basis = f"{train} training and {valid} validation crops, 2 s each{note}"
    return Effort(dataset, "image-level", crops, crops * SECONDS_PER_CROP / 3600, basis)


def outlines(
    dataset: str, images: int, per_image: float, basis: str, objects: int = 0, per_object: float = 0
) -> Effort:
    """Return the effort of outlining everything; edge pixels are not published for any dataset.

    Args:
        dataset: Name.
        images: Number of images.
        per_image: Seconds for an image.
        basis: The counts, in words.
        objects: Number of objects that take additional time.
        per_object: Seconds for each of them.
    """
    return Effort(dataset, "outline", math.nan, (images * per_image + objects * per_object) / 3600, basis)


def unknown(dataset: str, supervision: Supervision, missing: str) -> Effort:
    """Return an effort that cannot be recomputed."""
    return Effort(dataset, supervision, math.nan, math.nan, f"not published: {missing}")


FIGURE_1F: Final = (
    labels_of_crops("modified MNIST", 2000, 1000, "; labels and masks come with the digits; none were drawn"),
    unknown("modified MNIST", "outline", "edge pixels and seconds per image"),
    labels_of_crops("F-actin", 3832, 1287),
    unknown(
        "F-actin",
        "outline",
        "edge pixels and seconds per crop of the 50 outlined images; the text says more than 19 times the labels' time",
    ),
    labels_of_crops(
        "Cell Tracking Challenge", 66466 + 88722, 17621 + 22279, "; of 128 px; the 30470 of 256 px take 16.9 h"
    ),
    unknown(
        "Cell Tracking Challenge",
        "outline",
        "the number of training images, at 900 s each; the text says 40 times the decisions and more than 150 hours "
        "above the labels' time",
    ),
    unknown("P. vivax", "image-level", "the number of 256 x 256 crops of the 1207 training images"),
    outlines("P. vivax", 1207, 120, "1207 training images, 120 s each"),
    unknown("EM axons", "image-level", "the number of 1024 x 1024 crops without a marker"),
    outlines("EM axons", 156, 1800, "156 images, 1800 s each, and 537 contours, 14 s each", 537, 14),
)
"""What follows from the counts in the paper's text, in the order of its datasets."""


def as_markdown() -> str:
    """Return `FIGURE_1F` as a table for the documentation; what is unknown is a hyphen."""
    lines = ["| dataset | annotation | decisions | hours | computed from |", "|---|---|---:|---:|---|"]
    for each in FIGURE_1F:
        numbers = ("-" if math.isnan(value) else f"{value:,.{digits}f}" for value, digits in _numbers(each))
        lines.append(f"| {each.dataset} | {each.supervision} | {' | '.join(numbers)} | {each.basis} |")
    return "\n".join(lines) + "\n"


def _numbers(effort: Effort) -> tuple[tuple[float, int], tuple[float, int]]:
    return (effort.decisions, 0), (effort.hours, 1)
