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
from micraframe.batch.outputs import read_contact_classes
from micraframe.batch.predict import OBJECTS, POINTS, TABLE, output_files
from micraframe.config import Choice
from micraframe.datasets.paths import find, image_files
from micraframe.datasets.tables import (
    BOX_COLUMNS,
    CLASS_COLUMN,
    CROP_COLUMNS,
    POINT_COLUMNS,
    Rows,
    columns_of,
    named_classes,
    read_table,
    row_labels,
    row_objects,
    rows_of_classes,
)
from micraframe.errors import ConfigError, DataError, MicraframeError, counted, reason_of
from micraframe.images import read_labels
from micraframe.interfaces import Statistics
from micraframe.metrics.detection import DetectionMetric, pooled_curves
from micraframe.metrics.precision_recall import PrecisionRecall
from micraframe.metrics.reduction import Reduced, stack, summarise
from micraframe.objects import is_numbered
from micraframe.types import FloatArray, IntArray, Prediction, Sample, Scores

PRESENCE, MASKS, OBJECTWISE, COUNTS, POSITIONS = (
    f"micraframe/{name}" for name in ("classification", "overlap", "objects", "counts", "detection")
)

ANYWHERE: Final = (2**31, 2**31)
"""The size of an image whose size is not known: no box or point lies outside."""

Record = dict[str, str | float | int]


@dataclass(frozen=True)
class ImageStatistic:
    """One statistic of one image and class; NaN where undefined."""

    image: str
    class_: str
    statistic: str
    value: float


@dataclass(frozen=True)
class MeasuredNumber:
    """A number of samples or images.

    Attributes:
        metric: Its name.
        class_: The class, or `all`.
        value: The number.
        images: How many samples contribute to it.
        reduction: How samples were reduced, in words.
    """

    metric: str
    class_: str
    value: float
    images: int
    reduction: str

    def record(self) -> Record:
        """Return the number for printing."""
        return {name.rstrip("_"): value for name, value in vars(self).items()}


@dataclass(frozen=True)
class CurvePoint:
    """Precision and recall of one class's detections in all images, at a threshold of their scores."""

    class_: str
    threshold: float
    precision: float
    recall: float


class Truth(NamedTuple):
    """Where the truth is, and what kind it is.

    Attributes:
        path: A table, or a folder of masks.
        rows: The table; None for masks.
        columns: `BOX_COLUMNS`, `POINT_COLUMNS`, or nothing for a table of labels.
        instances: Whether masks contain numbered objects; None: they must not.
    """

    path: Path
    rows: Rows | None
    columns: tuple[str, ...]
    instances: bool | None


