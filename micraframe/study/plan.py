"""The runs that a study consists of, and the hashes by which their results are found again."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, Literal

from pydantic import BaseModel

from micraframe import config, registry
from micraframe.config import Choice, ComparedMethod, Study
from micraframe.errors import ConfigError
from micraframe.interfaces import Column, Method, Metric
from micraframe.pipeline import default_head
from micraframe.runtime.files import digest_json
from micraframe.runtime.numerics import numerics
from micraframe.study.budgets import expand
from micraframe.types import Annotation, DatasetInfo, Sample

Job = tuple["StudyRun", ...]
"""Runs that share a training: they are executed one after the other, and the first trains."""

Pair = tuple[str, str]
"""Two compared methods, each named `METHOD (ANNOTATION)`."""

RunKind = Literal["method", "ceiling"]
"""What a run measures: a trained method, or the training annotation itself, as if it were a prediction."""

CEILING: Final = "ceiling"
"""The method's name in tables where the annotation is its own prediction."""


@dataclass(frozen=True)
class StudyRun:
    """One method with one annotation on one dataset with one seed, everything resolved.

    Attributes:
        dataset: The dataset.
        info: Metadata of the dataset.
        compared: The method, its head (its default head where the study names none) and its training annotation.
        seed: Determines everything random.
        training_key: Hash of everything that determines what is learned.
        key: Hash of everything that determines the results.
        kind: `method`, or `ceiling`: nothing is trained, and `compared.method` names no component.
    """

    dataset: Choice
    info: DatasetInfo
    compared: ComparedMethod
    seed: int
    training_key: str
    key: str
    kind: RunKind = "method"

    @property
    def annotator(self) -> str:
        """The annotator's name in tables, with the parameters that are not defaults."""
        return annotator_name(self.compared)

    @property
    def method(self) -> str:
        """The method's name in tables."""
        return method_name(self.compared)

    @property
    def names(self) -> tuple[str, str, str, int]:
        """What it is in tables: dataset, annotator, method and seed."""
        return self.info.name, self.annotator, self.method, self.seed

    @property
    def inference(self) -> dict[str, Any]:
        """The method's parameters that do not influence what it learns."""
        if self.kind == "ceiling":
            return {}
        names = method_class(self.compared.method).inference_params
        return {name: value for name, value in self.compared.method.params.items() if name in names}

    def __str__(self) -> str:
        return f"{self.info.name} / {self.annotator} / {self.method} / seed {self.seed}"


def plan(study: Study, computed_with: Mapping[str, str] | None = None) -> tuple[StudyRun, ...]:
    """Return the runs of a study, in the order in which datasets, methods and seeds are named; ceilings come last.

    Args:
        study: The study.
        computed_with: What changes bytes besides code, data and parameters, which is part of every key: by default
            what `numerics` returns in this process.

    Raises:
        ConfigError: If two methods would have the same name in tables, two datasets have one name, a method needs more
            training images than there are, no metric reports what is to be compared, or a planned comparison names no
            method.
        PluginError: If a component is unknown or cannot be used.
    """
    study = config.resolve(study)
    check_columns(study)
    computed_with = computed_with or numerics(study.device, study.precision)
    datasets = [(dataset, _checked(study, dataset)) for dataset in study.datasets]
    runs = [
        _run(study, dataset, info, compared, seed, computed_with)
        for dataset, info in datasets
        for compared in expand(study.methods, functools.partial(training_images, dataset))
        for seed in study.seeds
    ]
    if study.ceilings:
        annotators = {digest_json(each.annotator.model_dump(mode="json")): each.annotator for each in study.methods}
        runs += [
            _ceiling(study, dataset, info, annotator, computed_with)
            for dataset, info in datasets
            for annotator in annotators.values()
            if annotator.name != config.IMAGE_LEVEL.name  # labels carry no location
        ]
    seen: set[str] = set()
    for run in runs:
        if str(run) in seen:
            raise ConfigError(f"the study has {run} twice; give methods different labels and datasets different names")
        seen.add(str(run))
    planned_pairs(study, runs)
    return tuple(runs)


def jobs(runs: Iterable[StudyRun]) -> tuple[Job, ...]:
    """Return the runs grouped by training, in order of first appearance; jobs can be executed at the same time."""
    found: dict[str, list[StudyRun]] = {}
    for run in runs:
        found.setdefault(run.training_key, []).append(run)
    return tuple(tuple(same) for same in found.values())


