"""The same test images for every method side by side, with truth and prediction as contours over the raw image."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

from micraframe import registry
from micraframe.config import Choice
from micraframe.errors import MicraframeError
from micraframe.metrics.masks_and_labels import labels_of, masks_of
from micraframe.metrics.reduction import means_defined
from micraframe.overlay import contours, to_rgb
from micraframe.study.folder import StudyFolder
from micraframe.study.report.failures import Kinds, by_detections, image_kinds, kinds_text
from micraframe.study.report.results import DatasetResults, MethodResult
from micraframe.study.report.wording import listed
from micraframe.study.tables import Values
from micraframe.types import BoolArray, Sample

EDGES = (256, 192, 128, 96)
"""Longest edges of a picture, in pixels, tried in this order until all pictures fit."""

_FIELD_EDGE = 200


class ScaleBar(NamedTuple):
    """A scale bar: its length as a share of the picture's width, and in words."""

    share: float
    text: str


class ExamplePanel(NamedTuple):
    """One method's prediction for an image.

    Attributes:
        result: The method.
        value: The primary metric, mean over the image's classes; NaN where undefined.
        errors: What is wrong, in words: the kind of failure, or the classes that were missed and wrongly found.
        overlay: Data URI of a transparent PNG.
    """

    result: MethodResult
    value: float
    errors: str
    overlay: str


@dataclass(frozen=True)
class ExampleImage:
    """One test image with all methods.

    Attributes:
        rank: Where it is among the images: `best`, `median`, `worst` or in between.
        image_id: The image.
        present: Its classes in words.
        size: Width and height of the picture in pixels.
        photo: Data URI of the raw image.
        truth: Data URI of the true contours, a transparent PNG.
        bar: The scale bar; None where the size of a pixel is unknown.
        field: Data URI of the whole field; empty where the image is no crop or the field is unknown.
        frame: Where the image is in the field: x, y, width and height as shares of the field's.
        aspect: Width of the field by its height.
        panels: Of every method with masks.
    """

    rank: str
    image_id: str
    present: str
    size: tuple[int, int]
    photo: str
    truth: str
    bar: ScaleBar | None
    field: str
    frame: tuple[float, float, float, float]
    aspect: float
    panels: tuple[ExamplePanel, ...]


def examples(found: DatasetResults, values: Values, folder: StudyFolder, budget: int) -> tuple[ExampleImage, ...]:
    """Return test images that contain something, from best to worst by the mean over methods of the primary metric.

    Args:
        found: The results on a dataset; of each method, the first trained model with fixed thresholds is shown.
        values: The numbers per image.
        folder: Where the masks are.
        budget: Bytes for all pictures together; they are made smaller until they fit or are the smallest.
    """
    primary = found.primary.name
    results = [each for each in found.results if ("fixed", primary) in each.summaries and each.role != "ceiling"]
    ranked = [each for each in results if each.role == "method"] or results
    if not ranked:
        return ()
    # The first row of the table is the first completed seed.
    by_result = {each.key: values.table(each.group, primary)[0] for each in results}
    choice = ranked[0].runs[0].dataset
    test = registry.build("dataset", choice.name, **choice.params).samples("test")
    means = means_defined(np.array([by_result[each.key] for each in ranked]).T)
    if np.isnan(means).all():
        return ()
    holds = np.array([(labels := labels_of(sample)) is not None and bool(labels.any()) for sample in test])
    picked = pick(np.where(holds, means, np.nan), found.primary.higher_is_better)
    fields = _fields(choice, [test[number] for _, number in picked])
    per_model = {each.key: image_kinds(values.statistics(each.group), by_detections(found)) for each in results}
    kinds = {key: models[0] for key, models in per_model.items() if models}
    drawings = [
        drawing
        for rank, number in picked
        if (drawing := _drawing(rank, number, test[number], found, results, by_result, kinds, folder, fields))
    ]
    shown: tuple[ExampleImage, ...] = ()
    for edge in EDGES:
        shown = tuple(drawing(edge) for drawing in drawings)
        if sum(_bytes(each) for each in shown) <= budget:
            break
    return shown


def pick(values: npt.NDArray[np.float64], higher_is_better: bool = True) -> list[tuple[str, int]]:
    """Return the images at the ends, the middle and the quartiles of a metric, best first, with their indices.

    Args:
        values: (N,), NaN where undefined.
        higher_is_better: Whether high values are good.

    Returns:
        No index twice: of few images, not all ranks exist.
    """
    places = np.flatnonzero(~np.isnan(values))
    order = places[np.argsort(-values[places] if higher_is_better else values[places], kind="stable")]
    last = len(order) - 1
    ranks = {
        "best": 0,
        "worst": last,
        "median": last // 2,
        "upper quartile": last // 4,
        "lower quartile": 3 * last // 4,
    }
    found: dict[int, str] = {}
    for rank, place in ranks.items():
        if last >= 0:
            found.setdefault(place, rank)
    return [(found[place], int(order[place])) for place in sorted(found)]


