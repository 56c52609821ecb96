"""Configuration: what a file may contain, and errors that name the file, line and key.

A component is chosen by a `Choice`: its name, and those of its parameters that differ from the defaults.

    method: micra-net                                      # short for {name: micra-net}
    method: {name: micra-net, params: {combiner: pca}}

On the command line, `parse_choice` reads the same from one word: `micra-net:combiner=pca`. This module knows no
component: names are looked up, and their parameters checked, by the registry.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from micraframe import registry
from micraframe.errors import ConfigError, PluginError
from micraframe.interfaces import Method
from micraframe.parameters import Parameters
from micraframe.pricing import Prices
from micraframe.tiling import Tiling
from micraframe.types import Annotation, LoggerName, Precision

Config = TypeVar("Config", bound=BaseModel)

SEED: Final = "Random seed; on a CPU, it determines the result exactly."
DEVICE: Final = "auto (a GPU if there is one), cpu, cuda, cuda:1 or mps."
LOGGERS: Final = "Also log every epoch to local tensorboard or mlflow files; requires the extra `loggers`."
PRECISION: Final = "auto (bfloat16 where it is fast), float32 or bfloat16."


class Choice(BaseModel):
    """A component by name, with its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="The component's name, or plugin/name.")
    params: dict[str, Any] = Field(default={}, description="Its parameters; those left out keep their defaults.")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class Kind:
    """Marks a `Choice` field with the kind of component that it chooses: `Annotated[Choice, Kind("head")]`."""

    name: str


DatasetChoice = Annotated[Choice, Kind("dataset")]
AnnotatorChoice = Annotated[Choice, Kind("annotator")]
BackboneChoice = Annotated[Choice, Kind("backbone")]
ExtractorChoice = Annotated[Choice, Kind("extractor")]
CombinerChoice = Annotated[Choice, Kind("combiner")]
HeadChoice = Annotated[Choice, Kind("head")]
MethodChoice = Annotated[Choice, Kind("method")]
MetricChoice = Annotated[Choice, Kind("metric")]

# Qualified, so that a plugin that offers the same name breaks no default.
IMAGE_LEVEL: Final = Choice(name="micraframe/image-level")
MICRA_NET: Final = Choice(name="micraframe/micra-net")


class Train(Parameters):
    """What `micraframe train` reads: one method, one dataset, one training annotation."""

    dataset: DatasetChoice = Field(description="Dataset to learn from.")
    annotator: AnnotatorChoice = Field(IMAGE_LEVEL, description="Training annotation.")
    method: MethodChoice = Field(MICRA_NET, description="Method to train.")
    head: HeadChoice | None = Field(None, description="Head; null: the method's default head.")
    tiling: Tiling | None = Field(None, description="How large images are cut into tiles; null: they are not.")
    seed: int = Field(0, ge=0, description=SEED)
    device: str = Field("auto", description=DEVICE)
    precision: Precision = Field("auto", description=PRECISION)
    loggers: list[LoggerName] = Field([], description=LOGGERS)


class FineTune(Parameters):
    """What `micraframe finetune` reads: what a trained model continues to learn from."""

    dataset: DatasetChoice = Field(description="Dataset to learn from; it must have the model's classes.")
    rename: dict[str, str] = Field(
        {}, description="New names of the model's classes, as the dataset calls them: {old: new}."
    )
    annotator: AnnotatorChoice = Field(IMAGE_LEVEL, description="Training annotation.")
    training: dict[str, Any] = Field({}, description="Training parameters that differ from the model's own.")
    seed: int = Field(0, ge=0, description=SEED)
    device: str = Field("auto", description=DEVICE)
    precision: Precision = Field("auto", description=PRECISION)
    loggers: list[LoggerName] = Field([], description=LOGGERS)


