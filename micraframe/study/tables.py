"""Rows, and what is made of them: means over images with their intervals, and tests of the differences."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe.files import atomic
from micraframe.statistics import bootstrap_difference, bootstrap_mean, compare
from micraframe.types import FloatArray


@dataclass(frozen=True)
class Row:
    """One number: of one image and class, of one method that learned with one seed from one annotation.

    `thresholds` says where the method's thresholds came from: `fixed`, `validation` or `oracle`. Images of one `group`,
    such as crops of one field, are not independent.
    """

    dataset: str
    annotator: str
    method: str
    seed: int
    thresholds: str
    image: str
    group: str
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
        thresholds: Where its thresholds came from: `fixed`, `validation`, or `oracle`, which is no result.
        metric: The metric.
        mean: Mean over images of the mean over the classes and seeds for which the metric is defined there.
        low: Lower end of the interval, groups of images being resampled.
        high: Upper end.
        n: Number of images for which it is defined.
        groups: Number of groups that these are of.
        seeds: Number of seeds.
        seed_sd: Standard deviation of the seeds' means; NaN for one seed.
    """

    dataset: str
    annotator: str
    method: str
    thresholds: str
    metric: str
    mean: float
    low: float
    high: float
    n: int
    groups: int
    seeds: int
    seed_sd: float


@dataclass(frozen=True)
class Difference:
    """What a test says of methods that saw the same test images, by their means over classes and seeds.

    Attributes:
        dataset: The dataset.
        metric: The metric.
        thresholds: Where the methods' thresholds came from.
        test: `F`, of all methods together, or `randomisation`, of a pair, which follows if F is significant.
        first: A method and what it was told; empty for F.
        second: The other one.
        statistic: F, or the difference of the means, first minus second.
        low: Lower end of the difference's 95 % bootstrap interval, groups of images being resampled; NaN for F.
        high: Upper end.
        p: How often chance makes as much, the values of whole groups of images being exchanged between methods.
        p_holm: After Holm's correction for all pairs of this dataset and metric; NaN for F.
        n: Number of images for which the metric is defined for any of the methods.
        groups: Number of groups that these are of.
    """

    dataset: str
    metric: str
    thresholds: str
    test: str
    first: str
    second: str
    statistic: float
    low: float
    high: float
    p: float
    p_holm: float
    n: int
    groups: int


class Group(NamedTuple):
    """What is summarised together: one contender on one dataset, with thresholds of one origin."""

    dataset: str
    annotator: str
    method: str
    thresholds: str

    @property
    def contender(self) -> str:
        """The contender's name: its method, and what it was told."""
        return f"{self.method} ({self.annotator})"


class Values:
    """The values of all groups and metrics per seed and image, means over classes."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._images: dict[str, dict[str, str]] = {}
        self._found: dict[Group, dict[str, dict[int, dict[str, float]]]] = {}
        for (dataset, annotator, method, thresholds, seed, image, cluster), some in groupby(rows, _of_one_prediction):
            group = Group(dataset, annotator, method, thresholds)
            self._images.setdefault(dataset, {}).setdefault(image, cluster)
            by_metric: dict[str, list[float]] = {}
            for row in some:
                by_metric.setdefault(row.metric, []).append(row.value)
            for metric, values in by_metric.items():
                seeds = self._found.setdefault(group, {}).setdefault(metric, {})
                seeds.setdefault(seed, {})[image] = _mean(values)

    def groups(self) -> tuple[Group, ...]:
        """Return the groups in order of first appearance."""
        return tuple(self._found)

    def metrics(self, group: Group) -> tuple[str, ...]:
        """Return the metrics that were measured of a group."""
        return tuple(self._found[group])

    def images(self, dataset: str) -> tuple[str, ...]:
        """Return the names of a dataset's test images in their order."""
        return tuple(self._images[dataset])

    def clusters(self, dataset: str) -> tuple[str, ...]:
        """Return the groups that a dataset's test images are of, in the images' order."""
        return tuple(self._images[dataset].values())

    def table(self, group: Group, metric: str) -> npt.NDArray[np.float64]:
        """Return the values (seeds, images of the dataset), NaN where undefined."""
        seeds = self._found[group][metric].values()
        images = self.images(group.dataset)
        return np.array([[by_image.get(image, math.nan) for image in images] for by_image in seeds])

    def per_image(self, group: Group, metric: str) -> npt.NDArray[np.float64]:
        """Return the means over seeds, (images of the dataset,), NaN where undefined."""
        return np.array([_mean(column) for column in self.table(group, metric).T])


