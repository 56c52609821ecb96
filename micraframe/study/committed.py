"""Committed studies: what is kept of their results, and how a new method is compared with them without running them.

Every study writes two small files: `rows.parquet`, the statistics that its compared metrics need, and `runs.json`, what
else a report says of each run: annotation work, thresholds, and where it was computed. A folder that contains them can
be compared with, as written or committed without its models and masks; both are only read.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import polars as pl
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from micraframe import config, registry
from micraframe.config import Choice, ComparedMethod, Study
from micraframe.errors import ConfigError, DataError
from micraframe.interfaces import Thresholds
from micraframe.runtime.files import atomic, write_json, write_text
from micraframe.selection import LabelCriteria
from micraframe.study.budgets import expand
from micraframe.study.folder import ROW_NAMES, StudyFolder
from micraframe.study.plan import (
    RunKind,
    StudyRun,
    annotator_name,
    build_metrics,
    check_columns,
    method_class,
    method_name,
    plan,
    planned_pairs,
    training_images,
)
from micraframe.study.provenance import ComputedOn
from micraframe.study.tables import ROWS
from micraframe.tiling import Tiling
from micraframe.types import Origin, Split, Threshold, Work

ROWS_FILE: Final = "rows.parquet"
RUNS_FILE: Final = "runs.json"

_COPY: Final = "committed.json"
"""Name of the copy of `runs.json` in the folder of a study that is compared with a committed one."""

_ORIGINS: Final = ("fixed", "validation")

_SAME: Final = ("tuning_images", "tuning_annotator", "tiling")
"""Fields of a study that must agree, or its methods would be measured in different ways."""


# They become names of folders.
_Key = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


def _with_nan(threshold: Any) -> Any:
    """Return a threshold as it was before JSON, which has no NaN: each image had its own."""
    missing = isinstance(threshold, dict) and threshold.get("value", 0) is None
    return {**threshold, "value": math.nan} if missing else threshold


class _CommittedRun(BaseModel):
    """A run in `runs.json`, with what `StudyFolder.record` returns; `computed` are positions in the file's list."""

    dataset: str
    compared: ComparedMethod
    seed: int
    kind: RunKind
    training_key: _Key
    key: _Key
    computed: tuple[int, int]
    work: dict[Split, tuple[Work, ...]]
    training_seconds: float
    tuning_work: tuple[Work, ...]
    seconds: float
    used: dict[str, tuple[Annotated[Threshold, BeforeValidator(_with_nan)], ...]]
    tuned: dict[Origin, Thresholds]
    criteria: dict[str, dict[str, float | None]] = {}

    def on(self, other: StudyRun) -> StudyRun:
        """Return the run on its dataset, given by any run on it."""
        keys = self.training_key, self.key
        return StudyRun(other.dataset, other.info, self.compared, self.seed, *keys, kind=self.kind)


class Committed(BaseModel):
    """The content of `runs.json`; `columns` are the metrics whose statistics were kept, the primary one first."""

    columns: list[str]
    metrics: dict[str, Choice]
    tuning_images: int
    tuning_annotator: Choice
    tiling: Tiling | None
    datasets: dict[str, str]
    computed: list[ComputedOn]
    runs: list[_CommittedRun]

    @model_validator(mode="after")
    def _complete(self) -> Committed:
        if missing := {*self.columns} - {*self.metrics} | {run.dataset for run in self.runs} - {*self.datasets}:
            raise ValueError(f"expected an entry of {', '.join(sorted(missing))} in metrics or datasets, got none")
        if not all(0 <= place < len(self.computed) for run in self.runs for place in run.computed):
            raise ValueError(f"computed: expected positions below {len(self.computed)} in every run")
        return self


def export(study: Study, runs: Sequence[StudyRun], rows: pl.DataFrame, folder: StudyFolder) -> None:
    """Write what is kept of completed runs for a comparison: of their statistics, those of the compared metrics.

    Args:
        study: The study that tables are about; see `combined`.
        runs: The completed runs, at least one.
        rows: The statistics of all of them.
        folder: Has their results, and is written to.
    """
    columns = check_columns(study)
    rows = rows.filter(pl.col("thresholds").is_in(_ORIGINS))
    if not any(column.pooled for column in columns.values()):  # a metric computes all its pooled columns together
        rows = rows.filter(pl.col("metric").is_in({name for each in columns.values() for name in each.statistics}))
    with atomic(folder.path / ROWS_FILE) as temporary:
        rows.write_parquet(temporary, compression="zstd", compression_level=19)
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
        folder.path / RUNS_FILE,
        {
            "columns": list(columns),
            "metrics": {name: choice.model_dump(mode="json") for name, choice in _metrics(study).items()},
            **{name: study.model_dump(mode="json")[name] for name in _SAME},
            "datasets": {run.info.name: run.info.fingerprint for run in runs},
            "computed": computed,
            "runs": records,
        },
    )


