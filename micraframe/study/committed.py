"""Committed studies: what is kept of their results, and how a new method is compared with them without running them.

A committed study keeps two small files: `rows.csv.gz`, the statistics that its compared metrics need, and `runs.json`,
what else a report says of each run: annotation work, thresholds, and where it was computed. Both are only read.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final, final

import polars as pl

from micraframe import config, registry
from micraframe.config import ComparedMethod, Study
from micraframe.errors import ConfigError
from micraframe.interfaces import Column, Metric, Statistics, Thresholds
from micraframe.parameters import Parameters
from micraframe.runtime.files import atomic, write_json
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import StudyRun, build_metrics, check_columns, label, method_class, plan
from micraframe.study.provenance import ComputedOn
from micraframe.study.tables import ROWS, read_csv, write_csv
from micraframe.types import Origin, Prediction, Sample, Split, Threshold, Work

ROWS_FILE: Final = "rows.csv.gz"
RUNS_FILE: Final = "runs.json"

_COPY: Final = "committed.json"
"""Name of the copy of `runs.json` in the folder of a study that is compared with a committed one."""

_ORIGINS: Final = ("fixed", "validation")

_SAME: Final = ("tuning_images", "tuning_annotator", "tiling")
"""Fields of a study that must agree, or its methods would be measured in different ways."""


@dataclass(frozen=True)
class Committed:
    """What is known of a committed study.

    Attributes:
        record: The content of `runs.json`.
        name: The folder, for errors.
    """

    record: Mapping[str, Any]
    name: str

    @property
    def columns(self) -> list[str]:
        """The metrics whose statistics were kept, the primary one first."""
        return list(self.record["columns"])

    def runs(self, datasets: Mapping[str, StudyRun]) -> tuple[StudyRun, ...]:
        """Return its runs on these datasets, each given by any run on it."""
        return tuple(
            StudyRun(
                dataset=datasets[each["dataset"]].dataset,
                info=datasets[each["dataset"]].info,
                compared=ComparedMethod.model_validate(each["compared"]),
                seed=each["seed"],
                training_key=each["training_key"],
                key=each["key"],
                kind=each["kind"],
            )
            for each in self.record["runs"]
            if each["dataset"] in datasets
        )


def export(study: Study, folder: StudyFolder, target: Path) -> None:
    """Write what is committed of a study's completed runs.

    Args:
        study: The study.
        folder: Its results.
        target: The folder to write to.
    """
    study = config.resolve(study)
    runs = [run for run in plan(study, folder.numerics()) if folder.is_done(run)]
    columns = check_columns(study)
    rows = pl.concat([ROWS.to_frame(), *(folder.rows(run) for run in runs)]).filter(
        pl.col("thresholds").is_in(_ORIGINS)
    )
    if not any(column.pooled for column in columns.values()):  # only the metric knows what those are computed from
        rows = rows.filter(pl.col("metric").is_in(_needed(columns)))
    target.mkdir(parents=True, exist_ok=True)
    plain = target / f".{ROWS_FILE}.csv"
    write_csv(plain, rows)
    with atomic(target / ROWS_FILE) as temporary:
        temporary.write_bytes(gzip.compress(plain.read_bytes(), 9, mtime=0))
    plain.unlink()
    computed: list[dict[str, Any]] = []
    records = []
    for run in runs:
        places = []
        for each in map(asdict, folder.computed(run)):
            if each not in computed:
                computed.append(each)
            places.append(computed.index(each))
        compared = run.compared.model_copy(update={"label": run.method})
        records.append(
            {
                "dataset": run.info.name,
                "compared": compared.model_dump(mode="json"),
                "seed": run.seed,
                "kind": run.kind,
                "training_key": run.training_key,
                "key": run.key,
                "computed": places,
                **folder.record(run),
            }
        )
    write_json(
        target / RUNS_FILE,
        {
            "columns": list(columns),
            "metrics": _metrics(study),
            **{name: study.model_dump(mode="json")[name] for name in _SAME},
            "datasets": {run.info.name: run.info.fingerprint for run in runs},
            "computed": computed,
            "runs": records,
        },
    )


def choose_methods(study: Study, committed: Path, names: Sequence[str]) -> Study:
    """Return the study with only the methods that are to be run beside those of a committed study.

    Args:
        study: The study.
        committed: The folder of the committed study.
        names: Names of methods in tables; none: all that the committed study does not have.

    Raises:
        ConfigError: If the folder is not that of a committed study, the study has no method of a name, or nothing is
            left to run.
    """
    study = config.resolve(study)
    known = {method_name(ComparedMethod.model_validate(each["compared"])) for each in _read(committed).record["runs"]}
    given = [method_name(compared) for compared in study.methods]
    for name in names:
        if name not in given:
            raise ConfigError(f"expected a method of the study, got {name!r}; there are: {', '.join(given)}")
    wanted = set(names) or set(given) - known
    chosen = [compared for compared, name in zip(study.methods, given, strict=True) if name in wanted]
    if not chosen:
        raise ConfigError(f"{committed}: it has every method of this study; add one, or give it another label")
    return study.model_copy(update={"methods": chosen})


def method_name(compared: ComparedMethod) -> str:
    """Return a method's name in tables."""
    return compared.label or label(compared.method, "method")


