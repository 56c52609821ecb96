"""Rows, and what is made of them: means over images with their intervals, and means over seeds."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from micraframe.files import atomic
from micraframe.statistics import bootstrap_mean


@dataclass(frozen=True)
class Row:
    """One number: of one image and class, of one method that learned with one seed from one annotation."""

    dataset: str
    annotator: str
    method: str
    seed: int
    image: str
    class_: str
    metric: str
    value: float


@dataclass(frozen=True)
class Summary:
    """A metric's mean over the test images, with its 95 % bootstrap interval.

    Attributes:
        dataset: The dataset.
        annotator: What the method was told.
        method: The method.
        metric: The metric.
        mean: Mean over images of the mean over the classes and seeds for which the metric is defined there.
        low: Lower end of the interval, images being resampled.
        high: Upper end.
        n: Number of images for which it is defined.
        seeds: Number of seeds.
        seed_sd: Standard deviation of the seeds' means; NaN for one seed.
    """

    dataset: str
    annotator: str
    method: str
    metric: str
    mean: float
    low: float
    high: float
    n: int
    seeds: int
    seed_sd: float


def summarise(rows: Iterable[Row], resamples: int = 10_000) -> list[Summary]:
    """Summarise rows per dataset, annotator, method and metric, in order of first appearance."""
    groups: dict[tuple[str, str, str, str], dict[int, dict[str, list[float]]]] = {}
    for row in rows:
        seeds = groups.setdefault((row.dataset, row.annotator, row.method, row.metric), {})
        seeds.setdefault(row.seed, defaultdict(list)).setdefault(row.image, []).append(row.value)
    summaries = []
    for (dataset, annotator, method, metric), seeds in groups.items():
        images = list(dict.fromkeys(image for by_image in seeds.values() for image in by_image))
        table = np.array([[_mean(by_image.get(image, [])) for image in images] for by_image in seeds.values()])
        per_image = [_mean(column) for column in table.T]
        defined = np.array([value for value in per_image if not math.isnan(value)])
        mean, low, high = bootstrap_mean(defined, seed=0, resamples=resamples) if defined.size else (math.nan,) * 3
        seed_means = [_mean(row) for row in table]
        spread = float(np.std(seed_means, ddof=1)) if len(seed_means) > 1 else math.nan
        summaries.append(Summary(dataset, annotator, method, metric, mean, low, high, defined.size, len(seeds), spread))
    return summaries


def write_csv(path: Path, records: Sequence[Any], kind: type[Any]) -> None:
    """Write frozen dataclasses as CSV, atomically; NaN is an empty cell."""
    names = [field.name for field in fields(kind)]
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([name.rstrip("_") for name in names])
        for record in records:
            values = asdict(record)
            writer.writerow([_cell(values[name]) for name in names])


def read_rows(path: Path) -> list[Row]:
    """Read what `write_csv` wrote of rows."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [_row(record) for record in csv.DictReader(stream)]


def _row(record: Mapping[str, str]) -> Row:
    return Row(
        record["dataset"],
        record["annotator"],
        record["method"],
        int(record["seed"]),
        record["image"],
        record["class"],
        record["metric"],
        float(record["value"]) if record["value"] else math.nan,
    )


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        # Nine digits give every float32 back; more would be noise.
        return "" if math.isnan(value) else format(value, ".9g")
    return value
