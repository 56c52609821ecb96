"""Configuration: what a file may say, and errors that say where it went wrong.

A component is chosen by a `Choice`: its name, and its parameters where they are not the defaults.

    method: micra-net                                      # short for {name: micra-net}
    method: {name: micra-net, params: {combiner: pca}}

This module knows no component: names are looked up, and their parameters checked, by the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from micraframe import registry
from micraframe.errors import ConfigError, PluginError
from micraframe.interfaces import Parameters
from micraframe.tiling import Tiling

Model = TypeVar("Model", bound=BaseModel)


class Choice(BaseModel):
    """A component by name, with its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="The component's name, or plugin/name.")
    params: dict[str, Any] = Field(default={}, description="Its parameters; what is not named keeps its default.")

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

Precision = Literal["auto", "float32", "bfloat16"]


class Train(Parameters):
    """What `micraframe train` reads: one method, one dataset, one annotation."""

    dataset: DatasetChoice = Field(description="What to learn from.")
    annotator: AnnotatorChoice = Field(Choice(name="image-level"), description="What the method is told of it.")
    method: MethodChoice = Field(Choice(name="micra-net"), description="What learns.")
    seed: int = Field(0, ge=0, description="Fixes everything on a CPU.")
    device: str = Field("auto", description="auto (a GPU when there is one), cpu, cuda, cuda:1, mps.")
    precision: Precision = Field("auto", description="auto (bfloat16 where it helps), float32 or bfloat16.")


class FineTune(Parameters):
    """What `micraframe finetune` reads: what a trained model is to go on learning from."""

    dataset: DatasetChoice = Field(description="What to learn from; its classes are the model's.")
    annotator: AnnotatorChoice = Field(Choice(name="image-level"), description="What the model is told of it.")
    training: dict[str, Any] = Field({}, description="How it learns, where that is not how the model has learned.")
    seed: int = Field(0, ge=0, description="Fixes everything on a CPU.")
    device: str = Field("auto", description="auto (a GPU when there is one), cpu, cuda, cuda:1, mps.")
    precision: Precision = Field("auto", description="auto (bfloat16 where it helps), float32 or bfloat16.")


class Contender(Parameters):
    """One method in a study, and the annotation that it is given."""

    method: MethodChoice = Field(description="What learns.")
    annotator: AnnotatorChoice = Field(Choice(name="image-level"), description="What it is told.")
    label: str = Field("", description="Its name in tables; the method's name where empty.")
    images: int | None = Field(
        None,
        ge=1,
        description="So many of the training images are annotated, drawn by the seed, and the same share of the "
        "validation images; none: all. Contenders of one label and annotator are one curve in the report.",
    )


class Study(Parameters):
    """What `micraframe study run` reads: datasets x contenders x seeds, measured by metrics."""

    datasets: list[DatasetChoice] = Field(min_length=1, description="What to learn from and test on.")
    contenders: list[Contender] = Field(min_length=1, description="Methods, each with the annotation it is given.")
    metrics: list[MetricChoice] = Field(
        [Choice(name="classification"), Choice(name="overlap")], min_length=1, description="What is measured."
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="One training of everything for each."
    )
    primary: str = Field("iou", description="The metric that the report's figures and examples go by.")
    compared: list[str] = Field(
        ["correct", "iou", "iou_if_present"],
        description="The metrics, besides the primary one, in the report's table, whose differences are tested.",
    )
    tune: int = Field(
        50,
        ge=0,
        description="Validation images, drawn by the seed, on which thresholds are tuned, beside the fixed ones and "
        "those tuned on the test images; 0 tunes none.",
    )
    tuning_annotator: AnnotatorChoice = Field(
        Choice(name="full"), description="How these are annotated, which goes on the bill of tuned thresholds."
    )
    tiling: Tiling | None = Field(
        None, description="How large test images are cut, for every method that a head decides for; none: not at all."
    )
    pictures: int = Field(6, ge=0, description="Number of test images of each dataset that are drawn.")
    device: str = Field("auto", description="auto (a GPU when there is one), cpu, cuda, cuda:1, mps.")
    precision: Precision = Field("auto", description="auto (bfloat16 where it helps), float32 or bfloat16.")


