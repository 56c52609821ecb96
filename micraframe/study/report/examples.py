"""The best, median and worst test image of every method, as small pictures inside the page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

from micraframe import registry
from micraframe.metrics.masks_and_labels import masks_of
from micraframe.overlay import overlay, to_rgb
from micraframe.study.folder import StudyFolder
from micraframe.study.report.results import DatasetResults, MethodResult
from micraframe.study.tables import Values
from micraframe.types import BoolArray, FloatArray, Sample

EDGES = (160, 128, 96, 72, 56)
"""Longest edges of a picture, in pixels, tried in this order until all pictures fit."""


@dataclass(frozen=True)
class ExampleImage:
    """One test image and a method's prediction.

    Attributes:
        rank: `best`, `median` or `worst`.
        image_id: The image.
        value: The primary metric, mean over classes.
        pictures: Data URIs of PNGs, by what they show; empty where there is no mask.
    """

    rank: str
    image_id: str
    value: float
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class ExampleGallery:
    """The examples of a dataset.

    Attributes:
        rows: Per method its examples, best to worst; fewer than three where fewer images have a value.
        skipped: Per method without examples, the reason.
    """

    rows: tuple[tuple[MethodResult, tuple[ExampleImage, ...]], ...]
    skipped: tuple[tuple[MethodResult, str], ...]


def examples(found: DatasetResults, values: Values, folder: StudyFolder, budget: int) -> ExampleGallery:
    """Return the examples of every method's first completed seed with fixed thresholds.

    Args:
        found: The results on a dataset.
        values: The numbers per image.
        folder: Where the masks are.
        budget: Bytes for all pictures together; they are made smaller until they fit or are the smallest.
    """
    primary = found.primary
    chosen: list[tuple[MethodResult, list[tuple[str, int, float]]]] = []
    skipped: list[tuple[MethodResult, str]] = []
    for result in found.results:
        if ("fixed", primary.name) not in result.summaries:
            skipped.append((result, f"{primary.name} was not measured"))
            continue
        # The first row of the table is the first completed seed.
        ranked = rank(values.table(result.group, primary.name)[0], primary.higher_is_better)
        if not ranked:
            skipped.append((result, f"{primary.name} is undefined for every image"))
        else:
            chosen.append((result, ranked))
    if not chosen:
        return ExampleGallery((), tuple(skipped))
    dataset = chosen[0][0].runs[0].dataset
    test = registry.build("dataset", dataset.name, **dataset.params).samples("test")
    samples = {number: test[number] for number in {number for _, ranked in chosen for _, number, _ in ranked}}
    drawable = []
    for result, ranked in chosen:
        masks = {n: folder.masks(result.runs[0], n, samples[n].image.shape[2]) for _, n, _ in ranked}
        if all(mask is None for mask in masks.values()):
            skipped.append((result, "it makes no masks"))
        else:
            drawable.append((result, ranked, masks))
    rows: tuple[tuple[MethodResult, tuple[ExampleImage, ...]], ...] = ()
    for edge in EDGES:
        rows = tuple(
            (
                result,
                tuple(
                    ExampleImage(name, samples[number].id, value, _pictures(samples[number], masks[number], edge))
                    for name, number, value in ranked
                ),
            )
            for result, ranked, masks in drawable
        )
        size = sum(len(uri) for _, shown in rows for example in shown for uri in example.pictures.values())
        if size <= budget:
            break
    return ExampleGallery(rows, tuple(skipped))


def rank(values: npt.NDArray[np.float64], higher_is_better: bool = True) -> list[tuple[str, int, float]]:
    """Return best, median and worst with their indices and values: the first of equals, the better of two medians.

    Args:
        values: (N,), NaN where undefined.
        higher_is_better: Whether high values are good.

    Returns:
        No index twice: two values have no median, and one value is only the best.
    """
    places = np.flatnonzero(~np.isnan(values))
    order = places[np.argsort(-values[places] if higher_is_better else values[places], kind="stable")]
    picks = {0: "best", len(order) - 1: "worst"} if len(order) > 1 else dict.fromkeys(range(len(order)), "best")
    picks.setdefault((len(order) - 1) // 2, "median")
    return [(picks[place], int(order[place]), float(values[order[place]])) for place in sorted(picks) if len(order)]


def _pictures(sample: Sample, masks: BoolArray | None, edge: int) -> dict[str, str]:
    truth = masks_of(sample)
    height, width = sample.image.shape[1:]
    # Never enlarged: the page scales small images up, and their pixels stay visible.
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
    # A grey picture takes a third of the bytes.
    png = imagecodecs.png_encode(np.ascontiguousarray(rgb[..., 0] if grey else rgb), level=9)
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