class ComparedMethod(Parameters):
    """A method in a study, with its training annotation."""

    method: MethodChoice = Field(description="Method to train.")
    head: HeadChoice | None = Field(None, description="Head; null: the method's default head.")
    annotator: AnnotatorChoice = Field(IMAGE_LEVEL, description="Training annotation.")
    label: str = Field("", description="Name in tables; by default the method's name.")
    train_images: int | None = Field(
        None,
        ge=1,
        description="Number of training images to annotate, drawn by the seed, with the same share of the validation "
        "images; null: all. Methods with the same label and annotator form one curve in the report.",
    )
    train_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Instead of train_images: the share of the training images to annotate. Training takes more "
        "epochs, so that it makes as many steps as with all images.",
    )
    budgets: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [],
        description="Instead of one method: several, one with each of these shares, such as [0.12, 0.25, 0.5, 1]. "
        "Their results are the method's curve of quality against annotation time.",
    )

    @model_validator(mode="after")
    def _one_amount(self) -> ComparedMethod:
        given = [name for name in ("train_images", "train_share", "budgets") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"expected one of train_images, train_share and budgets, got {' and '.join(given)}")
        if len(set(self.budgets)) < len(self.budgets):
            raise ValueError(f"budgets: expected distinct shares, got {self.budgets}")
        return self


class Study(Parameters):
    """What `micraframe study run` reads: datasets x methods x seeds, measured by metrics."""

    datasets: list[DatasetChoice] = Field(min_length=1, description="Datasets to learn from and to test on.")
    methods: list[ComparedMethod] = Field(min_length=1, description="Methods, each with its training annotation.")
    metrics: list[MetricChoice] = Field(
        [Choice(name="micraframe/classification"), Choice(name="micraframe/overlap")],
        min_length=1,
        description="Metrics.",
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="Seeds; every method is trained once with each."
    )
    primary_metric: str = Field("iou", description="The metric of the report's figures and examples.")
    compared: list[str] = Field(
        ["correct", "iou", "iou_if_present"],
        description="Further metrics in the report's table; differences in them are tested.",
    )
    comparisons: list[tuple[str, str]] | None = Field(
        None,
        description="The pairs of methods that the question is about, by their names in tables: METHOD, or METHOD "
        "(ANNOTATION) where a method learns from several. Their differences in the primary metric are tested and "
        "corrected together; all other differences are exploratory.",
    )
    reference: str | None = Field(
        None,
        description="Instead of comparisons: the method, named as there, with which all others are compared.",
    )
    margin: float | None = Field(
        None,
        gt=0,
        description="The largest difference in the primary metric that does not matter: planned comparisons are also "
        "tested for equivalence within it.",
    )
    tuning_images: int = Field(
        50,
        ge=0,
        description="Validation images, drawn by the seed, on which thresholds are tuned. Results with fixed "
        "thresholds, and with thresholds tuned on the test images, are reported alongside; 0 disables tuning.",
    )
    tuning_annotator: AnnotatorChoice = Field(
        Choice(name="micraframe/full"),
        description="Annotation of the tuning images; its time is added to that of the training annotation.",
    )
    label_criteria: bool = Field(
        False,
        description="Whether to judge every method on the tuning images by their labels alone as well, for choosing "
        "among methods without masks; this makes studies slower.",
    )
    prices: Prices = Field(Prices(), description="How long annotation takes; changing it trains and annotates nothing.")
    tiling: Tiling | None = Field(
        None, description="How large images are cut into tiles, the same for every method; null: they are not."
    )
    ceilings: bool = Field(
        True,
        description="Whether to measure each training annotation as if it were a prediction: the best that boxes, for "
        "example, can reach.",
    )
    pictures: int = Field(6, ge=0, description="Number of test images of each dataset to draw.")
    device: str = Field("auto", description=DEVICE)
    precision: Precision = Field("auto", description=PRECISION)
    loggers: list[LoggerName] = Field([], description=LOGGERS)

    @model_validator(mode="after")
    def _one_plan(self) -> Study:
        if self.comparisons and self.reference:
            raise ValueError("expected comparisons or reference, got both; remove one of them")
        if self.margin and not (self.comparisons or self.reference):
            raise ValueError("expected comparisons or reference with margin, got neither; add what it applies to")
        return self

    @model_validator(mode="after")
    def _judged_on_some(self) -> Study:
        if self.label_criteria and not self.tuning_images:
            raise ValueError("expected tuning_images of at least 1 with label_criteria, got 0; set tuning_images")
        return self


Where = Callable[[tuple[int | str, ...]], str]
"""Returns the position of a key, given the steps that lead to it: `nuclei.yaml:3: `, or nothing."""


def read(path: Path, model: type[Config]) -> Config:
    """Read a YAML file into a configuration.

    Raises:
        ConfigError: If the file cannot be read or is not YAML, or a value is not allowed: with file, line and key.
    """
    return parse(_text(path), model, str(path))