Where = Callable[[tuple[int | str, ...]], str]
"""Says where a key stands, given the steps that lead to it: `nuclei.yaml:3: `, or nothing."""


def read(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into a configuration.

    Raises:
        ConfigError: If there is no such file, it is not YAML, or a value is not allowed: with file, line and key.
    """
    return parse(_text(path), model, str(path))


def load(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into a configuration, and `resolve` it; what is wrong with a component is said with its line.

    Raises:
        PluginError: As `resolve`, with file and line.
        ConfigError: As `read` and `resolve`, with file and line.
    """
    tree = _tree(_text(path), model, str(path))
    return resolve(_validated(tree, model, str(path)), lambda steps: f"{path}:{_line(tree, steps)}: ")


def parse(text: str, model: type[Model], name: str = "configuration") -> Model:
    """Read YAML text into a configuration; `name` stands for the file in errors.

    Raises:
        ConfigError: If it is not YAML or a value is not allowed: with line and key.
    """
    return _validated(_tree(text, model, name), model, name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _tree(text: str, model: type[BaseModel], name: str) -> CommentedMap:
    try:
        tree = YAML(typ="rt").load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise ConfigError(f"{where}: this is not YAML: {reason}") from error
    if not isinstance(tree, CommentedMap):
        raise ConfigError(f"{name}: a mapping of keys to values is wanted, beginning with one of {_fields(model)}")
    return tree


def _validated(tree: CommentedMap, model: type[Model], name: str) -> Model:
    try:
        return model.model_validate(_plain(tree))
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            key = ".".join(str(step) for step in problem["loc"])
            reason = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                reason = f"there is no key {problem['loc'][-1]!r} here"
                if len(problem["loc"]) == 1:
                    reason += f"; there are: {_fields(model)}"
            lines.append(f"{name}:{_line(tree, problem['loc'])}: {key}: {reason}")
        raise ConfigError("\n".join(lines)) from error


def resolve(config: Model, where: Where = lambda steps: "") -> Model:
    """Return the configuration with every component looked up and every default written out.

    Names become `plugin/name`, so that results record which plugin was meant.

    Args:
        config: What was read.
        where: Begins the message of an error.

    Raises:
        PluginError: If a component is unknown or cannot be used.
        ConfigError: If a parameter of a component is unknown or its value is not allowed.
    """
    changed: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        kind = _kind(field.metadata) or _kind_of_items(field.annotation)
        if kind and isinstance(value, Choice):
            changed[name] = resolve_choice(kind, value, _below(where, name))
        elif kind and isinstance(value, list):
            changed[name] = [
                resolve_choice(kind, choice, _below(where, name, number)) for number, choice in enumerate(value)
            ]
        elif isinstance(value, BaseModel):
            changed[name] = resolve(value, _below(where, name))
        elif isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
            changed[name] = [
                resolve(item, _below(where, name, number)) if isinstance(item, BaseModel) else item
                for number, item in enumerate(value)
            ]
    return config.model_copy(update=changed)


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


def _below(where: Where, *steps: int | str) -> Where:
    return lambda further: where((*steps, *further))


def to_yaml(config: BaseModel) -> str:
    """Return the configuration as YAML, every key written out."""
    stream = StringIO()
    writer = YAML()
    writer.default_flow_style = False
    writer.dump(config.model_dump(mode="json"), stream)
    return stream.getvalue()


def kind_of(model: type[BaseModel], field: str) -> str | None:
    """Return the kind of component that a field chooses, or None where it chooses none."""
    info = model.model_fields[field]
    return _kind(info.metadata) or _kind_of_items(info.annotation)


def _kind(metadata: Any) -> str | None:
    return next((mark.name for mark in metadata if isinstance(mark, Kind)), None)


def _kind_of_items(annotation: Any) -> str | None:
    """Find the kind in `list[Annotated[Choice, Kind(...)]]` and `Annotated[Choice, Kind(...)] | None`."""
    for part in get_args(annotation):
        found = _kind(getattr(part, "__metadata__", ()))
        if found:
            return found
    return None


def _fields(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _plain(node: Any) -> Any:
    """Turn ruamel's annotated containers and scalars into Python's own."""
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
