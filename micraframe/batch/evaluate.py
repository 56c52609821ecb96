"""Compares a folder of predictions with the truth."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from micraframe import registry
from micraframe.batch.predict import POINTS, TABLE
from micraframe.datasets.tables import Rows, labels_of, read_table
from micraframe.errors import DataError, MicraframeError
from micraframe.images import IMAGE_SUFFIXES, read_labels
from micraframe.metrics import evidence
from micraframe.metrics.detection import PrecisionRecall, counted_points, precision_recall
from micraframe.types import BoolArray, FloatArray, IntArray, Prediction, Sample

CURVES = "precision_recall.csv"
_POOLED = "pooled_average_precision"


@dataclass(frozen=True)
class Measured:
    """One number of one image and class; NaN where it is undefined."""

    image: str
    class_: str
    metric: str
    value: float


@dataclass(frozen=True)
class CurvePoint:
    """Precision and recall of one class's detections in all images, from a threshold on."""

    class_: str
    threshold: float
    precision: float
    recall: float


class Evaluated(NamedTuple):
    """What `evaluate_files` found.

    Attributes:
        measured: The numbers.
        curves: By class, precision and recall of the points in all images; empty where there is nothing to say of it.
        failures: What went wrong, by the name of the image.
    """

    measured: list[Measured]
    curves: dict[str, PrecisionRecall]
    failures: dict[str, str]


def evaluate_files(predictions: Path, truth: Path, distance: float = 10.0, instances: bool = False) -> Evaluated:
    """Measure what `predict_files` wrote: presence, masks, and points where there are any.

    Args:
        predictions: The folder that it wrote to.
        truth: A CSV of labels as the dataset `folder` reads it: image names, and a column of 0 and 1 per class or one
            column `class`; or a folder of masks named as the images are: for one class `NAME.png`, for several
            `CLASS/NAME.png` or `NAME.tif` of shape (K, H, W). Whatever is not 0 is the class.
        distance: How far a point may be from the middle of a true object to be a hit, in pixels.
        instances: Are true objects numbered in the masks; else they are the masks' connected pieces.

    Raises:
        DataError: If there is no table of predictions or no truth.
    """
    table = _read_table(predictions / TABLE)
    classes = tuple(dict.fromkeys(row["class"] for rows in table.values() for row in rows))
    labels = read_table(truth) if truth.is_file() else None
    if labels is None and not truth.is_dir():
        raise DataError(f"{truth} is neither a CSV of labels nor a folder of masks")
    points = _read_points(predictions / POINTS, classes)
    metrics = [registry.build("metric", name) for name in ("classification", "overlap")]
    if points is not None:
        metrics.append(registry.build("metric", "detection", distance=distance))
    sides: list[tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]]] = []
    measured: list[Measured] = []
    ranked: list[tuple[str, FloatArray, BoolArray | None]] = []
    failures: dict[str, str] = {}
    for name, rows in table.items():
        try:
            prediction = _prediction(predictions, name, rows, points)
            sample = _truth_sample(truth, name, classes, labels, instances, prediction)
        except MicraframeError as error:
            failures[name] = str(error)
            continue
        measured += [
            Measured(name, class_, metric_name, float(value))
            for metric in metrics
            for metric_name, values in metric.measure(prediction, sample).items()
            for class_, value in zip(classes, values, strict=True)
        ]
        ranked.append((name, prediction.scores, evidence.labels_of(sample)))
        if points is not None and (found := counted_points(prediction, sample)) is not None:
            sides.append(found)
    names, scores, told = zip(*ranked, strict=True) if ranked else ((), (), ())
    measured += [
        Measured(name, class_, metric_name, float(value))
        for metric_name, images in evidence.ranks(metrics, scores, told).items()
        for name, values in zip(names, images, strict=True)
        for class_, value in zip(classes, values, strict=True)
    ]
    curves = {
        class_: precision_recall([true[index] for true, _ in sides], [told[index] for _, told in sides], distance)
        for index, class_ in enumerate(classes)
        if sides
    }
    return Evaluated(measured, curves, failures)


def curve_points(curves: Mapping[str, PrecisionRecall]) -> Iterator[CurvePoint]:
    """Yield the lines of a table of curves, best threshold first."""
    for class_, curve in curves.items():
        for numbers in zip(curve.thresholds, curve.precision, curve.recall, strict=True):
            yield CurvePoint(class_, *map(float, numbers))


def pooled(curves: Mapping[str, PrecisionRecall], images: int) -> list[dict[str, str | float | int]]:
    """Return, as `means` does, the areas under curves of so many images, and their mean over the classes."""
    areas = {class_: curve.area for class_, curve in curves.items()}
    if len(areas) > 1:
        areas["all"] = _mean(areas.values())
    return [{"metric": _POOLED, "class": class_, "mean": area, "images": images} for class_, area in areas.items()]