def adopt(study: Study, folder: StudyFolder, source: Path) -> None:
    """Put the results of a committed study's runs into the folder of a study, which is compared with them.

    Args:
        study: The new methods only.
        folder: The folder of the study.
        source: The folder of the committed study; it is only read.

    Raises:
        ConfigError: If the committed study has other data, measures differently, or has a method of the same name.
        PluginError: If a method of the committed study is not installed.
    """
    committed = _read(source)
    own = _own_runs(study, folder.numerics())
    _check(study, committed, own)
    datasets = {run.info.name: run for run in own}
    runs = committed.runs(datasets)
    names = {_names(run) for run in runs}
    for run in runs:
        if run.kind == "method":
            method_class(run.compared.method)  # now, not after training: the report describes every method
    for run in own:
        if run.kind == "method" and _names(run) in names:
            raise ConfigError(f"{source}: it has {run} already; give the new method another label")
    rows = _rows(source)
    for name, run in datasets.items():
        images = rows.filter(pl.col("dataset") == name)["image"].n_unique()
        test = registry.build("dataset", run.dataset.name, **run.dataset.params).samples("test")
        if images != len(test):
            raise ConfigError(
                f"{source}: expected rows of the {len(test)} test images of {name}, got {images}; publish it again"
            )
    recorded = {each["key"]: each for each in committed.record["runs"]}
    tables = rows.partition_by("dataset", "annotator", "method", "seed", as_dict=True)
    for run in runs:
        if not folder.is_done(run):
            table = tables.get(_names(run), rows.clear())
            _materialise(run, recorded[run.key], committed, folder, table)
    write_json(folder.path / _COPY, {**committed.record, "source": str(source)})


def forget(folder: StudyFolder) -> None:
    """Let a study's folder show its own runs only."""
    (folder.path / _COPY).unlink(missing_ok=True)


def runs_of(study: Study, folder: StudyFolder) -> tuple[StudyRun, ...]:
    """Return the runs that a study's folder shows: those of the study, after those of a committed study, if any.

    Their keys are those that the runs were started with, perhaps on another machine.
    """
    committed = _copy(folder)
    if committed is None:
        return plan(study, folder.numerics())
    own = _own_runs(study, folder.numerics())
    runs = committed.runs({run.info.name: run for run in own})
    names = {_names(run) for run in runs}
    return (*runs, *(run for run in own if _names(run) not in names))


def combined(study: Study, runs: Sequence[StudyRun], folder: StudyFolder) -> tuple[Study, tuple[Metric[Any], ...]]:
    """Return the study that tables and report are about, and its metrics.

    Beside a committed study, it has the methods of both, and the metrics that the committed study keeps.
    """
    committed, metrics = _copy(folder), build_metrics(study)
    if committed is None:
        return study, metrics
    names = [name for name in check_columns(study) if name in committed.columns]
    methods = {run.method + run.annotator: run.compared for run in runs if run.kind == "method"}
    changes = {"methods": list(methods.values()), "compared": [name for name in names if name != study.primary_metric]}
    kept = (KeptMetric(metric, names) for metric in metrics)
    return study.model_copy(update=changes), tuple(metric for metric in kept if metric.columns())


