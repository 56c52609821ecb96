"""What a study consists of: its cells, and by what each is known again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from pydantic import BaseModel

from micraframe import config, registry
from micraframe.annotators.costs import Pricing
from micraframe.config import Choice, Contender, Study
from micraframe.errors import ConfigError
from micraframe.files import digest_json
from micraframe.interfaces import Method
from micraframe.study.metric_names import check_names
from micraframe.types import DatasetInfo

Job = tuple["Cell", ...]
"""Cells of one training: they are run one after the other, the first one trains."""


@dataclass(frozen=True)
class Cell:
    """One method with one annotation on one dataset with one seed, everything resolved.

    Attributes:
        dataset: The dataset.
        info: What the dataset says of itself.
        contender: The method and the annotation it is given.
        seed: Of everything that is random.
        training_key: Hash of all that determines what is learned.
        key: Hash of all that determines the results.
        prices: Hash of the prices at which its annotation is reckoned; they determine neither.
        tuning_prices: Hash of those of the labels that its thresholds are tuned on.
    """

    dataset: Choice
    info: DatasetInfo
    contender: Contender
    seed: int
    training_key: str
    key: str
    prices: str
    tuning_prices: str

    @property
    def annotator(self) -> str:
        """The annotator's name in tables: with its parameters, where they are not the defaults."""
        name = label(self.contender.annotator, "annotator")
        return f"{name}, {self.contender.images} images" if self.contender.images else name

    @property
    def method(self) -> str:
        """The method's name in tables."""
        return self.contender.label or label(self.contender.method, "method")

    def __str__(self) -> str:
        return f"{self.info.name} / {self.annotator} / {self.method} / seed {self.seed}"


def plan(study: Study) -> tuple[Cell, ...]:
    """Return the cells of a study, in the order in which they are named.

    Raises:
        ConfigError: If two contenders cannot be told apart in tables, two datasets have one name, a contender wants
            more images than there are, or nothing measures what is to be compared.
        PluginError: If a component is unknown or cannot be used.
    """
    study = config.resolve(study)
    cells = [
        _cell(study, dataset, info, contender, seed)
        for dataset, info in [(dataset, _checked(study, dataset)) for dataset in study.datasets]
        for contender in study.contenders
        for seed in study.seeds
    ]
    seen: set[str] = set()
    for cell in cells:
        if str(cell) in seen:
            raise ConfigError(f"the study has {cell} twice; give contenders different labels, datasets different names")
        seen.add(str(cell))
    return tuple(cells)


def jobs(cells: Iterable[Cell]) -> tuple[Job, ...]:
    """Return the cells by what they learn, in order of first appearance; different jobs can run at the same time."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.training_key, []).append(cell)
    return tuple(tuple(same) for same in found.values())


def label(choice: Choice, kind: str) -> str:
    """Return a component's name, followed by those of its parameters that are not the defaults.

    A field marked `in_label` is named whatever its value: without it, nobody would know what "altered" means. Prices
    are not named: they change nothing but the bill.
    """
    entry = registry.catalog().find(kind, choice.name)
    fields = registry.load(entry).Params.model_fields
    params = unpriced(config.resolve_choice(kind, choice), kind).params
    defaults = config.resolve_choice(kind, Choice(name=entry.qualified)).params
    changed = [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
        if value != defaults.get(key) or fields[key].json_schema_extra == {"in_label": True}
    ]
    return " ".join([entry.component.name, *changed])


def unpriced(choice: Choice, kind: str = "annotator") -> Choice:
    """Return the choice without prices: what an annotator writes down is the same at any price."""
    priced = _priced(choice, kind)
    return Choice(name=choice.name, params={key: value for key, value in choice.params.items() if key not in priced})


def _priced(choice: Choice, kind: str) -> set[str]:
    """Return the names of the parameters that are prices."""
    fields = registry.load(registry.catalog().find(kind, choice.name)).Params.model_fields
    return {
        name
        for name, field in fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Pricing)
    }


def _prices(choice: Choice) -> str:
    priced = _priced(choice, "annotator")
    return digest_json({key: value for key, value in choice.params.items() if key in priced})[:16]


def _checked(study: Study, choice: Choice) -> DatasetInfo:
    """Return what a dataset says of itself, having checked what the study wants of it."""
    dataset = registry.build("dataset", choice.name, **choice.params)
    info = dataset.info()
    limited = [contender for contender in study.contenders if contender.images]
    # Only where it is asked for: to count crops, all masks are read.
    count = len(dataset.samples("train")) if limited else 0
    for contender in limited:
        if contender.images and contender.images > count:
            name = contender.label or label(contender.method, "method")
            raise ConfigError(
                f"contender {name!r}: images is {contender.images}, but {info.name} has {count} training images; give "
                f"at most {count}, or leave images away for all of them"
            )
    check_names(study, len(info.classes))
    return info


def _cell(study: Study, dataset: Choice, info: DatasetInfo, contender: Contender, seed: int) -> Cell:
    entry = registry.catalog().find("method", contender.method.name)
    method = registry.load(entry)
    assert issubclass(method, Method)
    params = contender.method.params
    learning: dict[str, Any] = {
        "data": info.fingerprint,
        "annotator": unpriced(contender.annotator).model_dump(mode="json"),
        "method": entry.qualified,
        "params": {key: value for key, value in params.items() if key not in method.decided_after},
        "seed": seed,
        "precision": study.precision,
        "device": study.device,
    }
    if contender.images:
        learning["images"] = contender.images
    learning["versions"] = _versions([dataset, contender.annotator], learning["method"], learning["params"])
    everything = {
        "learning": learning,
        "params": params,
        "versions": _versions(study.metrics, params, study.tuning_annotator),
        "metrics": [metric.model_dump(mode="json") for metric in study.metrics],
        "tune": study.tune,
        "tuning_annotator": unpriced(study.tuning_annotator).model_dump(mode="json"),
    }
    if study.tiling is not None:
        everything["tiling"] = study.tiling.model_dump(mode="json")
    keys = digest_json(learning)[:16], digest_json(everything)[:16]
    return Cell(dataset, info, contender, seed, *keys, _prices(contender.annotator), _prices(study.tuning_annotator))


def _versions(*resolved: Any) -> dict[str, str]:
    """Return core's version, and those of the plugins whose components are named, as `plugin/name`, anywhere in these.

    Core takes part whoever's components are used: it runs the cells.
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