def means(measured: Iterable[Measured]) -> list[dict[str, str | float | int]]:
    """Return, per metric and class and over all classes, the mean over the images for which it is defined."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in measured:
        groups[number.metric, number.class_].append(number.value)
    rows: list[dict[str, str | float | int]] = []
    for metric in dict.fromkeys(metric for metric, _ in groups):
        mine = {class_: values for (other, class_), values in groups.items() if other == metric}
        per_class = {class_: _mean(values) for class_, values in mine.items()}
        for class_, values in mine.items():
            defined = sum(not math.isnan(value) for value in values)
            rows.append({"metric": metric, "class": class_, "mean": per_class[class_], "images": defined})
        if len(mine) > 1:
            images = max(len(values) for values in mine.values())
            rows.append({"metric": metric, "class": "all", "mean": _mean(per_class.values()), "images": images})
    return rows


def _read_table(path: Path) -> dict[str, list[dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise DataError(f"{path}: cannot be read; it is what `micraframe predict` writes") from error
    wanted = {"image", "class", "score", "decision"}
    if not rows or not wanted <= rows[0].keys():
        raise DataError(f"{path}: no rows with the columns {', '.join(sorted(wanted))}")
    table: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        table[row["image"]].append(row)
    return dict(table)


def _read_points(path: Path, classes: tuple[str, ...]) -> dict[str, tuple[FloatArray, ...]] | None:
    """Return the points by image and class; None where there is no table of them."""
    if not path.exists():
        return None
    found: dict[str, list[list[tuple[float, ...]]]] = defaultdict(lambda: [[] for _ in classes])
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            try:
                point = tuple(float(row[column]) for column in ("y", "x", "score"))
                found[row["image"]][classes.index(row["class"])].append(point)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}: the line {row} is not image, y, x, score and class, one of {', '.join(classes)}"
                ) from error
            if not all(map(math.isfinite, point)):
                raise DataError(f"{path}: the line {row} has a number that is not finite")
    return {name: tuple(np.array(some, np.float32).reshape(-1, 3) for some in rows) for name, rows in found.items()}


def _prediction(
    folder: Path, name: str, rows: list[dict[str, str]], points: Mapping[str, tuple[FloatArray, ...]] | None
) -> Prediction:
    masks = None
    path = folder / f"{Path(name).stem}.tif"
    if path.exists():
        masks = read_labels(path) != 0
        masks = masks if masks.ndim == 3 else masks[None]
    nothing = (np.zeros((0, 3), np.float32),) * len(rows)
    return Prediction(
        np.array([float(row["score"]) for row in rows], np.float32),
        np.array([row["decision"] == "1" for row in rows]),
        masks,
        points=None if points is None else points.get(name, nothing),
    )


def _truth_sample(
    truth: Path,
    name: str,
    classes: tuple[str, ...],
    labels: Rows | None,
    numbered: bool,
    prediction: Prediction,
) -> Sample:
    stem = Path(name).stem
    if labels is not None:
        if stem not in labels:
            raise DataError(f"{truth} has no line for the image {name!r}")
        told = np.array(labels_of(stem, labels[stem], classes, truth))
        return Sample(name, np.zeros((1, 1, 1), np.float32), labels=told)
    objects = _truth_masks(truth, stem, classes)
    masks = objects != 0
    if prediction.masks is not None and prediction.masks.shape != masks.shape:
        raise DataError(
            f"{name}: the prediction has masks of shape (K, H, W) = {prediction.masks.shape}, the truth {masks.shape}"
        )
    image = np.zeros((1, *masks.shape[1:]), np.float32)
    instances = objects if numbered else None
    return Sample(name, image, labels=np.asarray(masks.any((1, 2))), masks=masks, instances=instances)


def _truth_masks(truth: Path, stem: str, classes: tuple[str, ...]) -> IntArray:
    whole = _find(truth, stem)
    if whole is not None:
        masks = read_labels(whole)
        masks = masks if masks.ndim == 3 else masks[None]
        if len(masks) != len(classes):
            raise DataError(f"{whole}: {len(masks)} masks; the model has the {len(classes)} classes {classes}")
        return masks
    parts = {class_: _find(truth / class_, stem) for class_ in classes}
    found = {class_: read_labels(path) for class_, path in parts.items() if path is not None}
    if not found:
        raise DataError(f"{truth} has no mask {stem}.* and none in folders named {', '.join(classes)}")
    if len({mask.shape for mask in found.values()}) > 1:
        raise DataError(f"{truth}: the masks {stem}.* differ in size: { {c: m.shape for c, m in found.items()} }")
    # No file for a class: the class is not in that image.
    empty = np.zeros_like(next(iter(found.values())))
    return np.stack([found.get(class_, empty) for class_ in classes])


def _find(folder: Path, stem: str) -> Path | None:
    for suffix in IMAGE_SUFFIXES:
        for spelled in (suffix, suffix.upper()):
            if (folder / f"{stem}{spelled}").is_file():
                return folder / f"{stem}{spelled}"
    return None


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
