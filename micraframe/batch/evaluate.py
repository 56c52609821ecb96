"""Compares a folder of predictions with the truth."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from micraframe import registry
from micraframe.batch.predict import TABLE
from micraframe.datasets.tables import Rows, labels_of, read_table
from micraframe.errors import DataError, MicraframeError
from micraframe.images import IMAGE_SUFFIXES, read_labels
from micraframe.metrics import evidence
from micraframe.types import BoolArray, FloatArray, Prediction, Sample


@dataclass(frozen=True)
class Measured:
    """One number of one image and class; NaN where it is undefined."""

    image: str
    class_: str
    metric: str
    value: float


def evaluate_files(predictions: Path, truth: Path) -> tuple[list[Measured], dict[str, str]]:
    """Measure what `predict_files` wrote.

    Args:
        predictions: The folder that it wrote to.
        truth: A CSV of labels as the dataset `folder` reads it: image names, and a column of 0 and 1 per class or one
            column `class`; or a folder of masks named as the images are: for one class `NAME.png`, for several
            `CLASS/NAME.png` or `NAME.tif` of shape (K, H, W). Whatever is not 0 is the class.

    Returns:
        The numbers, and what went wrong by the name of the image.

    Raises:
        DataError: If there is no table of predictions or no truth.
    """
    table = _read_table(predictions / TABLE)
    classes = tuple(dict.fromkeys(row["class"] for rows in table.values() for row in rows))
    labels = read_table(truth) if truth.is_file() else None
    if labels is None and not truth.is_dir():
        raise DataError(f"{truth} is neither a CSV of labels nor a folder of masks")
    metrics = [registry.build("metric", name) for name in ("classification", "overlap")]
    measured: list[Measured] = []
    ranked: list[tuple[str, FloatArray, BoolArray | None]] = []
    failures: dict[str, str] = {}
    for name, rows in table.items():
        try:
            prediction = _prediction(predictions, name, rows)
            sample = _truth_sample(truth, name, classes, labels, prediction)
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
    names, scores, told = zip(*ranked, strict=True) if ranked else ((), (), ())
    measured += [
        Measured(name, class_, metric_name, float(value))
        for metric_name, images in evidence.ranks(metrics, scores, told).items()
        for name, values in zip(names, images, strict=True)
        for class_, value in zip(classes, values, strict=True)
    ]
    return measured, failures


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


def _prediction(folder: Path, name: str, rows: list[dict[str, str]]) -> Prediction:
    masks = None
    path = folder / f"{Path(name).stem}.tif"
    if path.exists():
        masks = read_labels(path) != 0
        masks = masks if masks.ndim == 3 else masks[None]
    return Prediction(
        np.array([float(row["score"]) for row in rows], np.float32),
        np.array([row["decision"] == "1" for row in rows]),
        masks,
    )


def _truth_sample(
    truth: Path, name: str, classes: tuple[str, ...], labels: Rows | None, prediction: Prediction
) -> Sample:
    stem = Path(name).stem
    if labels is not None:
        if stem not in labels:
            raise DataError(f"{truth} has no line for the image {name!r}")
        told = np.array(labels_of(stem, labels[stem], classes, truth))
        return Sample(name, np.zeros((1, 1, 1), np.float32), labels=told)
    masks = _truth_masks(truth, stem, classes)
    if prediction.masks is not None and prediction.masks.shape != masks.shape:
        raise DataError(
            f"{name}: the prediction has masks of shape (K, H, W) = {prediction.masks.shape}, the truth {masks.shape}"
        )
    image = np.zeros((1, *masks.shape[1:]), np.float32)
    return Sample(name, image, labels=np.asarray(masks.any((1, 2))), masks=masks)


def _truth_masks(truth: Path, stem: str, classes: tuple[str, ...]) -> BoolArray:
    whole = _find(truth, stem)
    if whole is not None:
        masks: BoolArray = read_labels(whole) != 0
        masks = masks if masks.ndim == 3 else masks[None]
        if len(masks) != len(classes):
            raise DataError(f"{whole}: {len(masks)} masks; the model has the {len(classes)} classes {classes}")
        return masks
    parts = {class_: _find(truth / class_, stem) for class_ in classes}
    found = {class_: read_labels(path) != 0 for class_, path in parts.items() if path is not None}
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