class Evaluation(NamedTuple):
    """The result of `evaluate_files`.

    Attributes:
        records: A record of each `MeasuredNumber`, with the metric's component.
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
    instances: bool | None = None,
) -> Evaluation:
    """Measure what `predict_files` wrote, and average it as a study does (see `micraframe.metrics.reduction`).

    Args:
        predictions: The folder that it wrote to. A class whose role in `predict.json` is contact is left out of means
            over classes.
        truth: A folder of masks named as the images are: for one class `NAME.png`, for several `CLASS/NAME.png` or
            `NAME.tif` of shape (K, H, W); non-zero pixels are the class. Or a CSV as the dataset `folder` reads it,
            with a column of image names: labels, which are a column of 0 and 1 per class or one column `class`; boxes,
            which are class, xmin, ymin, xmax, ymax; or points, which are class, x, y. Boxes and points of classes that
            were not predicted are ignored.
        metrics: What to measure; by default what the truth allows: classification; with masks, also overlap; with
            numbered objects, also counts and objects; with boxes or points, also counts and detection; with masks and
            predicted points, also detection.
        distance: Largest distance in pixels between a point and the centre of the true object that it hits, for a
            metric `detection` that names none.
        instances: Whether the masks contain numbered true objects; otherwise these are the connected components. None:
            the same, but masks that look numbered are refused.

    Raises:
        ConfigError: If `instances` is None, and a mask has several values other than 0.
        DataError: If there is no table of predictions or no truth, or the truth has other classes.
    """
    table = _read_table(predictions / TABLE)
    classes = tuple(dict.fromkeys(row["class"] for rows in table.values() for row in rows))
    contact = read_contact_classes(predictions)
    known = _read_truth(truth, classes, instances)
    points = _read_points(predictions / POINTS, classes)
    metrics = _with_distance(metrics or _default_metrics(known, points is not None), distance)
    points = points or _read_points(predictions / OBJECTS, classes)
    built = [registry.build("metric", choice.name, **choice.params) for choice in metrics]
    statistics: dict[str, list[Statistics]] = {}
    failures: dict[str, str] = {}
    for name, rows in table.items():
        try:
            prediction = _prediction(predictions, name, rows, classes, points)
            sample = _truth_sample(known, name, classes, prediction)
            statistics[name] = [metric.measure(prediction, sample) for metric in built]
        except ConfigError:  # of the whole call, not of one image
            raise
        except Exception as error:  # a plugin's metric may raise anything; the other images are still evaluated
            failures[name] = str(error) if isinstance(error, MicraframeError) else f"{type(error).__name__}: {error}"
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
        found = summarise(metric, stacked, [classes.index(name) for name in contact if name in classes])
        records += ({"component": choice.name, **each.record()} for each in measured_numbers(found, classes))
        if isinstance(metric, DetectionMetric) and not np.isnan(stacked["detection_true"]).all():
            curves = dict(zip(classes, pooled_curves(stacked), strict=True))
    return Evaluation(records, measured, curves, len(statistics), failures)


def measured_numbers(found: Iterable[Reduced], classes: Sequence[str]) -> Iterator[MeasuredNumber]:
    """Yield the numbers of each metric: those of each class and, if there are several, one over all of them."""
    for each in found:
        rows: list[tuple[str, Any, Any]] = list(zip(classes, each.per_class, each.images_per_class, strict=True))
        if len(classes) > 1:
            rows.append(("all", each.overall, each.images))
        for class_, value, images in rows:
            yield MeasuredNumber(each.column.name, class_, float(value), int(images), each.reduction)


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
    rows = _dict_rows(path, "; name a folder that `micraframe predict` wrote")
    needed = {"image", "class", "presence", "present"}
    if not rows or not needed <= rows[0].keys():
        raise DataError(f"{path}: expected rows with the columns {', '.join(sorted(needed))}")
    table: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        table[row["image"]].append(row)
    return dict(table)


def _dict_rows(path: Path, hint: str = "") -> list[dict[str, str]]:
    """Return the rows of a table that `predict` wrote, and a spreadsheet may have saved again with a mark in front."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}{hint}") from error


def _read_truth(path: Path, classes: tuple[str, ...], instances: bool | None) -> Truth:
    """Read the table of the truth, if it is one, and check what concerns all images at once."""
    if path.is_dir():
        return Truth(path, None, (), instances)
    if not path.is_file():
        raise DataError(f"{path}: expected a folder of masks, or a CSV of labels, boxes or points")
    rows = read_table(path)
    header = set(columns_of(rows))
    columns: tuple[str, ...] = ()
    if set(BOX_COLUMNS) <= header:
        columns = BOX_COLUMNS
    elif set(POINT_COLUMNS) <= header and not set(CROP_COLUMNS) <= header:
        columns = POINT_COLUMNS
    if not columns or (CLASS_COLUMN not in header and len(classes) == 1):
        return Truth(path, rows, columns, instances)
    if CLASS_COLUMN not in header:
        raise DataError(f"{path}: expected a column {CLASS_COLUMN!r} with {', '.join(classes)}, got none")
    named = named_classes(rows)
    others, missing = sorted(named - {*classes}), [name for name in classes if name not in named]
    if others and missing:  # a class may be absent, and others of no interest, but not both: names differ
        raise DataError(
            f"{path}: expected the model's classes {', '.join(classes)} in column {CLASS_COLUMN!r}, got "
            f"{', '.join(sorted(named))}; rename them in the table"
        )
    return Truth(path, rows, columns, instances)


def _default_metrics(truth: Truth, has_points: bool) -> list[Choice]:
    names = [PRESENCE]
    if truth.columns:
        names += [COUNTS, POSITIONS]
    elif truth.rows is None:
        names += [MASKS, *([COUNTS, OBJECTWISE] if truth.instances else ()), *([POSITIONS] if has_points else ())]
    return [Choice(name=name) for name in names]