def refuse_same_folder(output: Path, against: Path) -> None:
    """Raise `ConfigError` if a study would be written to the folder that it is compared with."""
    if output.resolve() == against.resolve():
        raise ConfigError(f"{output}: expected another folder than that of --against; choose another --output")


def choose_methods(study: Study, committed: Path, names: Sequence[str]) -> Study:
    """Return the study with only the methods that are to be run beside those of an earlier study.

    Args:
        study: The study.
        committed: The folder of the earlier study.
        names: Names of methods in tables, of which those are run that the earlier study does not have with this
            annotation and budget, and all seeds; none: all that it does not have with this annotation and budget.

    Raises:
        ConfigError: If the folder is not that of an earlier study, the study has no method of a name, or nothing is
            left to run.
    """
    study = config.resolve(study)
    known = _known_seeds(committed)
    given = [method_name(compared) for compared in study.methods]
    for name in names:
        if name not in given:
            raise ConfigError(f"expected a method of the study, got {name!r}; there are: {', '.join(given)}")

    count = functools.cache(lambda place: training_images(study.datasets[place]))
    datasets = [registry.build("dataset", each.name, **each.params).info().name for each in study.datasets]

    def missing(compared: ComparedMethod) -> bool:
        if names and method_name(compared) not in names:
            return False
        alike = [
            known.get((dataset, *_names(each)), set())
            for place, dataset in enumerate(datasets)
            for each in expand([compared], functools.partial(count, place))
        ]
        return any(set(study.seeds) - seeds for seeds in alike) if names else not all(alike)

    one_by_one = (
        compared.model_copy(update={"budgets": budgets})
        for compared in study.methods
        for budgets in ([[share] for share in compared.budgets] or [[]])
    )
    chosen = [compared for compared in one_by_one if missing(compared)]
    if not chosen:
        raise ConfigError(
            f"{committed}: it has every method of this study; add one, give it another label, add a budget, or name a "
            "method to be run with new seeds (--method)"
        )
    return study.model_copy(update={"methods": chosen})


def missing_seeds(study: Study, committed: Path) -> dict[str, tuple[int, ...]]:
    """Return the seeds of a study that an earlier one has not run for all of its methods, by the method's name.

    Perhaps runs failed there, or it was run in parts. Seeds that it has for no method are not meant.
    """
    known = _known_seeds(committed, "method")
    common = set(study.seeds) & set().union(*known.values())
    lacking = ((f"{method} ({annotator})", common - seeds) for (_, method, annotator), seeds in known.items())
    return {name: tuple(sorted(seeds)) for name, seeds in lacking if seeds}


def _known_seeds(committed: Path, kind: RunKind | None = None) -> dict[tuple[str, ...], set[int]]:
    """Return the seeds of the runs of an earlier study, by dataset, method and annotation."""
    known: dict[tuple[str, ...], set[int]] = {}
    for run in _read(committed / RUNS_FILE).runs:
        if kind in (None, run.kind):
            known.setdefault((run.dataset, *_names(run.compared)), set()).add(run.seed)
    return known


