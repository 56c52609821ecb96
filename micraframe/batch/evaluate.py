"""Compares a folder of predictions with the truth."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from micraframe import registry
from micraframe.batch.predict import POINTS, TABLE, output_files
from micraframe.config import Choice
from micraframe.datasets.tables import Rows, labels_of, read_table
from micraframe.errors import DataError, MicraframeError
from micraframe.images import IMAGE_SUFFIXES, read_labels
from micraframe.interfaces import Statistics
from micraframe.metrics.detection import DetectionMetric, pooled_curves
from micraframe.metrics.precision_recall import PrecisionRecall
from micraframe.metrics.reduction import Reduced, stack, summarise
from micraframe.types import FloatArray, IntArray, Prediction, Sample, Scores

CURVES: Final = "precision_recall.csv"
METRICS: Final = ("micraframe/classification", "micraframe/overlap")
POINT_METRIC: Final = "micraframe/detection"

Record = dict[str, str | float | int]


@dataclass(frozen=True)
class ImageStatistic:
    """One statistic of one image and class; NaN where undefined."""

    image: str
    class_: str
    statistic: str
    value: float


@dataclass(frozen=True)
class CurvePoint:
    """Precision and recall of one class's detections in all images, at a threshold of their scores."""

    class_: str
    threshold: float
    precision: float
    recall: float


class Evaluation(NamedTuple):
    """The result of `evaluate_files`.

    Attributes:
        records: The numbers: per metric, those of each class and over all classes (see `as_records`), with the metric's
            component.
        measured: The statistics of each image that they are reduced from.
        curves: By class, precision against recall of the points in all images; empty without predicted or true points.
        done: Number of images that were evaluated.
        failures: What went wrong, by the name of the image.
    """

    records: list[Record]
    measured: list[ImageStatistic]
    curves: dict[str, PrecisionRecall]
    done: int
    failures: dict[str, str]


def evaluate_files(
    predictions: Path,
    truth: Path,
    metrics: Sequence[Choice] = (),
    distance: float = 10.0,
    instances: bool = False,
) -> Evaluation:
    """Measure what `predict_files` wrote, and average it as a study does (see `micraframe.metrics.reduction`).

    Args:
        predictions: The folder that it wrote to.
        truth: A CSV of labels as the dataset `folder` reads it: image names, and a column of 0 and 1 per class or one
            column `class`; or a folder of masks named as the images are: for one class `NAME.png`, for several
            `CLASS/NAME.png` or `NAME.tif` of shape (K, H, W). Non-zero pixels are the class.
        metrics: What to measure; by default classification and overlap, and detection if there are predicted points.
        distance: Largest distance in pixels between a point and the centre of the true object that it hits, where
            detection is measured by default.
        instances: Whether the masks contain numbered true objects; otherwise these are the connected components.

    Raises:
        DataError: If there is no table of predictions or no truth.
    """
    table = _read_table(predictions / TABLE)
    classes = tuple(dict.fromkeys(row["class"] for rows in table.values() for row in rows))
    labels = read_table(truth) if truth.is_file() else None
    if labels is None and not truth.is_dir():
        raise DataError(f"{truth}: expected a CSV of labels or a folder of masks")
    points = _read_points(predictions / POINTS, classes)
    if not metrics:
        metrics = [Choice(name=name) for name in METRICS]
        if points is not None:
            metrics.append(Choice(name=POINT_METRIC, params={"distance": distance}))
    built = [registry.build("metric", choice.name, **choice.params) for choice in metrics]
    statistics: dict[str, list[Statistics]] = {}
    failures: dict[str, str] = {}
    for name, rows in table.items():
        try:
            prediction = _prediction(predictions, name, rows, classes, points)
            sample = _truth_sample(truth, name, classes, labels, instances, prediction)
            statistics[name] = [metric.measure(prediction, sample) for metric in built]
        except MicraframeError as error:
            failures[name] = str(error)
        except Exception as error:  # a plugin's metric may raise anything; the other images are still evaluated
            failures[name] = f"{type(error).__name__}: {error}"
    measured = [
        ImageStatistic(name, class_, statistic, float(value))
        for name, several in statistics.items()
        for found in several
        for statistic, values in found.items()
        for class_, value in zip(classes, values, strict=True)
    ]
    records: list[Record] = []
    curves: dict[str, PrecisionRecall] = {}
    for choice, metric, several in zip(metrics, built, zip(*statistics.values(), strict=True), strict=bool(statistics)):
        stacked = stack(several, len(classes))
        records += ({"component": choice.name, **row} for row in as_records(summarise(metric, stacked), classes))
        if isinstance(metric, DetectionMetric) and not np.isnan(stacked["detection_true"]).all():
            curves = dict(zip(classes, pooled_curves(stacked), strict=True))
    return Evaluation(records, measured, curves, len(statistics), failures)