def label(choice: Choice, kind: str) -> str:
    """Return a component's name, followed by its parameters that are not defaults.

    A field marked `in_label` is always named: without it, nobody would know what "altered" means.
    """
    entry = registry.catalog().find(kind, choice.name)
    fields = registry.load(entry).Params.model_fields
    defaults = config.resolve_choice(kind, Choice(name=entry.qualified)).params
    changed = [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in config.resolve_choice(kind, choice).params.items()
        if value != defaults.get(key) or fields[key].json_schema_extra == {"in_label": True}
    ]
    return " ".join([entry.component.name, *changed])


def method_name(compared: ComparedMethod) -> str:
    """Return a method's name in tables."""
    return compared.label or label(compared.method, "method")


def annotator_name(compared: ComparedMethod) -> str:
    """Return the name of a method's training annotation in tables."""
    name = label(compared.annotator, "annotator")
    return f"{name}, {compared.train_images} images" if compared.train_images else name


def planned_pairs(study: Study, runs: Iterable[StudyRun]) -> tuple[Pair, ...]:
    """Return the pairs of methods that a study compares as planned, each named `METHOD (ANNOTATION)`.

    Raises:
        ConfigError: If a name is none of the runs' methods, or names several.
    """
    known = {f"{run.method} ({run.annotator})": run.method for run in runs if run.kind == "method"}

    def full(key: str, name: str) -> str:
        fitting = [name] if name in known else [each for each, method in known.items() if method == name]
        if len(fitting) != 1:
            raise ConfigError(
                f"{key}: expected one of this study's methods, as METHOD or METHOD (ANNOTATION), got {name!r}, which "
                f"names {' and '.join(fitting) or 'none'}; there are: {', '.join(known)}; choose one of them"
            )
        return fitting[0]

    if study.reference:
        reference = full("reference", study.reference)
        return tuple((name, reference) for name in known if name != reference)
    pairs = tuple((full("comparisons", one), full("comparisons", other)) for one, other in study.comparisons or ())
    for one, other in pairs:
        if one == other:
            raise ConfigError(f"comparisons: expected two different methods, got {one!r} twice; replace one of them")
    return pairs


def build_metrics(study: Study) -> tuple[Metric[Any], ...]:
    """Return the study's metrics."""
    return tuple(registry.build("metric", choice.name, **choice.params) for choice in study.metrics)


def check_columns(study: Study) -> dict[str, Column]:
    """Return the study's primary column and those compared, by name; of the defaults, those that are reported.

    Raises:
        ConfigError: If two metrics report a column of one name, or none reports one that the study names; the message
            lists those that are.
    """
    known: dict[str, Column] = {}
    for column in (column for metric in build_metrics(study) for column in metric.columns()):
        if column.name in known:
            raise ConfigError(f"metrics: two of them report {column.name!r}; remove one of them")
        known[column.name] = column
    by_default = study.compared == Study.model_fields["compared"].default
    compared = [name for name in study.compared if name in known] if by_default else study.compared
    for key, names in (("primary_metric", [study.primary_metric]), ("compared", compared)):
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"{key}: no metric of this study reports {name!r}; there are: {', '.join(known)}; choose one of "
                    "them, or add a metric"
                )
    return {name: known[name] for name in dict.fromkeys([study.primary_metric, *compared])}


def training_images(dataset: Choice) -> int:
    """Return the number of a dataset's training images."""
    return len(registry.build("dataset", dataset.name, **dataset.params).samples("train"))


def _checked(study: Study, choice: Choice) -> DatasetInfo:
    """Return a dataset's metadata, after checking that it has enough images."""
    dataset = registry.build("dataset", choice.name, **choice.params)
    info = dataset.info()
    limited = [compared for compared in study.methods if compared.train_images]
    # Only where it matters: to count crops, all masks are read.
    count = len(dataset.samples("train")) if limited else 0
    for compared in limited:
        if compared.train_images and compared.train_images > count:
            raise ConfigError(
                f"method {method_name(compared)!r}: train_images is {compared.train_images}, but {info.name} has "
                f"{count} training images; set at most {count}, or remove train_images to use all"
            )
    return info


def method_class(choice: Choice) -> type[Method[Any]]:
    """Return the class of a method."""
    method = registry.load(registry.catalog().find("method", choice.name))
    assert issubclass(method, Method)
    return method