def load(path: Path, model: type[Config]) -> Config:
    """Read a YAML file into a configuration and `resolve` it; errors in components name their lines too.

    Raises:
        PluginError: As `resolve`, with file and line.
        ConfigError: As `read` and `resolve`, with file and line.
    """
    tree = _tree(_text(path), model, str(path))
    return resolve(_validated(tree, model, str(path)), lambda steps: f"{path}:{_line(tree, steps)}: ")


def parse(text: str, model: type[Config], name: str = "configuration") -> Config:
    """Read YAML text into a configuration; `name` stands for the file in errors.

    Raises:
        ConfigError: If it is not YAML or a value is not allowed: with line and key.
    """
    return _validated(_tree(text, model, name), model, name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; name a YAML file in UTF-8") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {reason}; name a YAML file in UTF-8") from error


def _tree(text: str, model: type[BaseModel], name: str) -> CommentedMap:
    try:
        tree = YAML(typ="rt").load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise ConfigError(f"{where}: this is not valid YAML: {reason}; correct the line") from error
    if not isinstance(tree, CommentedMap):
        found = "nothing" if tree is None else f"a {'list' if isinstance(tree, list) else type(tree).__name__}"
        raise ConfigError(f"{name}: expected keys and values, got {found}; keys are: {_fields(model)}")
    return tree


def _validated(tree: CommentedMap, model: type[Config], name: str) -> Config:
    try:
        return model.model_validate(_plain(tree))
    except ValidationError as error:
        if other := _other_command(tree, model):
            raise ConfigError(f"{name}: {other}") from error
        # A misspelt key is one mistake, although it is unknown and the right one is missing.
        unknown = [str(key) for key in tree if key not in model.model_fields]
        hints = {key: registry.hint(key, list(model.model_fields)) for key in unknown}
        lines = []
        for problem in error.errors(include_url=False):
            key = ".".join(str(step) for step in problem["loc"])
            if problem["type"] == "missing" and f"did you mean {key!r}?" in hints.values():
                continue
            reason = registry.expectation(problem)
            if problem["type"] == "extra_forbidden":
                reason = f"there is no key {problem['loc'][-1]!r} here"
                if len(problem["loc"]) == 1:
                    reason += f"; {hints[key]}"
            lines.append(f"{name}:{_line(tree, problem['loc'])}: {key}: {reason}")
        raise ConfigError("\n".join(lines)) from error


def _other_command(tree: CommentedMap, model: type[BaseModel]) -> str:
    """Return that a file is meant for another command than the one that reads it, or nothing."""
    if model is not Study and {"datasets", "methods"} <= tree.keys():
        return "this looks like a study; use micraframe study run"
    if model is Study and "dataset" in tree and not {"datasets", "methods"} & tree.keys():
        command = "finetune" if "training" in tree else "train"
        return f"expected a study, with datasets and methods, got one dataset; use micraframe {command}"
    return ""


def resolve(config: Config, where: Where = lambda steps: "") -> Config:
    """Return the configuration with every component looked up and every default written out.

    Names become `plugin/name`, so that results record which plugin was used.

    Args:
        config: With names as in the file.
        where: Returns the beginning of an error message.

    Raises:
        PluginError: If a component is unknown or cannot be used.
        ConfigError: If a parameter of a component is unknown or its value is not allowed.
    """
    changed: dict[str, Any] = {}
    for name in type(config).model_fields:
        value, kind = getattr(config, name), kind_of(type(config), name)
        if isinstance(value, list):
            changed[name] = [
                _resolve_value(kind, item, _below(where, name, number)) for number, item in enumerate(value)
            ]
        else:
            changed[name] = _resolve_value(kind, value, _below(where, name))
    return config.model_copy(update=changed)


def _resolve_value(kind: str | None, value: Any, where: Where) -> Any:
    if kind and isinstance(value, Choice):
        return resolve_choice(kind, value, where)
    return resolve(value, where) if isinstance(value, BaseModel) else value