def scale_bar(width_um: float) -> ScaleBar:
    """Return a bar of a round length, between a tenth and a quarter of a picture that is so many micrometres wide."""
    power = 10.0 ** math.floor(math.log10(width_um / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width_um / 4)
    return ScaleBar(length / width_um, f"{length:g} µm" if length >= 1 else f"{length * 1000:g} nm")


def _drawing(
    rank: str,
    number: int,
    sample: Sample,
    found: DatasetResults,
    results: Sequence[MethodResult],
    values: Mapping[str, npt.NDArray[np.float64]],
    kinds: Mapping[str, Kinds],
    folder: StudyFolder,
    fields: Mapping[str, tuple[Sample, tuple[int, int]]],
) -> Callable[[int], ExampleImage] | None:
    """Return what draws an image so that its longest edge has so many pixels; None where no method has masks."""
    height, width = sample.image.shape[1:]
    truth, labels = masks_of(sample), labels_of(sample)
    predicted = [
        (result, masks) for result in results if (masks := folder.masks(result.runs[0], number, width)) is not None
    ]
    if not predicted:
        return None
    pixel = sample.pixel_size_um or found.info.pixel_size_um
    shown, field, frame, aspect = _field(fields.get(sample.id), sample)

    def draw(edge: int) -> ExampleImage:
        scale = edge / max(height, width)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        small = _resized(truth, size)
        return ExampleImage(
            rank=rank,
            image_id=sample.id,
            present=_names(labels, found.info.classes),
            size=size,
            photo=_photo(shown, size),
            truth="" if small is None else _png(contours(None, small)),
            bar=scale_bar(pixel * width) if pixel else None,
            field=field,
            frame=frame,
            aspect=aspect,
            panels=tuple(
                ExamplePanel(
                    result,
                    float(values[result.key][number]),
                    kinds_text(kinds[result.key][number], found.info.classes)
                    if result.key in kinds and (truth is not None or by_detections(found))
                    else _errors(np.asarray(masks.any(axis=(1, 2))), labels, found.info.classes),
                    _png(contours(_resized(masks, size), small)),
                )
                for result, masks in predicted
            ),
        )

    return draw


def _fields(choice: Choice, crops: Sequence[Sample]) -> dict[str, tuple[Sample, tuple[int, int]]]:
    """Return, by a crop's id, the field that it was cut from and its place (y, x); those not found are left out.

    A dataset that cuts its images has a parameter `crop`, and without it gives the whole ones.
    """
    if not choice.params.get("crop"):
        return {}
    places = {crop.id: match for crop in crops if (match := re.fullmatch(r"(.*)@y(\d+)x(\d+)", crop.id, re.DOTALL))}
    wanted = {match[1] for match in places.values()}
    fields: dict[str, Sample] = {}
    try:
        whole = registry.build("dataset", choice.name, **{**choice.params, "crop": None, "stride": None})
        for field in whole.samples("test"):
            if field.id in wanted:
                fields[field.id] = field
            if len(fields) == len(wanted):
                break
    except MicraframeError:
        # Not every dataset that can be cut has labels of its whole images.
        return {}
    return {
        crop: (fields[match[1]], (int(match[2]), int(match[3]))) for crop, match in places.items() if match[1] in fields
    }


def _field(
    found: tuple[Sample, tuple[int, int]] | None, crop: Sample
) -> tuple[npt.NDArray[np.uint8], str, tuple[float, float, float, float], float]:
    """Return a crop's image, uint8 (H, W, 3), and of the field around it, if any, what `ExampleImage` has."""
    nothing = "", (0.0, 0.0, 1.0, 1.0), 1.0
    if found is None:
        return to_rgb(crop.image), *nothing
    field, (y, x) = found
    (height, width), (h, w) = field.image.shape[1:], crop.image.shape[1:]
    if not np.array_equal(field.image[:, y : y + h, x : x + w], crop.image) or (h, w) == (height, width):
        return to_rgb(crop.image), *nothing
    scale = min(1.0, _FIELD_EDGE / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    rgb, frame = to_rgb(field.image), (x / width, y / height, w / width, h / height)
    # As bright as in the field: stretched by itself, a crop without structures would show noise.
    return rgb[y : y + h, x : x + w], _photo(rgb, size), frame, width / height


def _errors(predicted: BoolArray, labels: BoolArray | None, classes: Sequence[str]) -> str:
    if labels is None or len(classes) == 1:
        return ""
    missed, wrong = _names(labels & ~predicted, classes), _names(predicted & ~labels, classes)
    return "; ".join([f"missed: {missed}"] * bool(missed) + [f"false: {wrong}"] * bool(wrong))


def _names(which: BoolArray | None, classes: Sequence[str]) -> str:
    return "" if which is None else listed([name for name, is_in in zip(classes, which, strict=True) if is_in])


def _resized(masks: BoolArray | None, size: tuple[int, int]) -> BoolArray | None:
    if masks is None or size == (masks.shape[2], masks.shape[1]):
        return masks
    resized = [cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for mask in masks]
    return np.asarray(np.stack(resized) > 0)


def _photo(rgb: npt.NDArray[np.uint8], size: tuple[int, int]) -> str:
    # Never enlarged: the page scales small images up, and their pixels stay visible.
    if size[0] < rgb.shape[1]:
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    shown: npt.NDArray[Any] = rgb[..., 0] if (rgb == rgb[..., :1]).all() else rgb
    shown = np.ascontiguousarray(shown)
    return min(
        _uri("jpeg", imagecodecs.jpeg8_encode(shown, level=88)),
        _uri("png", imagecodecs.png_encode(shown, level=9)),
        key=len,
    )


def _png(rgba: npt.NDArray[np.uint8]) -> str:
    return _uri("png", imagecodecs.png_encode(np.ascontiguousarray(rgba), level=9))


def _uri(kind: str, encoded: bytes | bytearray) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"


def _bytes(example: ExampleImage) -> int:
    return sum(map(len, (example.photo, example.truth, example.field, *(panel.overlay for panel in example.panels))))
