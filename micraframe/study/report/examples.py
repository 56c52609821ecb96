"""The best, median and worst test image of every contender, as small pictures inside the page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

from micraframe import registry
from micraframe.metrics.evidence import masks_of
from micraframe.overlay import overlay, to_rgb
from micraframe.study.folder import StudyFolder
from micraframe.study.report.definitions import lower_is_better
from micraframe.study.report.results import DatasetResults, Result
from micraframe.study.tables import Values
from micraframe.types import BoolArray, FloatArray, Sample

EDGES = (160, 128, 96, 72, 56)
"""Longest edges of a picture in pixels that are tried, until all fit."""


@dataclass(frozen=True)
class Example:
    """One test image and what a contender made of it.

    Attributes:
        rank: `best`, `median` or `worst`.
        image_id: The image.
        value: Of the primary metric, mean over classes.
        pictures: Data URIs of PNGs, by what they show; empty where there is no mask.
    """

    rank: str
    image_id: str
    value: float
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class Examples:
    """The examples of a dataset.

    Attributes:
        rows: Per contender its examples, best to worst; fewer than three where fewer images have a value.
        skipped: Per contender without examples, why.
    """

    rows: tuple[tuple[Result, tuple[Example, ...]], ...]
    skipped: tuple[tuple[Result, str], ...]


def examples(found: DatasetResults, values: Values, folder: StudyFolder, budget: int) -> Examples:
    """Return the examples of every contender's first seed with its fixed thresholds.

    Args:
        found: What the study came to on a dataset.
        values: The numbers.
        folder: Where the masks are.
        budget: Bytes that all pictures together may take; they are made smaller until they fit, or are the smallest.
    """
    chosen: list[tuple[Result, list[tuple[str, int, float]]]] = []
    skipped: list[tuple[Result, str]] = []
    for result in found.results:
        if ("fixed", found.primary) not in result.summaries:
            skipped.append((result, f"{found.primary} was not measured"))
            continue
        # The first row of the table is of the first seed that is done.
        ranked = rank(values.table(result.group, found.primary)[0], lower_is_better(found.primary))
        if not ranked:
            skipped.append((result, f"{found.primary} is undefined for every image"))
        else:
            chosen.append((result, ranked))
    if not chosen:
        return Examples((), tuple(skipped))
    cell = chosen[0][0].cells[0]
    test = registry.build("dataset", cell.dataset.name, **cell.dataset.params).samples("test")
    samples = {number: test[number] for number in {number for _, ranked in chosen for _, number, _ in ranked}}
    drawable = []
    for result, ranked in chosen:
        masks = {number: _masks(result, folder, number, samples[number]) for _, number, _ in ranked}
        if all(mask is None for mask in masks.values()):
            skipped.append((result, "it makes no masks"))
        else:
            drawable.append((result, ranked, masks))
    rows: tuple[tuple[Result, tuple[Example, ...]], ...] = ()
    for edge in EDGES:
        rows = tuple(
            (
                result,
                tuple(
                    Example(name, samples[number].id, value, _pictures(samples[number], masks[number], edge))
                    for name, number, value in ranked
                ),
            )
            for result, ranked, masks in drawable
        )
        size = sum(len(uri) for _, shown in rows for example in shown for uri in example.pictures.values())
        if size <= budget:
            break
    return Examples(rows, tuple(skipped))


def rank(values: npt.NDArray[np.float64], lower: bool = False) -> list[tuple[str, int, float]]:
    """Return best, median and worst with their places and values; of equals the first, of two medians the better.

    Args:
        values: (N,), NaN where undefined.
        lower: Low is good.

    Returns:
        No place twice: of two values there is no median, of one only the best.
    """
    places = np.flatnonzero(~np.isnan(values))
    order = places[np.argsort(values[places] if lower else -values[places], kind="stable")]
    picks = {0: "best", len(order) - 1: "worst"} if len(order) > 1 else dict.fromkeys(range(len(order)), "best")
    picks.setdefault((len(order) - 1) // 2, "median")
    return [(picks[place], int(order[place]), float(values[order[place]])) for place in sorted(picks) if len(order)]


def _masks(result: Result, folder: StudyFolder, number: int, sample: Sample) -> BoolArray | None:
    return folder.masks(result.cells[0], number, sample.image.shape[2])


def _pictures(sample: Sample, masks: BoolArray | None, edge: int) -> dict[str, str]:
    truth = masks_of(sample)
    height, width = sample.image.shape[1:]
    # Never larger than it is: the page scales small images, and their pixels stay to be seen.
    scale = min(1.0, edge / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    image = _smaller(sample.image, size)
    return {
        "image": _uri(to_rgb(image)),
        "truth, outlined": "" if truth is None else _uri(overlay(image, _smaller_masks(truth, size), opacity=0)),
        "prediction": "" if masks is None else _uri(overlay(image, _smaller_masks(masks, size))),
    }


def _smaller(image: FloatArray, size: tuple[int, int]) -> FloatArray:
    if size == (image.shape[2], image.shape[1]):
        return image
    return np.stack([cv2.resize(channel, size, interpolation=cv2.INTER_AREA) for channel in image])


def _smaller_masks(masks: BoolArray, size: tuple[int, int]) -> BoolArray:
    if size == (masks.shape[2], masks.shape[1]):
        return masks
    small = [cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for mask in masks]
    return np.asarray(np.stack(small) > 0)


def _uri(rgb: npt.NDArray[np.uint8]) -> str:
    grey = (rgb == rgb[..., :1]).all()
    # A picture in grey takes a third of the bytes.
    png = imagecodecs.png_encode(np.ascontiguousarray(rgb[..., 0] if grey else rgb), level=9)
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