def resolve_choice(kind: str, choice: Choice, where: Where = lambda steps: "") -> Choice:
    """Return the choice with its qualified name and all its parameters, nested choices included."""
    try:
        entry = registry.catalog().find(kind, choice.name)
        component = registry.load(entry)
    except PluginError as error:
        raise type(error)(f"{where(('name',))}{error}") from error
    try:
        params = component.Params(**choice.params)
    except ValidationError as error:
        place = where(("params", *error.errors(include_url=False)[0]["loc"]))
        raise ConfigError(
            f"{place}{kind} {choice.name!r}: {registry.explain(error, component.Params.model_fields)}"
        ) from error
    return Choice(name=entry.qualified, params=resolve(params, _below(where, "params")).model_dump(mode="json"))


def build_learner(role: str, choice: Choice, needed: Annotation) -> Method[Any]:
    """Return a method that another one trains.

    Args:
        role: What it is to the other, such as teacher; for error messages.
        choice: Its name and parameters.
        needed: What it must be able to learn from.

    Raises:
        ConfigError: If it cannot.
        PluginError: If it is not installed.
    """
    method = registry.build("method", choice.name, **choice.params)
    if needed not in method.learns_from:
        raise ConfigError(
            f"{role}: expected a method that learns from {needed}, got {choice.name!r}, which learns from "
            f"{' or '.join(sorted(method.learns_from))}; choose another"
        )
    return method


def _below(where: Where, *steps: int | str) -> Where:
    return lambda further: where((*steps, *further))


def to_yaml(config: BaseModel) -> str:
    """Return the configuration as YAML, every key written out."""
    stream = StringIO()
    writer = YAML()
    writer.default_flow_style = False
    writer.dump(config.model_dump(mode="json"), stream)
    return stream.getvalue()


def parse_choice(text: str) -> Choice:
    """Read a component from one word of a command line: `NAME`, or `NAME:KEY=VALUE,KEY=VALUE`.

    A value is YAML, and dots lead to nested parameters: `pca:weight=coarse`,
    `semantic:mask_threshold.name=fixed,mask_threshold.value=0.5`.

    Raises:
        ConfigError: If the text has another form.
    """
    name, _, rest = text.partition(":")
    params: dict[str, Any] = {}
    for part in _split(rest) if rest else ():
        key, equals, written = part.partition("=")
        *outer, last = key.strip().split(".")
        try:
            value = _plain(YAML(typ="rt").load(written))
        except YAMLError as error:
            raise ConfigError(f"{text!r}: expected YAML after {key}=, got {written!r}") from error
        inner = params
        for step in outer:
            inner = inner.setdefault(step, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{text!r}: {step} has both a value and keys; give one of them")
        if not (name and equals and all((*outer, last))) or last in inner:
            raise ConfigError(
                f"{text!r}: expected NAME or NAME:KEY=VALUE,KEY=VALUE with each key once, got {part!r}; "
                "for example pca:weight=coarse"
            )
        inner[last] = value
    if not name:
        raise ConfigError(f"{text!r}: expected NAME or NAME:KEY=VALUE,KEY=VALUE; for example pca:weight=coarse")
    return Choice(name=name, params=params)


def _split(text: str) -> Iterator[str]:
    """Split a text at the commas that are not inside brackets or quotes."""
    start = depth = 0
    quote = ""
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "," and not depth:
            yield text[start:place]
            start = place + 1
        else:
            depth += (character in "[{") - (character in "]}")
    yield text[start:]


def kind_of(model: type[BaseModel], field: str) -> str | None:
    """Return the kind of component that a field chooses; None if the field is no `Choice`."""
    info = model.model_fields[field]
    # As in `list[Annotated[Choice, Kind(...)]]` and `Annotated[Choice, Kind(...)] | None`.
    inner = (getattr(part, "__metadata__", ()) for part in get_args(info.annotation))
    marks = itertools.chain(info.metadata, *inner)
    return next((mark.name for mark in marks if isinstance(mark, Kind)), None)


def _fields(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _plain(node: Any) -> Any:
    """Convert ruamel's annotated containers and scalars to plain Python values."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _line(tree: Any, path: tuple[int | str, ...]) -> int:
    """Return the line, counted from 1, of the deepest step of `path` that the file has."""
    node, line = tree, tree.lc.line
    for step in path:
        if isinstance(node, CommentedMap) and step in node:
            line = node.lc.key(step)[0]
        elif isinstance(node, CommentedSeq) and isinstance(step, int) and step < len(node):
            line = node.lc.item(step)[0]
        else:
            break
        node = node[step]
    return int(line) + 1