@final
class KeptMetric(Metric[Parameters]):
    """Some columns of a metric, from no more statistics than these need.

    Args:
        metric: The metric.
        names: The columns to keep; others are ignored.
    """

    def __init__(self, metric: Metric[Any], names: Sequence[str]) -> None:
        super().__init__(metric.params)
        self._metric = metric
        self._names = frozenset(names)

    def columns(self) -> tuple[Column, ...]:
        """Return the columns that are kept."""
        return tuple(column for column in self._metric.columns() if column.name in self._names)

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return all statistics of one image."""
        return self._metric.measure(prediction, truth)

    def reduce(self, statistics: Statistics) -> Statistics:
        """Return the numbers of the columns that are kept."""
        if any(column.pooled for column in self.columns()):
            return self._metric.reduce(statistics)
        return super().reduce(statistics)


def _own_runs(study: Study, computed_with: Mapping[str, str] | None) -> tuple[StudyRun, ...]:
    # Planned comparisons may name methods of the committed study, which are not known here.
    alone = study.model_copy(update={"comparisons": None, "reference": None, "margin": None})
    return plan(alone, computed_with)


def _check(study: Study, committed: Committed, runs: Sequence[StudyRun]) -> None:
    """Raise `ConfigError` unless a study's results can stand beside those of the committed study."""
    known: Mapping[str, str] = committed.record["datasets"]
    for info in {run.info.name: run.info for run in runs}.values():
        if info.name not in known:
            raise ConfigError(
                f"{committed.name}: expected a dataset {info.name!r}, got {', '.join(known)}; remove it from the study"
            )
        if known[info.name] != info.fingerprint:
            raise ConfigError(
                f"{committed.name}: expected {info.name} with the fingerprint {info.fingerprint[:16]}, got "
                f"{known[info.name][:16]}: it has other images, annotation, splits or parameters; use the same data"
            )
    mine = study.model_dump(mode="json")
    for name in _SAME:
        if mine[name] != committed.record[name]:
            raise ConfigError(
                f"{committed.name}: expected {name} {mine[name]}, as in this study, got {committed.record[name]}; "
                "use the same"
            )
    if study.primary_metric not in committed.columns:
        raise ConfigError(
            f"{committed.name}: expected statistics of {study.primary_metric!r}, got those of "
            f"{', '.join(committed.columns)}; set primary_metric to one of them"
        )
    measured = _metrics(study)
    for name in check_columns(study):
        if name in committed.columns and measured[name] != committed.record["metrics"][name]:
            raise ConfigError(
                f"{committed.name}: expected {name!r} measured by {measured[name]}, as in this study, got "
                f"{committed.record['metrics'][name]}; use the same metrics"
            )


def _metrics(study: Study) -> dict[str, Any]:
    """Return the metric, with its parameters, that reports each compared column."""
    wanted = check_columns(study)
    return {
        column.name: choice.model_dump(mode="json")
        for choice, metric in zip(study.metrics, build_metrics(study), strict=True)
        for column in metric.columns()
        if column.name in wanted
    }


def _needed(columns: Mapping[str, Column]) -> list[str]:
    named = ((column.numerator or column.name, column.denominator) for column in columns.values())
    return sorted({name for names in named for name in names if name})


def _names(run: StudyRun) -> tuple[str, str, str, int]:
    return run.info.name, run.annotator, run.method, run.seed


def _materialise(
    run: StudyRun, record: Mapping[str, Any], committed: Committed, folder: StudyFolder, rows: pl.DataFrame
) -> None:
    """Write a committed run's results as if it had been run here, without model and masks."""
    trained, measured = (ComputedOn(**committed.record["computed"][place]) for place in record["computed"])
    work: dict[Split, list[Work]] = {split: [Work(**each) for each in some] for split, some in record["work"].items()}
    used = {
        origin: tuple(
            Threshold(**{**each, "value": math.nan if each["value"] is None else each["value"]}) for each in thresholds
        )
        for origin, thresholds in record["used"].items()
    }
    tuned: dict[Origin, Thresholds] = {
        origin: Thresholds(each["presence"] and tuple(each["presence"]), each["mask"], each.get("quality"))
        for origin, each in record["tuned"].items()
    }
    folder.write_training(run, work, record["training_seconds"], trained)
    tuning = [Work(**each) for each in record["tuning_work"]]
    names = ("thresholds", "image", "group", "class", "metric", "value")
    folder.write_results(run, rows.select(names), {}, used, tuned, tuning, record["seconds"], measured)


def _read(source: Path) -> Committed:
    try:
        record = json.loads((source / RUNS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{source}: expected a committed study, a folder with {RUNS_FILE} and {ROWS_FILE}, got {error}; name one, "
            "such as benchmarks/studies/NAME"
        ) from error
    return Committed(record, str(source))


def _copy(folder: StudyFolder) -> Committed | None:
    try:
        record = json.loads((folder.path / _COPY).read_text(encoding="utf-8"))
    except OSError:
        return None
    return Committed(record, record["source"])


def _rows(source: Path) -> pl.DataFrame:
    try:
        return read_csv(BytesIO(gzip.decompress((source / ROWS_FILE).read_bytes())), ROWS)
    except (OSError, EOFError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"{source / ROWS_FILE}: cannot be read: {error}; publish the study again") from error
