"""The tables of a study: statistics of images, their summaries with intervals, tests of differences, and costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from micraframe.interfaces import Column, Metric, Statistics, ratio_parts
from micraframe.metrics.reduction import mean_defined, means_defined, per_image
from micraframe.runtime.files import atomic
from micraframe.statistics import (
    RESAMPLES,
    Interval,
    Reduce,
    bootstrap,
    bootstrap_difference,
    bootstrap_function,
    compare,
)

ROWS: Final = pl.Schema(
    {
        "dataset": pl.String(),
        "annotator": pl.String(),
        "method": pl.String(),
        "seed": pl.Int64(),
        "thresholds": pl.String(),
        "image": pl.String(),
        "group": pl.String(),
        "class": pl.String(),
        "metric": pl.String(),
        "value": pl.Float64(),
    }
)
"""The columns of `rows.csv`: one statistic of one image and class. Most statistics are metrics of that image; the
others, such as counts of objects, are what pooled metrics are computed from. Images of one `group`, such as crops of
one field, are not independent."""

REEVALUATIONS: Final = 200
"""Resamples for the interval of a metric that must be computed anew from each of them; others have `RESAMPLES`."""

Double = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """A metric over the test images, with its 95 % bootstrap interval.

    Attributes:
        dataset: The dataset.
        annotator: The training annotation.
        method: The method.
        thresholds: Origin of the thresholds: `fixed`, `validation`, or `oracle`, an upper bound and never a result.
        metric: The metric.
        mean: The number: a mean over images of the mean over classes and seeds, each where defined; or, for a metric
            that is pooled over images, the mean over seeds of the mean over classes.
        low: Lower end of the interval; groups of images are resampled.
        high: Upper end.
        n: Number of images for which it is defined.
        groups: Number of groups that these belong to.
        seeds: Number of seeds.
        seed_sd: Standard deviation of the seeds' numbers; NaN for one seed.
        resamples: Number of bootstrap resamples.
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
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class Difference:
    """A test of methods that saw the same test images, by their numbers as in `Summary`.

    Attributes:
        dataset: The dataset.
        metric: The metric.
        thresholds: Origin of the methods' thresholds.
        test: `F`, of all methods together, or `randomisation`, of a pair, which follows if F is significant.
        first: A method and its training annotation; empty for F.
        second: The other one.
        statistic: F (NaN for a pooled metric, whose p is by the variance of the methods' numbers), or first minus
            second.
        low: Lower end of the difference's 95 % bootstrap interval; groups of images are resampled; NaN for F.
        high: Upper end.
        p: Share of exchanges of groups of images between methods that give at least as large a statistic.
        p_holm: After Holm's correction for all pairs of this dataset and metric; NaN for F.
        n: Number of images for which the metric is defined for any of the methods.
        groups: Number of groups that these belong to.
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


@dataclass(frozen=True)
class CostRow:
    """The cost of a run's annotation: of its training and validation samples, and of tuning images where tuned.

    Attributes:
        dataset: The dataset.
        annotator: The training annotation.
        method: The method.
        seed: The seed.
        thresholds: `fixed`, or `validation`, which includes the annotation of the tuning images.
        decisions: Crops judged, points set, or edge pixels drawn.
        seconds: Annotation time at the study's prices.
        seconds_low: The lowest plausible.
        seconds_high: The highest plausible.
    """

    dataset: str
    annotator: str
    method: str
    seed: int
    thresholds: str
    decisions: int
    seconds: float
    seconds_low: float
    seconds_high: float


class Group(NamedTuple):
    """What is summarised together: one method with one annotation on one dataset, with thresholds of one origin."""

    dataset: str
    annotator: str
    method: str
    thresholds: str

    @property
    def name(self) -> str:
        """The method and its training annotation."""
        return f"{self.method} ({self.annotator})"


class Values:
    """The statistics of all images, by group, seed and metric.

    Args:
        rows: The table of the columns `ROWS`.
        metrics: The metrics that measured them.
    """

    def __init__(self, rows: pl.DataFrame, metrics: Sequence[Metric[Any]]) -> None:
        self._metric = {column.name: metric for metric in metrics for column in metric.columns()}
        self._column = {column.name: column for metric in metrics for column in metric.columns()}
        self._images: dict[str, dict[str, str]] = {}
        self._statistics: dict[Group, dict[int, dict[str, Double]]] = {}
        for (dataset,), part in rows.partition_by(["dataset"], maintain_order=True, as_dict=True).items():
            images = part.select("image", "group").unique("image", keep="first", maintain_order=True)
            self._images[str(dataset)] = dict(images.iter_rows())
            self._add(part)

    def _add(self, part: pl.DataFrame) -> None:
        """Add the rows of one dataset."""
        part = part.with_columns(row=_codes(part["image"]), column=_codes(part["class"]))
        shape = part["image"].n_unique(), part["class"].n_unique()
        names = ["dataset", "annotator", "method", "thresholds", "seed", "metric"]
        for key, some in part.partition_by(names, maintain_order=True, as_dict=True).items():
            *group, seed, name = key
            table = np.full(shape, np.nan)
            table[some["row"].to_numpy(), some["column"].to_numpy()] = some["value"].to_numpy()
            self._statistics.setdefault(Group(*map(str, group)), {}).setdefault(seed, {})[str(name)] = table

    def groups(self) -> tuple[Group, ...]:
        """Return the groups in order of first appearance."""
        return tuple(self._statistics)

    def metrics(self, group: Group) -> tuple[str, ...]:
        """Return the names of the metrics that were measured of a group."""
        seeds = list(self._statistics[group].values())
        return tuple(
            name
            for name, column in self._column.items()
            if all(needed in found for found in seeds for needed in _needed(column))
        )

    def column(self, name: str) -> Column:
        """Return a metric's column."""
        return self._column[name]

    def images(self, dataset: str) -> tuple[str, ...]:
        """Return the names of a dataset's test images in their order."""
        return tuple(self._images[dataset])

    def clusters(self, dataset: str) -> tuple[str, ...]:
        """Return the group of each of a dataset's test images, in the images' order."""
        return tuple(self._images[dataset].values())

    def statistics(self, group: Group) -> tuple[Statistics, ...]:
        """Return, for each seed, the statistics by name, each (images of the dataset, K)."""
        return tuple(self._statistics[group].values())

    def table(self, group: Group, metric: str) -> Double:
        """Return a metric's values (seeds, images of the dataset), NaN where undefined.

        A pooled ratio has each image's own ratio here; another pooled metric has no value of a single image.
        """
        column = self._column[metric]
        found = []
        for statistics in self.statistics(group):
            if column.is_mean:
                found.append(per_image(column, statistics))
            elif column.pooled:
                found.append(np.full(len(self._images[group.dataset]), np.nan))
            else:
                numerator, denominator = ratio_parts(column, statistics)
                found.append(means_defined(_ratios(numerator, denominator)))
        return np.array(found)

    def per_image(self, group: Group, metric: str) -> Double:
        """Return a metric's means over seeds, (images of the dataset,), NaN where undefined."""
        return means_defined(self.table(group, metric).T)

    def estimate(self, group: Group, metric: str) -> Estimate:
        """Return a metric's number with what its interval and tests need."""
        column, statistics = self._column[metric], self.statistics(group)
        return Estimate(column, self._metric[metric], statistics)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric of one group.

    Attributes:
        column: The metric's column.
        metric: The metric.
        statistics: Of each seed, by name, each (N, K).
    """

    column: Column
    metric: Metric[Any]
    statistics: tuple[Statistics, ...]

    @cached_property
    def parts(self) -> Double:
        """What is summed over images.

        A mean has a value for each image, (N,), NaN where undefined; a pooled ratio has numerators and denominators of
        all seeds and classes, (N, 2 x seeds x K).
        """
        if self.column.is_mean:
            return means_defined(np.array([per_image(self.column, each) for each in self.statistics]).T)
        parts = np.array([ratio_parts(self.column, each) for each in self.statistics])  # seeds, 2, N, K
        return np.ascontiguousarray(parts.transpose(2, 0, 3, 1)).reshape(parts.shape[2], -1)

    @property
    def reduce(self) -> Reduce | None:
        """How sums of `parts` become the number; None for a mean."""
        return None if self.column.is_mean else self._ratio

    @property
    def seed_numbers(self) -> Double:
        """The number of each seed."""
        if self.column.is_mean:
            return np.array([mean_defined(per_image(self.column, each)) for each in self.statistics])
        if self.column.pooled:
            return self.reduced([self.column.name])[:, 0]
        return means_defined(self._seed_ratios(self.parts.sum(axis=0)))

    def reduced(self, names: Sequence[str], images: npt.NDArray[np.intp] | None = None) -> Double:
        """Return what the metric itself computes for each seed and column, (seeds, columns).

        Args:
            names: The columns.
            images: Indices of the images, some perhaps repeated; None: all.
        """
        found = []
        for each in self.statistics:
            chosen = each if images is None else {name: np.asarray(table)[images] for name, table in each.items()}
            numbers = self.metric.reduce(chosen)
            found.append([mean_defined(np.asarray(numbers[name], np.float64)) for name in names])
        return np.array(found)

    @cached_property
    def defined(self) -> npt.NDArray[np.bool_]:
        """Which images count, bool (N,)."""
        if self.column.pooled:
            known = [~np.isnan(np.asarray(values)) for each in self.statistics for values in each.values()]
            return np.asarray(np.any([values.any(axis=1) for values in known], axis=0))
        parts = self.parts
        return np.asarray(~np.isnan(parts) if parts.ndim == 1 else (parts[:, 1::2] > 0).any(axis=1))

    def _ratio(self, sums: Double) -> Double:
        """Return the mean over seeds of the mean over classes of ratios of sums, (..., 2 x seeds x K) to (...)."""
        return means_defined(means_defined(self._seed_ratios(sums)))

    def _seed_ratios(self, sums: Double) -> Double:
        """Return ratios of sums, (..., 2 x seeds x K) to (..., seeds, K)."""
        shaped = sums.reshape(*sums.shape[:-1], len(self.statistics), -1, 2)
        return _ratios(shaped[..., 0], shaped[..., 1])


@dataclass(frozen=True, eq=False)
class StudyTables:
    """The results of a study's completed runs.

    Attributes:
        values: The statistics of all images.
        summaries: Every metric of every group.
        differences: Tests of the compared metrics.
        costs: Annotation of every run.
    """

    values: Values
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]
    costs: tuple[CostRow, ...]


def summarise(values: Values, resamples: int = RESAMPLES, reevaluations: int = REEVALUATIONS) -> list[Summary]:
    """Summarise per group and metric, in order of first appearance."""
    summaries = []
    for group in values.groups():
        clusters = values.clusters(group.dataset)
        estimates = {name: values.estimate(group, name) for name in values.metrics(group)}
        pooled = _pooled_intervals(estimates, clusters, reevaluations)
        for name, estimate in estimates.items():
            if name in pooled:
                interval, drawn = pooled[name], reevaluations
            else:
                interval = bootstrap(estimate.parts, 0, resamples, clusters=clusters, reduce=estimate.reduce)
                drawn = resamples
            numbers = estimate.seed_numbers
            spread = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else math.nan
            sizes = _sizes(estimate.defined, clusters)
            summaries.append(Summary(*group, name, *interval, *sizes, len(numbers), spread, drawn))
    return summaries


def differences(values: Values, metrics: Sequence[str], resamples: int = RESAMPLES) -> list[Difference]:
    """Compare the methods of each dataset by these metrics, with thresholds of one origin.

    Oracle thresholds are not compared: they use test labels. Nor are metrics that no sums over images express.
    """
    found = []
    for dataset in dict.fromkeys(group.dataset for group in values.groups()):
        for origin in ("fixed", "validation"):
            mine = [group for group in values.groups() if (group.dataset, group.thresholds) == (dataset, origin)]
            for metric in (name for name in metrics if not values.column(name).pooled):
                estimates = {
                    group.name: values.estimate(group, metric) for group in mine if metric in values.metrics(group)
                }
                estimates = {name: each for name, each in estimates.items() if each.defined.any()}
                if len(estimates) > 1:
                    found += _differences((dataset, metric, origin), estimates, values.clusters(dataset), resamples)
    return found


def write_csv(path: Path, table: pl.DataFrame) -> None:
    """Write a table as CSV, atomically; NaN and empty text are empty fields."""
    # Nine digits give every float32 back; more would be noise.
    texts = [
        pl.Series(column.name, [None if math.isnan(value) else format(value, ".9g") for value in column], pl.String)
        for column in table
        if column.dtype == pl.Float64
    ]
    with atomic(path) as temporary:
        table.with_columns(texts).with_columns(pl.col(pl.String).replace("", None)).write_csv(temporary)


def table_of(records: Iterable[Any], kind: type[Any]) -> pl.DataFrame:
    """Return records of one frozen dataclass as a table."""
    types = {"str": pl.String, "int": pl.Int64, "float": pl.Float64}
    schema = {field.name: types[str(field.type)] for field in fields(kind)}
    return pl.DataFrame([astuple(record) for record in records], schema, orient="row")


def read_csv(path: Path, names: Iterable[str]) -> pl.DataFrame:
    """Read these columns of `ROWS` from what `write_csv` wrote."""
    found = pl.read_csv(path, schema={name: ROWS[name] for name in names})
    return found.with_columns(pl.col(pl.String).fill_null(""), pl.col(pl.Float64).fill_null(math.nan))


def _pooled_intervals(
    estimates: Mapping[str, Estimate], clusters: Sequence[str], resamples: int
) -> dict[str, Interval]:
    """Return the intervals of the metrics that must be computed anew from each resample of the images."""
    found: dict[str, Interval] = {}
    by_metric: dict[int, list[str]] = {}
    for name, estimate in estimates.items():
        if estimate.column.pooled:
            by_metric.setdefault(id(estimate.metric), []).append(name)
    for names in by_metric.values():
        first = estimates[names[0]]

        def numbers(images: npt.NDArray[np.intp], first: Estimate = first, names: list[str] = names) -> Double:
            return means_defined(first.reduced(names, images).T)

        found |= dict(zip(names, bootstrap_function(numbers, clusters, 0, resamples), strict=True))
    return found


def _differences(
    named: tuple[str, str, str], estimates: Mapping[str, Estimate], clusters: Sequence[str], resamples: int
) -> list[Difference]:
    parts = {name: each.parts for name, each in estimates.items()}
    defined = {name: each.defined for name, each in estimates.items()}
    reduce = next(iter(estimates.values())).reduce
    together = compare(parts, 0, resamples=resamples, clusters=clusters, reduce=reduce)
    f, p = together.overall
    anywhere = _sizes(np.any(list(defined.values()), axis=0), clusters)
    found = [Difference(*named, "F", "", "", f, math.nan, math.nan, p, math.nan, *anywhere)]
    for first, second, difference, p, p_holm in together.pairs:
        _, low, high = bootstrap_difference(parts[first], parts[second], 0, resamples, clusters=clusters, reduce=reduce)
        sizes = _sizes(defined[first] | defined[second], clusters)
        found.append(Difference(*named, "randomisation", first, second, difference, low, high, p, p_holm, *sizes))
    return found


def _sizes(chosen: npt.NDArray[np.bool_], clusters: Sequence[str]) -> tuple[int, int]:
    """Return how many images are chosen, bool (N,), and to how many clusters they belong."""
    return int(chosen.sum()), len({cluster for cluster, is_chosen in zip(clusters, chosen, strict=True) if is_chosen})


def _needed(column: Column) -> tuple[str, ...]:
    """Return the statistics that a column is known to be computed from."""
    if column.pooled:
        return ()
    names = (column.numerator or column.name, column.denominator)
    return tuple(name for name in names if name)


def _codes(names: pl.Series) -> pl.Series:
    """Return the number of each name in order of first appearance."""
    known = {name: number for number, name in enumerate(names.unique(maintain_order=True))}
    return names.replace_strict(known, return_dtype=pl.Int64)


def _ratios(numerator: Double, denominator: Double) -> Double:
    """Return numerator / denominator; NaN where the denominator is 0."""
    return np.asarray(np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0))