def check_annotation(runs: Iterable[StudyRun]) -> None:
    """Check, with one training sample of each dataset, that methods can learn from what their annotators provide.

    Raises:
        ConfigError: If a method cannot.
        DataError: If an annotator needs what the dataset does not have.
    """
    samples: dict[str, Sample | None] = {}
    checked: set[tuple[str, str, str]] = set()
    for run in runs:
        method, annotator = run.compared.method, run.compared.annotator
        dataset = run.dataset.model_dump_json()
        if (pair := (dataset, annotator.model_dump_json(), method.name)) in checked:
            continue
        checked.add(pair)
        if dataset not in samples:
            built = registry.build("dataset", run.dataset.name, **run.dataset.params)
            samples[dataset] = next(iter(built.samples("train")), None)
        if (sample := samples[dataset]) is None:
            continue
        annotated, _ = registry.build("annotator", annotator.name, **annotator.params).annotate(sample, run.seed)
        given = [kind for kind in Annotation if getattr(annotated, kind) is not None]
        usable = method_class(method).learns_from
        if usable.isdisjoint(given):
            raise ConfigError(
                f"method {run.method!r} ({method.name}): expected {' or '.join(sorted(usable))} to learn from, got "
                f"{' and '.join(given) or 'nothing'} from annotator {annotator.name}; choose another annotator"
            )


def _run(
    study: Study,
    dataset: Choice,
    info: DatasetInfo,
    compared: ComparedMethod,
    seed: int,
    computed_with: Mapping[str, str],
) -> StudyRun:
    method, params = compared.method.name, compared.method.params
    inference = method_class(compared.method).inference_params
    head = compared.head or config.resolve_choice("head", default_head(registry.build("method", method, **params)))
    learning: dict[str, Any] = {
        "data": info.fingerprint,
        "annotator": compared.annotator.model_dump(mode="json"),
        "method": method,
        "params": {key: value for key, value in params.items() if key not in inference},
        "seed": seed,
        "numerics": dict(computed_with),
    }
    if compared.train_images:
        learning["images"] = compared.train_images
    learning["versions"] = _versions([dataset, compared.annotator], method, learning["params"])
    everything: dict[str, Any] = {
        "learning": learning,
        "params": params,
        "head": head.model_dump(mode="json"),
        "versions": _versions(study.metrics, params, head, study.tuning_annotator),
        "metrics": [metric.model_dump(mode="json") for metric in study.metrics],
        "tuning_images": study.tuning_images,
        "tuning_annotator": study.tuning_annotator.model_dump(mode="json"),
    }
    if study.tiling is not None:
        everything["tiling"] = study.tiling.model_dump(mode="json")
    if study.label_criteria:
        everything["label_criteria"] = True
    compared = compared.model_copy(update={"head": head})
    return StudyRun(dataset, info, compared, seed, digest_json(learning)[:16], digest_json(everything)[:16])


def _ceiling(
    study: Study, dataset: Choice, info: DatasetInfo, annotator: Choice, computed_with: Mapping[str, str]
) -> StudyRun:
    seed = study.seeds[0]
    learning = {
        "kind": "ceiling",
        "data": info.fingerprint,
        "annotator": annotator.model_dump(mode="json"),
        "seed": seed,
        "numerics": dict(computed_with),
        "versions": _versions(dataset, annotator),
    }
    everything = {
        "learning": learning,
        "metrics": [metric.model_dump(mode="json") for metric in study.metrics],
        "versions": _versions(study.metrics),
    }
    compared = ComparedMethod(method=Choice(name=CEILING), annotator=annotator, label=CEILING)
    return StudyRun(
        dataset, info, compared, seed, digest_json(learning)[:16], digest_json(everything)[:16], kind="ceiling"
    )


def _versions(*resolved: Any) -> Mapping[str, str]:
    """Return core's version, and those of the plugins whose components are named, as `plugin/name`, anywhere in these.

    Core always takes part: it executes the runs.
    """
    known = {plugin.name: plugin.version for plugin in registry.catalog().plugins}
    known[registry.BUILTIN] = metadata.version(registry.BUILTIN)
    found = {registry.BUILTIN: known[registry.BUILTIN]}
    queue = list(resolved)
    while queue:
        value = queue.pop()
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        if isinstance(value, dict):
            queue += value.values()
        elif isinstance(value, list | tuple):
            queue += value
        elif isinstance(value, str) and value.partition("/")[0] in known:
            name = value.partition("/")[0]
            found[name] = known[name]
    return found
