"""The tables of a study: statistics of images, their summaries with intervals, tests of differences, and costs.

A metric's number is computed for each trained model by itself, from that model's images, exactly as `evaluate` does.
Only then is it averaged over models. Intervals and tests are those of `micraframe.statistics`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from micraframe.interfaces import Column, Metric, Statistics, quotient, ratio_of_sums, ratio_parts
from micraframe.metrics.reduction import contributes, mean_defined, means_defined, per_image, without_classes
from micraframe.runtime.files import atomic
from micraframe.statistics import among, contrast, equivalence, estimate, f_test, holm, jackknifed, jackknifed_ratio
from micraframe.study.plan import CEILING, Pair

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

MOST_BLOCKS: Final = 200
"""Groups are left out one at a time, or, if there are more, in so many blocks."""

Double = npt.NDArray[np.float64]
_Booleans = npt.NDArray[np.bool_]
_Blocks = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Summary:
    """A metric over the test images, with its 95 % interval over trained models and groups of images.

    Attributes:
        dataset: The dataset.
        annotator: The training annotation.
        method: The method.
        thresholds: Origin of the thresholds, as in `Threshold`; `oracle` is an upper bound and never a result.
        metric: The metric.
        mean: The mean over trained models of each model's number: a mean over images of the mean over classes, each
            where defined; or, for a metric that is pooled over images, the mean over classes.
        low: Lower end of the interval.
        high: Upper end.
        n: Number of images for which it is defined.
        groups: Number of groups that these belong to.
        models: Number of trained models; one for a method without randomness.
        model_sd: Standard deviation of the models' numbers; NaN for one model.
        conditional: Whether there is one model of a method with randomness: the interval holds for that model alone.
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
    models: int
    model_sd: float
    conditional: bool


@dataclass(frozen=True)
class Difference:
    """A test of methods that saw the same test images, by their numbers as in `Summary`.

    Attributes:
        dataset: The dataset.
        metric: The metric.
        thresholds: Origin of the methods' thresholds.
        kind: `F`, of the ranked methods together; `planned`, of a pair that the study names, by the primary metric; or
            `exploratory`, of any other pair or metric, whose interval and p are not corrected for their number.
        first: A method and its training annotation; empty for F.
        second: The other one.
        difference: First minus second; F for kind `F`.
        low: Lower end of the difference's 95 % interval over trained models and groups of images; NaN for F.
        high: Upper end.
        p: Of no difference.
        p_holm: After Holm's correction for all planned comparisons on this dataset; NaN for others.
        margin: The largest difference that does not matter; NaN where none is declared, and for others than planned.
        p_equivalent: Of a difference of at least the margin, corrected likewise; small means equivalent.
        groups: Number of groups with images for which the metric is defined for any of the methods.
        models: Number of trained models of all methods compared; those that methods share count once.
        conditional: Whether one of the methods has randomness and a single trained model: see `Summary`.
    """

    dataset: str
    metric: str
    thresholds: str
    kind: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    margin: float
    p_equivalent: float
    groups: int
    models: int
    conditional: bool


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


@dataclass(frozen=True, eq=False)
class _Measured:
    """A metric of one group.

    Attributes:
        pseudo: float64 (M, B): pseudo-values of M trained models and B blocks of groups of images.
        defined: bool (N,): the images for which it is defined for any of the models.
    """

    pseudo: Double
    defined: _Booleans