def compared_runs(
    study: Study, source: Path, computed_with: Mapping[str, str] | None
) -> tuple[Committed, tuple[StudyRun, ...], tuple[StudyRun, ...]]:
    """Return an earlier study, its runs on the datasets of a study, and the study's own runs.

    Args:
        study: The new methods only.
        source: The folder of the earlier study.
        computed_with: As for `plan`.

    Raises:
        ConfigError: If the earlier study has other data, measures differently, has one of these runs already, or
            another method of the same name and annotation, or a planned comparison names a method that neither has.
        PluginError: If a method of the earlier study is not installed.
    """
    committed = _read(source / RUNS_FILE)
    own = _own_runs(study, computed_with, committed)
    _check(study, committed, source, own)
    runs = _on_datasets(committed, own)
    names = {run.names for run in runs}
    known: dict[tuple[str, ...], ComparedMethod] = {}
    for run in runs:
        if run.kind == "method":
            method_class(run.compared.method)  # now, not after training: the report describes every method
            known[run.names[:-1]] = run.compared
    for run in own:
        if run.kind == "ceiling":
            continue
        if run.names in names:
            raise ConfigError(f"{source}: it has {run} already; list new seeds only, or give the method another label")
        same = known.get(run.names[:-1])
        if same and _decides(run.compared) != _decides(config.resolve(same)):
            raise ConfigError(
                f"{source}: expected {run.method} as it was run there, with more seeds, got another method or head of "
                "that name; give it another label"
            )
    planned_pairs(study, (*runs, *own))
    return committed, runs, own


def adopt(study: Study, folder: StudyFolder, source: Path) -> None:
    """Put the results of an earlier study's runs into the folder of a study, which is compared with them.

    Args:
        study: The new methods only.
        folder: The folder of the study.
        source: The folder of the earlier study; it is only read.

    Raises:
        ConfigError: As `compared_runs`, or if the earlier study lacks test images.
        PluginError: As `compared_runs`.
    """
    committed, runs, own = compared_runs(study, source, folder.numerics())
    rows = _rows(source)
    for name, run in {run.info.name: run for run in own}.items():
        images = rows.filter(pl.col("dataset") == name)["image"].n_unique()
        test = registry.build("dataset", run.dataset.name, **run.dataset.params).samples("test")
        if images != len(test):
            raise ConfigError(
                f"{source}: expected rows of the {len(test)} test images of {name}, got {images}; {_repair(source)}"
            )
    recorded = {each.key: each for each in committed.runs}
    tables = rows.partition_by("dataset", "annotator", "method", "seed", as_dict=True)
    for run in runs:
        if run.kind == "method" and run.names not in tables:
            raise ConfigError(f"{source}: expected rows of {run}, got none; {_repair(source)}")
    folder.drop_adopted()  # they may be of an earlier state of that study
    for run in runs:
        if not folder.is_done(run):
            _materialise(run, recorded[run.key], committed, folder, tables.get(run.names, rows.clear()))
    write_text(folder.path / _COPY, committed.model_dump_json(indent=2))


def compares(run: Path) -> bool:
    """Return whether the folder of a study shows the runs of an earlier study, too."""
    return (run / _COPY).exists()


def forget(folder: StudyFolder) -> None:
    """Let a study's folder have and show its own runs only."""
    (folder.path / _COPY).unlink(missing_ok=True)
    folder.drop_adopted()


def runs_of(study: Study, folder: StudyFolder) -> tuple[StudyRun, ...]:
    """Return the runs that a study's folder shows: those of the study, after those of an earlier study, if any.

    Their keys are those that the runs were started with, perhaps on another machine.
    """
    committed = _copy(folder)
    if committed is None:
        return plan(study, folder.numerics())
    own = _own_runs(study, folder.numerics(), committed)
    return (*_on_datasets(committed, own), *own)


def combined(study: Study, runs: Sequence[StudyRun], folder: StudyFolder) -> tuple[Study, Collection[str] | None]:
    """Return the study that tables and report are about, and the columns that they show; None: all.

    Beside an earlier study, it has the methods of both, and the metrics that the earlier study keeps.
    """
    committed = _copy(folder)
    if committed is None:
        return study, None
    names = [name for name in check_columns(study) if name in committed.columns]
    methods = {(run.method, run.annotator): run.compared for run in runs if run.kind == "method"}
    changes = {"methods": list(methods.values()), "compared": [name for name in names if name != study.primary_metric]}
    return study.model_copy(update=changes), names


def _on_datasets(committed: Committed, own: Sequence[StudyRun]) -> tuple[StudyRun, ...]:
    """Return the runs of an earlier study on the datasets of other runs."""
    datasets = {run.info.name: run for run in own}
    return tuple(each.on(datasets[each.dataset]) for each in committed.runs if each.dataset in datasets)