def as_records(found: Iterable[Reduced], classes: Sequence[str]) -> list[Record]:
    """Return a record per metric and class, another over several classes, each with how images were reduced."""
    records: list[Record] = []
    for each in found:
        rows: list[tuple[str, Any, Any]] = list(zip(classes, each.per_class, each.images_per_class, strict=True))
        if len(classes) > 1:
            rows.append(("all", each.overall, each.images))
        records += (
            {
                "metric": each.column.name,
                "class": class_,
                "value": float(value),
                "images": int(images),
                "reduction": each.reduction,
            }
            for class_, value, images in rows
        )
    return records


def curve_points(curves: Mapping[str, PrecisionRecall]) -> Iterator[CurvePoint]:
    """Yield the lines of a table of curves, highest threshold first."""
    for class_, curve in curves.items():
        for numbers in zip(curve.thresholds, curve.precision, curve.recall, strict=True):
            yield CurvePoint(class_, *map(float, numbers))


def read_planes(path: Path) -> IntArray:
    """Read masks or numbered objects, int32 (K, H, W)."""
    planes = read_labels(path)
    return planes if planes.ndim == 3 else planes[None]


def _read_table(path: Path) -> dict[str, list[dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise DataError(f"{path}: cannot be read; name a folder that `micraframe predict` wrote") from error
    needed = {"image", "class", "presence", "present"}
    if not rows or not needed <= rows[0].keys():
        raise DataError(f"{path}: expected rows with the columns {', '.join(sorted(needed))}")
    table: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        table[row["image"]].append(row)
    return dict(table)


def _read_points(path: Path, classes: tuple[str, ...]) -> dict[str, tuple[FloatArray, ...]] | None:
    """Return the points by image and class; None without a table of points."""
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
                    f"{path}: expected image, y, x, score and a class among {', '.join(classes)}, got {row}"
                ) from error
            if not all(map(math.isfinite, point)):
                raise DataError(f"{path}: expected finite numbers, got {row}")
    return {name: tuple(np.array(some, np.float32).reshape(-1, 3) for some in rows) for name, rows in found.items()}


def _prediction(
    folder: Path,
    name: str,
    rows: list[dict[str, str]],
    classes: tuple[str, ...],
    points: Mapping[str, tuple[FloatArray, ...]] | None,
) -> Prediction:
    if [row["class"] for row in rows] != list(classes):
        raise DataError(
            f"{folder / TABLE}: expected one row of {name!r} for each of {', '.join(classes)}, in this order; run "
            "predict again"
        )
    files = output_files(Path(name).stem)
    masks, instances = (
        read_planes(folder / file) if (folder / file).exists() else None for file in (files.masks, files.labels)
    )
    no_points = (np.zeros((0, 3), np.float32),) * len(rows)
    return Prediction(
        Scores.without_maps(np.array([float(row["presence"]) for row in rows], np.float32)),
        np.array([row["present"] == "1" for row in rows]),
        None if masks is None else masks != 0,
        instances,
        points=None if points is None else points.get(name, no_points),
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
            raise DataError(f"{truth}: expected a row for the image {name!r}, got none")
        present = np.array(labels_of(stem, labels[stem], classes, truth))
        return Sample(name, np.zeros((1, 1, 1), np.float32), labels=present)
    objects = _truth_masks(truth, stem, classes)
    masks = objects != 0
    if prediction.masks is not None and prediction.masks.shape != masks.shape:
        raise DataError(
            f"{name}: expected predicted masks of shape (K, H, W) = {masks.shape}, as the truth has, got "
            f"{prediction.masks.shape}"
        )
    image = np.zeros((1, *masks.shape[1:]), np.float32)
    instances = objects if numbered else None
    return Sample(name, image, labels=np.asarray(masks.any((1, 2))), masks=masks, instances=instances)


def _truth_masks(truth: Path, stem: str, classes: tuple[str, ...]) -> IntArray:
    whole = _find(truth, stem)
    if whole is not None:
        masks = read_planes(whole)
        if len(masks) != len(classes):
            raise DataError(
                f"{whole}: expected {len(classes)} masks, one for each of {', '.join(classes)}, got {len(masks)}"
            )
        return masks
    parts = {class_: _find(truth / class_, stem) for class_ in classes}
    found = {class_: read_labels(path) for class_, path in parts.items() if path is not None}
    if not found:
        raise DataError(f"{truth}: expected a mask {stem}.* there or in folders named {', '.join(classes)}, got none")
    if len({mask.shape for mask in found.values()}) > 1:
        sizes = ", ".join(f"{class_} {mask.shape}" for class_, mask in found.items())
        raise DataError(f"{truth}: expected masks {stem}.* of the same size, got {sizes}")
    # No file for a class: the class is not in this image.
    empty = np.zeros_like(next(iter(found.values())))
    return np.stack([found.get(class_, empty) for class_ in classes])


def _find(folder: Path, stem: str) -> Path | None:
    for suffix in IMAGE_SUFFIXES:
        for spelling in (suffix, suffix.upper()):
            if (folder / f"{stem}{spelling}").is_file():
                return folder / f"{stem}{spelling}"
    return None