def summarise(values: Values, resamples: int = 10_000) -> list[Summary]:
    """Summarise per group and metric, in order of first appearance."""
    summaries = []
    for group in values.groups():
        for metric in values.metrics(group):
            table = values.table(group, metric)
            found, clusters = values.per_image(group, metric), values.clusters(group.dataset)
            interval = bootstrap_mean(found, seed=0, resamples=resamples, clusters=clusters)
            means = [_mean(row) for row in table]
            spread = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
            sizes = _sizes(~np.isnan(found), clusters)
            summaries.append(Summary(*group, metric, *interval, *sizes, len(means), spread))
    return summaries


def differences(values: Values, metrics: Sequence[str], resamples: int = 10_000) -> list[Difference]:
    """Compare the contenders of each dataset by these metrics, thresholds of one origin with one another.

    Those of the oracle are not compared: what saw the test labels ranks nowhere.
    """
    found = []
    for dataset in dict.fromkeys(group.dataset for group in values.groups()):
        for origin in ("fixed", "validation"):
            mine = [group for group in values.groups() if (group.dataset, group.thresholds) == (dataset, origin)]
            for metric in metrics:
                arrays = {
                    group.contender: values.per_image(group, metric)
                    for group in mine
                    if metric in values.metrics(group)
                }
                arrays = {name: array for name, array in arrays.items() if not np.isnan(array).all()}
                if len(arrays) > 1:
                    found += _differences(dataset, metric, origin, arrays, values.clusters(dataset), resamples)
    return found


def write_csv(path: Path, records: Iterable[Any], kind: type[Any]) -> None:
    """Write frozen dataclasses as CSV, atomically; NaN is an empty cell."""
    names = [field.name for field in fields(kind)]
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([name.rstrip("_") for name in names])
        writer.writerows([_cell(getattr(record, name)) for name in names] for record in records)


def read_rows(path: Path) -> Iterator[Row]:
    """Yield what `write_csv` wrote of rows."""
    with path.open(newline="", encoding="utf-8") as stream:
        for record in csv.DictReader(stream):
            yield _row(record)


def _differences(
    dataset: str,
    metric: str,
    origin: str,
    arrays: Mapping[str, npt.NDArray[np.float64]],
    clusters: Sequence[str],
    resamples: int,
) -> list[Difference]:
    together = compare(arrays, seed=0, paired=True, resamples=resamples, clusters=clusters)
    named = (dataset, metric, origin)
    f, p = together.overall
    anywhere = np.asarray((~np.isnan(np.stack(list(arrays.values())))).any(axis=0))
    found = [Difference(*named, "F", "", "", f, math.nan, math.nan, p, math.nan, *_sizes(anywhere, clusters))]
    for first, second, difference, p, p_holm in together.pairs:
        a, b = arrays[first], arrays[second]
        _, low, high = bootstrap_difference(a, b, seed=0, resamples=resamples, clusters=clusters)
        sizes = _sizes(~(np.isnan(a) & np.isnan(b)), clusters)
        found.append(Difference(*named, "randomisation", first, second, difference, low, high, p, p_holm, *sizes))
    return found


def _sizes(chosen: npt.NDArray[np.bool_], clusters: Sequence[str]) -> tuple[int, int]:
    """Return how many images are chosen, bool (N,), and of how many clusters they are."""
    return int(chosen.sum()), len({cluster for cluster, is_chosen in zip(clusters, chosen, strict=True) if is_chosen})


def _of_one_prediction(row: Row) -> tuple[str, str, str, str, int, str, str]:
    return row.dataset, row.annotator, row.method, row.thresholds, row.seed, row.image, row.group


def _row(record: Mapping[str, str]) -> Row:
    return Row(
        record["dataset"],
        record["annotator"],
        record["method"],
        int(record["seed"]),
        record["thresholds"],
        record["image"],
        record["group"],
        record["class"],
        record["metric"],
        float(record["value"]) if record["value"] else math.nan,
    )


def _mean(values: Iterable[float] | FloatArray) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        # Nine digits give every float32 back; more would be noise.
        return "" if math.isnan(value) else format(value, ".9g")
    return value