class Values:
    """The statistics of all images, by group, seed and metric.

    Args:
        rows: The table of the columns `ROWS`.
        metrics: The metrics that measured them.
        models: Identity of the trained model of each dataset, annotator, method and seed, by which methods that share
            models are recognised; "" for a method without randomness. Runs left out have models of their own.
        columns: The columns that are asked for; None: all.
        contacts: The contact class of each dataset that has one. No mean over classes includes it.
    """

    def __init__(
        self,
        rows: pl.DataFrame,
        metrics: Sequence[Metric[Any]],
        models: Mapping[tuple[str, str, str, int], str] | None = None,
        columns: Collection[str] | None = None,
        contacts: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._owned = {
            column.name: (metric, column)
            for metric in metrics
            for column in metric.columns()
            if columns is None or column.name in columns
        }
        self._models = models or {}
        self._images: dict[str, dict[str, str]] = {}
        self._left_out: dict[str, list[int]] = {}
        self._statistics: dict[Group, dict[int, dict[str, Double]]] = {}
        self._measured: dict[Group, dict[str, _Measured]] = {}
        for (dataset,), part in rows.partition_by(["dataset"], maintain_order=True, as_dict=True).items():
            images = part.select("image", "group").unique("image", keep="first", maintain_order=True)
            self._images[str(dataset)] = dict(images.iter_rows())
            classes = part["class"].unique(maintain_order=True).to_list()
            self._left_out[str(dataset)] = [
                index for index, name in enumerate(classes) if name == contacts.get(str(dataset))
            ]
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

    def column(self, name: str) -> Column:
        """Return a metric's column."""
        return self._owned[name][1]

    def clusters(self, dataset: str) -> tuple[str, ...]:
        """Return the group of each of a dataset's test images, in the images' order."""
        return tuple(self._images[dataset].values())

    def blocks(self, dataset: str) -> _Blocks:
        """Return the block of groups that each of a dataset's test images belongs to, (N,)."""
        return _codes(pl.Series(self.clusters(dataset), dtype=pl.String)).to_numpy() % MOST_BLOCKS

    def sizes(self, dataset: str, defined: _Booleans) -> tuple[int, int]:
        """Return how many of a dataset's test images are chosen, bool (N,), and to how many groups they belong."""
        return int(defined.sum()), len(set(itertools.compress(self.clusters(dataset), defined)))

    def models(self, group: Group) -> tuple[str, ...]:
        """Return the identity of each trained model of a group; "" where there is no randomness."""
        seeds = self._statistics[group]
        keys = [self._models.get((*group[:3], seed), f"{group.name}, seed {seed}") for seed in seeds]
        # Different trainings do not agree in every statistic of every image.
        return ("",) if len(seeds) > 1 and _all_equal(list(seeds.values())) else tuple(keys)

    def statistics(self, group: Group) -> tuple[Statistics, ...]:
        """Return, for each seed, the statistics by name, each (images of the dataset, K)."""
        return tuple(self._statistics[group].values())

    def _averaged(self, group: Group) -> tuple[Statistics, ...]:
        """Return the statistics of `statistics`, NaN for the contact class."""
        return tuple(without_classes(each, self._left_out[group.dataset]) for each in self.statistics(group))

    def per_class(self, group: Group, metric: str) -> Double:
        """Return a metric's number for each class, (K,): the mean over seeds, NaN where undefined."""
        owner, column = self._owned[metric]
        numbers = [
            owner.reduce(_together(owner, each))[metric] if column.pooled else ratio_of_sums(column, each)
            for each in self.statistics(group)
        ]
        return means_defined(np.array(numbers, np.float64).T)

    def table(self, group: Group, metric: str) -> Double:
        """Return a metric's values (seeds, images of the dataset), NaN where undefined.

        A pooled ratio has each image's own ratio here; another pooled metric has no value of a single image.
        """
        column = self.column(metric)
        if column.pooled:
            return np.full((len(self._statistics[group]), len(self._images[group.dataset])), np.nan)
        return means_defined(np.moveaxis(quotient(*self._parts(column, self._averaged(group))), 1, -1))

    def measured(self, group: Group) -> Mapping[str, _Measured]:
        """Return every metric that was measured of a group, by name."""
        if group not in self._measured:
            self._measured[group] = dict(self._measure(group))
        return self._measured[group]

    def _measure(self, group: Group) -> Iterator[tuple[str, _Measured]]:
        models = len(self.models(group))
        statistics, averaged = self.statistics(group)[:models], self._averaged(group)[:models]
        blocks = self.blocks(group.dataset)
        for name, (metric, column) in self._owned.items():
            needed = {each for each in column.statistics if not each.endswith("@")}
            if all(needed <= each.keys() for each in statistics):
                if column.pooled:
                    yield name, _of_pooled(metric, column, statistics, blocks, self._left_out[group.dataset])
                else:
                    yield name, self._of_ratio(column, averaged, blocks)

    def _of_ratio(self, column: Column, statistics: Sequence[Statistics], blocks: _Blocks) -> _Measured:
        numerator, denominator = self._parts(column, statistics)
        members = (blocks[:, None] == np.arange(_count(blocks))).astype(np.float64)
        sums = zip(numerator @ members, denominator @ members, strict=True)
        pseudo = np.array([jackknifed_ratio(n, d) for n, d in sums])  # (M, classes, B)
        return _Measured(means_defined(np.moveaxis(pseudo, 1, -1)), np.any(denominator > 0, axis=(0, 1)))

    @staticmethod
    def _parts(column: Column, statistics: Sequence[Statistics]) -> tuple[Double, Double]:
        """Return what is summed over images, each (M, classes, N); a mean is over images, of classes taken together."""
        if column.is_mean:
            values = np.array([per_image(column, each) for each in statistics])[:, None]
            return np.nan_to_num(values), (~np.isnan(values)).astype(np.float64)
        parts = np.array([ratio_parts(column, each) for each in statistics]).transpose(1, 0, 3, 2)
        return parts[0], parts[1]


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


def summarise(values: Values) -> list[Summary]:
    """Summarise per group and metric, in order of first appearance."""
    summaries = []
    for group in values.groups():
        blocks, models = values.blocks(group.dataset), values.models(group)
        for name, measured in values.measured(group).items():
            pseudo = among(measured.pseudo, _contributing(measured.defined, blocks))
            found = estimate(pseudo, bounds=values.column(name).range)
            sizes = values.sizes(group.dataset, measured.defined)
            conditional = found.models == 1 and models != ("",)
            summaries.append(Summary(*group, name, *found[:3], *sizes, found.models, found.model_sd, conditional))
    return summaries


def differences(
    values: Values,
    metrics: Sequence[str],
    planned: Collection[Pair] = (),
    margin: float | None = None,
    ranked: Collection[tuple[str, str, str]] | None = None,
) -> list[Difference]:
    """Compare the methods of each dataset by these metrics, with thresholds of one origin.

    Oracle thresholds, which use test labels, are not compared, nor are ceilings.

    Args:
        values: The statistics.
        metrics: The primary metric, and others.
        planned: The pairs that the study names, as `planned_pairs` returns them.
        margin: The largest difference in the primary metric that does not matter.
        ranked: Dataset, annotator and method of those that the F test is about: no controls, and one of each that share
            a trained model; None: all.
    """
    found = []
    for dataset in dict.fromkeys(group.dataset for group in values.groups()):
        mine: list[Difference] = []
        for metric, origin in itertools.product(metrics, ("fixed", "validation")):
            groups = [
                group
                for group in values.groups()
                if (group.dataset, group.thresholds) == (dataset, origin)
                and group.method != CEILING
                and metric in values.measured(group)
                and values.measured(group)[metric].defined.any()
            ]
            if len(groups) > 1:
                tested = [group for group in groups if ranked is None or group[:3] in ranked]
                mine += _differences(values, groups, tested, metric, planned if metric == metrics[0] else (), margin)
        places = [place for place, each in enumerate(mine) if each.kind == "planned"]
        corrected = [holm([getattr(mine[place], name) for place in places]) for name in ("p", "p_equivalent")]
        for place, p, p_equivalent in zip(places, *corrected, strict=True):
            mine[place] = replace(mine[place], p_holm=float(p), p_equivalent=float(p_equivalent))
        found += mine
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
    types = {"str": pl.String, "int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean}
    schema = {field.name: types[str(field.type)] for field in fields(kind)}
    return pl.DataFrame([astuple(record) for record in records], schema, orient="row")


def read_csv(path: Path, names: Iterable[str]) -> pl.DataFrame:
    """Read these columns of `ROWS` from what `write_csv` wrote."""
    found = pl.read_csv(path, schema={name: ROWS[name] for name in names})
    return found.with_columns(pl.col(pl.String).fill_null(""), pl.col(pl.Float64).fill_null(math.nan))


def _together(metric: Metric[Any], statistics: Statistics) -> Statistics:
    """Return the statistics of a metric's pooled columns, which it computes together."""
    return {
        name: table for column in metric.columns() if column.pooled for name, table in column.select(statistics).items()
    }


def _of_pooled(
    metric: Metric[Any], column: Column, statistics: Sequence[Statistics], blocks: _Blocks, left_out: Sequence[int]
) -> _Measured:
    """Return what a metric reduces in its own way: it computes the column anew without each block of groups.

    The mean over classes does not include those that are left out.
    """

    def number(own: Statistics, kept: _Booleans) -> list[float]:
        reduced = metric.reduce({name: table[kept] for name, table in own.items()})
        return [mean_defined(np.delete(np.asarray(reduced[column.name], np.float64), left_out))]

    given = (_together(metric, each) for each in statistics)
    pseudo = np.concatenate([jackknifed(functools.partial(number, own), blocks) for own in given])
    defined = [np.delete(contributes(column, each), left_out, axis=1).any(axis=1) for each in statistics]
    return _Measured(pseudo, np.any(defined, axis=0))


def _differences(
    values: Values,
    groups: Sequence[Group],
    tested: Sequence[Group],
    metric: str,
    planned: Collection[Pair],
    margin: float | None,
) -> Iterator[Difference]:
    """Yield the F test of some groups and the contrast of each pair of all; p values are not corrected yet."""
    named = groups[0].dataset, metric, groups[0].thresholds
    blocks = values.blocks(groups[0].dataset)

    def compared(some: Sequence[Group]) -> tuple[list[Double], tuple[int, int, bool]]:
        measured = [values.measured(group)[metric] for group in some]
        defined = np.any([each.defined for each in measured], axis=0)
        pseudo = [among(each.pseudo, _contributing(defined, blocks)) for each in measured]
        keys = [values.models(group) for group in some]
        models = len({key for own in keys for key in own if key}) + sum("" in own for own in keys)
        defined_models = (int((~np.isnan(table[:, :1])).sum()) for table in pseudo)
        alone = any(count == 1 and own != ("",) for own, count in zip(keys, defined_models, strict=True))
        return pseudo, (values.sizes(groups[0].dataset, defined)[1], models, alone)

    nan = math.nan
    if len(tested) > 1:
        pseudo, sizes = compared(tested)
        f, _, p = f_test(pseudo)
        yield Difference(*named, "F", "", "", f, nan, nan, p, nan, nan, nan, *sizes)
    for one, other in itertools.combinations(groups, 2):
        if (other.name, one.name) in planned:
            one, other = other, one
        (first, second), sizes = compared((one, other))
        paired = values.models(one) == values.models(other) != ("",)
        found = contrast(first, second, paired=paired)
        is_planned = (one.name, other.name) in planned
        kind = "planned" if is_planned else "exploratory"
        limits = (margin, equivalence(found, margin)) if is_planned and margin else (nan, nan)
        yield Difference(*named, kind, one.name, other.name, *found[:3], found.p, nan, limits[0], limits[1], *sizes)


def _contributing(defined: _Booleans, blocks: _Blocks) -> _Booleans:
    """Return which blocks have any of these images, (N,) to (B,)."""
    return np.bincount(blocks, weights=defined, minlength=_count(blocks)) > 0


def _count(blocks: _Blocks) -> int:
    return int(blocks.max(initial=-1)) + 1


def _all_equal(statistics: Sequence[Mapping[str, Double]]) -> bool:
    first = statistics[0]
    return all(
        each.keys() == first.keys() and all(np.array_equal(each[name], first[name], equal_nan=True) for name in first)
        for each in statistics[1:]
    )


def _codes(names: pl.Series) -> pl.Series:
    """Return the number of each name in order of first appearance."""
    known = {name: number for number, name in enumerate(names.unique(maintain_order=True))}
    return names.replace_strict(known, return_dtype=pl.Int64)