def _with_distance(metrics: Iterable[Choice], distance: float) -> list[Choice]:
    """Return the metrics, with the distance for a metric `detection` that does not name one."""
    asked = (POSITIONS, POSITIONS.partition("/")[2])
    return [
        Choice(name=each.name, params={"distance": distance, **each.params}) if each.name in asked else each
        for each in metrics
    ]


def _read_points(path: Path, classes: tuple[str, ...]) -> dict[str, tuple[FloatArray, ...]] | None:
    """Return the points, or the objects' centroids, by image and class; None without a table, or without scores."""
    if not path.exists():
        return None
    found: dict[str, list[list[tuple[float, ...]]]] = defaultdict(lambda: [[] for _ in classes])
    for row in _dict_rows(path):
        if row.get("score") == "":
            return None
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


def _truth_sample(truth: Truth, name: str, classes: tuple[str, ...], prediction: Prediction) -> Sample:
    stem = Path(name).stem
    if truth.rows is not None:
        if stem not in truth.rows:
            hint = "; add a row, with empty cells if the image has no object" if truth.columns else ""
            raise DataError(f"{truth.path}: expected a row for the image {name!r}, got none{hint}")
        image, rows = np.zeros((1, 1, 1), np.float32), truth.rows[stem]
        if not truth.columns:
            return Sample(name, image, labels=np.array(row_labels(stem, rows, classes, truth.path)))
        rows = rows_of_classes(rows, classes)
        size = ANYWHERE if prediction.masks is None else prediction.masks.shape[1:]
        objects = row_objects(rows, truth.columns, classes, (size[0], size[1]))
        present = np.array([len(part) > 0 for part in objects])
        is_box = truth.columns == BOX_COLUMNS
        return Sample(
            name, image, labels=present, boxes=objects if is_box else None, points=None if is_box else objects
        )
    labels = truth_masks(truth.path, stem, classes)
    if truth.instances is None:
        refuse_numbered(labels, truth.path, f" in those of {name!r}")
    masks = labels != 0
    if prediction.masks is not None and prediction.masks.shape != masks.shape:
        raise DataError(
            f"{name}: expected predicted masks of shape (K, H, W) = {masks.shape}, as the truth has, got "
            f"{prediction.masks.shape}"
        )
    image = np.zeros((1, *masks.shape[1:]), np.float32)
    instances = labels if truth.instances else None
    return Sample(name, image, labels=np.asarray(masks.any((1, 2))), masks=masks, instances=instances)


def refuse_numbered(planes: IntArray, path: Path, where: str = "") -> None:
    """Check that the masks (K, H, W) of a file or folder do not look numbered.

    Raises:
        ConfigError: If a mask has several values other than 0.
    """
    if is_numbered(planes):
        raise ConfigError(
            f"{path}: expected binary masks, got {np.count_nonzero(np.unique(planes))} values other than 0{where}; add "
            "--instances if they number objects, or --binary if each of them means the class"
        )


def truth_masks(truth: Path, stem: str, classes: tuple[str, ...]) -> IntArray:
    """Return the masks of an image, int32 (K, H, W), by its file name without suffix, from a folder of truth.

    `evaluate_files` describes the folder.

    Raises:
        DataError: If there is no mask, or masks do not fit each other or the classes.
    """
    if (whole := find(truth, stem)) is not None:
        masks = read_planes(whole)
        if len(masks) != len(classes):
            raise DataError(
                f"{whole}: expected {len(classes)} masks, one for each of {', '.join(classes)}, got {len(masks)}"
            )
        return masks
    parts = {class_: find(truth / class_, stem) for class_ in classes if (truth / class_).is_dir()}
    found = {class_: read_labels(path) for class_, path in parts.items() if path is not None}
    if not found:
        others = [path for folder in (truth, *(truth / name for name in classes)) for path in image_files(folder)]
        hint = f"; the first of {counted(len(others), 'mask')} is {others[0].name}" if others else ", and no other mask"
        raise DataError(
            f"{truth}: expected a mask {stem}.* there or in folders named {', '.join(classes)}, got none{hint}; "
            "name masks like the images"
        )
    if len({mask.shape for mask in found.values()}) > 1:
        sizes = ", ".join(f"{class_} {mask.shape}" for class_, mask in found.items())
        raise DataError(f"{truth}: expected masks {stem}.* of the same size, got {sizes}")
    # No file for a class: the class is not in this image.
    empty = np.zeros_like(next(iter(found.values())))
    return np.stack([found.get(class_, empty) for class_ in classes])
