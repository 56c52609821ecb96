"""What a study consists of: its cells, and by what each is known again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from micraframe import config, registry
from micraframe.config import Choice, Contender, Study
from micraframe.errors import ConfigError
from micraframe.files import digest_json
from micraframe.interfaces import Method
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
    """

    dataset: Choice
    info: DatasetInfo
    contender: Contender
    seed: int
    training_key: str
    key: str

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
        ConfigError: If two contenders cannot be told apart in tables, or two datasets have one name.
        PluginError: If a component is unknown or cannot be used.
    """
    study = config.resolve(study)
    cells = [
        _cell(study, dataset, info, contender, seed)
        for dataset, info in [(dataset, _info(dataset)) for dataset in study.datasets]
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

    A field marked `in_label` is named whatever its value: without it, nobody would know what "altered" means.
    """
    entry = registry.catalog().find(kind, choice.name)
    fields = registry.load(entry).Params.model_fields
    params = config.resolve_choice(kind, choice).params
    defaults = config.resolve_choice(kind, Choice(name=entry.qualified)).params
    changed = [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
        if value != defaults.get(key) or fields[key].json_schema_extra == {"in_label": True}
    ]
    return " ".join([entry.component.name, *changed])


def _info(dataset: Choice) -> DatasetInfo:
    return registry.build("dataset", dataset.name, **dataset.params).info()


def _cell(study: Study, dataset: Choice, info: DatasetInfo, contender: Contender, seed: int) -> Cell:
    entry = registry.catalog().find("method", contender.method.name)
    method = registry.load(entry)
    assert issubclass(method, Method)
    params = contender.method.params
    learning: dict[str, Any] = {
        "data": info.fingerprint,
        "annotator": contender.annotator.model_dump(mode="json"),
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
        "tuning_annotator": study.tuning_annotator.model_dump(mode="json"),
    }
    return Cell(dataset, info, contender, seed, digest_json(learning)[:16], digest_json(everything)[:16])


def _versions(*resolved: Any) -> dict[str, str]:
    """Return the versions of the plugins whose components are named, as `plugin/name`, anywhere in these."""
    found: dict[str, str] = {}
    known = {plugin.name: plugin.version for plugin in registry.catalog().plugins}
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