def _own_runs(study: Study, computed_with: Mapping[str, str] | None, committed: Committed) -> tuple[StudyRun, ...]:
    """Return a study's runs, except ceilings that the earlier study already has: one seed is enough."""
    # Planned comparisons may name methods of the earlier study, which are not known here.
    alone = study.model_copy(update={"comparisons": None, "reference": None, "margin": None})
    known = {(run.dataset, *_names(run.compared)) for run in committed.runs if run.kind == "ceiling"}
    own = plan(alone, computed_with)
    return tuple(run for run in own if run.kind != "ceiling" or (run.info.name, *_names(run.compared)) not in known)


def _check(study: Study, committed: Committed, source: Path, runs: Sequence[StudyRun]) -> None:
    """Raise `ConfigError` unless a study's results can stand beside those of the earlier study."""
    known = committed.datasets
    for info in {run.info.name: run.info for run in runs}.values():
        if info.name not in known:
            raise ConfigError(
                f"{source}: expected a dataset {info.name!r}, got {', '.join(known)}; remove it from the study"
            )
        if known[info.name] != info.fingerprint:
            raise ConfigError(
                f"{source}: expected {info.name} with the fingerprint {info.fingerprint[:16]}, got "
                f"{known[info.name][:16]}: it has other images, annotation, splits or parameters; use the same data"
            )
    mine, others = (each.model_dump(mode="json", include=set(_SAME)) for each in (study, committed))
    for name in _SAME:
        if mine[name] != others[name]:
            raise ConfigError(
                f"{source}: expected {name} {mine[name]}, as in this study, got {others[name]}; use the same"
            )
    if study.primary_metric not in committed.columns:
        raise ConfigError(
            f"{source}: expected statistics of {study.primary_metric!r}, got those of "
            f"{', '.join(committed.columns)}; set primary_metric to one of them"
        )
    measured = _metrics(study)
    for name in check_columns(study):
        if name in committed.columns and measured[name] != committed.metrics[name]:
            raise ConfigError(
                f"{source}: expected {name!r} measured by {measured[name]}, as in this study, got "
                f"{committed.metrics[name]}; use the same metrics"
            )


def _decides(compared: ComparedMethod) -> dict[str, Any]:
    """Return what decides on a method's masks, besides its training images."""
    return compared.model_dump(mode="json", include={"method", "head"})


def _names(compared: ComparedMethod) -> tuple[str, str]:
    """Return the names of a method and its annotation in tables."""
    return method_name(compared), annotator_name(compared)


def _metrics(study: Study) -> dict[str, Choice]:
    """Return the metric, with its parameters, that reports each compared column."""
    wanted = check_columns(study)
    return {
        column.name: choice
        for choice, metric in zip(study.metrics, build_metrics(study), strict=True)
        for column in metric.columns()
        if column.name in wanted
    }


def _materialise(
    run: StudyRun, record: _CommittedRun, committed: Committed, folder: StudyFolder, rows: pl.DataFrame
) -> None:
    """Write a committed run's results as if it had been run here, without model and masks."""
    trained, measured = (committed.computed[place] for place in record.computed)
    folder.write_training(run, record.work, record.training_seconds, trained)
    rows = rows.select(ROW_NAMES)
    folder.write_results(
        run, run.compared.head, rows, {}, record.used, record.tuned, record.tuning_work, record.seconds, measured
    )
    criteria = {
        origin: LabelCriteria(**{name: math.nan if value is None else value for name, value in values.items()})
        for origin, values in record.criteria.items()
    }
    if criteria:
        folder.write_criteria(run, criteria)
    folder.mark_adopted(run)


def _read(path: Path) -> Committed:
    try:
        return Committed.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, DataError, ValidationError) as error:
        if not path.parent.exists():
            raise ConfigError(
                f"{path.parent}: no such folder (current folder: {Path.cwd()}); name the folder of a study, such as "
                "benchmarks/studies/NAME"
            ) from error
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ConfigError(
            f"{path}: expected the record of a study, beside its {ROWS_FILE}, got {reason}; {_repair(path.parent)}, or "
            "name another folder, such as benchmarks/studies/NAME"
        ) from error


def _repair(source: Path) -> str:
    """Return how to get the record of a study again."""
    rebuilt = (source / "runs").is_dir()
    return f"rebuild it (micraframe study report {source})" if rebuilt else "restore the committed files"


def _copy(folder: StudyFolder) -> Committed | None:
    path = folder.path / _COPY
    return _read(path) if path.exists() else None


def _rows(source: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(source / ROWS_FILE, schema=ROWS)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"{source / ROWS_FILE}: cannot be read: {error}; {_repair(source)}") from error
