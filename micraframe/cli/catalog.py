"""`micraframe list`, `show` and `plugins`: the components that can be used."""

from __future__ import annotations

import inspect
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from io import StringIO
from itertools import groupby
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from micraframe import registry
from micraframe.cli.output import AsJson, print_json, print_table, width, wrapped
from micraframe.errors import PluginWarning
from micraframe.plugin import KINDS

if TYPE_CHECKING:
    from pydantic import BaseModel

    from micraframe.registry import CatalogEntry

KindArgument = Annotated[str, typer.Argument(help=f"One of: {', '.join(KINDS)}.")]


def list_components(
    kind: Annotated[str | None, typer.Argument(help="List only components of this kind.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the components that micraframe and its plugins offer."""
    entries = registry.catalog().entries(kind)
    if as_json:
        print_json(
            [
                {
                    "kind": entry.component.kind,
                    "name": entry.component.name,
                    "plugin": entry.plugin.name,
                    "version": entry.plugin.version,
                    "summary": entry.component.summary,
                }
                for entry in entries
            ]
        )
        return
    column = max((len(entry.component.name) for entry in entries), default=0) + 4
    for number, (name, group) in enumerate(groupby(entries, key=lambda entry: entry.component.kind)):
        print(f"\n{name}" if number else name)
        for entry in group:
            origin = "" if entry.plugin.name == registry.BUILTIN else f" [{entry.plugin.name}]"
            start = f"  {entry.component.name}".ljust(column)
            print(wrapped(entry.component.summary + origin, start, " " * column))


def show(
    kind: KindArgument,
    name: Annotated[str, typer.Argument(help="The component's name, or plugin/name.")],
    as_json: AsJson = False,
) -> None:
    """Show a component: what it is, which plugin offers it, and its parameters with their defaults."""
    entry = registry.catalog().find(kind, name)
    component = registry.load(entry)
    parameters = list(parameter_records(component.Params, {}))
    if as_json:
        print_json(parameters)
        return
    _print_description(entry, component.__doc__ or entry.component.summary)
    if not parameters:
        print("It has no parameters.")
        return
    print("Parameters (name: type = default)\n")
    for parameter in parameters:
        _print_parameter(parameter)
    print()
    print(wrapped("Example for a configuration; leave out what you do not change:"), end="\n\n")
    print(textwrap.indent(example_of(kind, entry.component.name, component.Params), "  "), end="")


def plugins(as_json: AsJson = False) -> None:
    """List the plugins that were found, and explain why others could not be used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # printed below
        found = registry.catalog()
    records: list[dict[str, Any]] = [
        {
            "plugin": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "components": len(plugin.components),
        }
        for plugin in found.plugins
    ]
    if as_json:
        print_json(
            [
                *records,
                *(
                    {
                        "plugin": failure.name,
                        "distribution": failure.distribution,
                        "reason": failure.reason,
                        "traceback": failure.traceback,
                    }
                    for failure in found.failures
                ),
            ]
        )
        return
    print_table(records)
    for failure in found.failures:
        reason = f"\n{failure.traceback}" if failure.inside else f" {failure.reason}"
        print(f"\nplugin {failure.name!r} of {failure.distribution} cannot be used:{reason}")


def _print_description(entry: CatalogEntry, description: str) -> None:
    print(f"{entry.component.kind} {entry.qualified}  ({entry.plugin.distribution} {entry.plugin.version})")
    print(f"{entry.component.target}\n")
    for paragraph in inspect.cleandoc(description).split("\n\n"):
        indented = any(line.startswith(" ") for line in paragraph.splitlines())  # a list or a formula
        print(paragraph if indented else wrapped(paragraph), end="\n\n")
    if entry.component.citation:
        print(wrapped(f"Cite: {entry.component.citation}"), end="\n\n")


def _print_parameter(parameter: dict[str, Any]) -> None:
    indent = "  " * (parameter["parameter"].count(".") + 1)
    _, bracket, choice = parameter["parameter"].rpartition("[")
    if bracket and choice.endswith("]"):  # one of the alternatives for the parameter before
        print(wrapped(f"{{{choice[:-1]}}}: {parameter['description']}", f"{indent}  ", f"{indent}      "))
        return
    indent += "  " * parameter["parameter"].count("]")
    name = parameter["parameter"].rpartition(".")[2]
    # The defaults of a mapping are those of its keys, which follow.
    hidden = parameter["required"] or (parameter["nested"] and not isinstance(parameter["default"], list))
    default = "" if hidden else f" = {_yaml(parameter['default'])}"
    required = " (required)" if parameter["required"] else ""
    print(wrapped(f"{name}: {parameter['type']}{default}{required}", indent, f"{indent}    "))
    if parameter["description"]:
        print(wrapped(parameter["description"], f"{indent}    "))


def parameter_records(model: type[BaseModel], values: dict[str, Any], path: str = "") -> Iterator[dict[str, Any]]:
    """Yield a record of each field of a parameter model, followed by the fields of the models that are nested in it.

    Args:
        model: The model.
        values: Defaults that replace those of its fields.
        path: What comes before the names of its fields.
    """
    from pydantic_core import PydanticUndefined, to_jsonable_python

    from micraframe.config import kind_of

    for name, field in model.model_fields.items():
        default = values.get(name, field.get_default(call_default_factory=True))
        kind = kind_of(model, name)
        nested = [] if kind else list(_models(field.annotation))
        plain = to_jsonable_python(None if default is PydanticUndefined else default)
        yield {
            "parameter": f"{path}{name}",
            "type": _type_name(field.annotation, kind) + _bounds(field.metadata),
            "required": default is PydanticUndefined,
            "nested": bool(nested) and isinstance(plain, dict | list),
            "default": plain,
            "description": " ".join(filter(None, (field.description, _short_form(nested), _offered(kind)))),
        }
        if len(nested) == 1 and not _constants(nested[0]):
            given = dict(default) if isinstance(default, nested[0]) else {}
            yield from parameter_records(nested[0], given, f"{path}{name}.")
        else:
            yield from _alternatives(nested, f"{path}{name}")


def _bounds(metadata: Iterable[Any]) -> str:
    """Return the bounds of a number, such as ` (>= 0, < 1)`; nothing without any."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    marks = [mark for each in metadata for mark in getattr(each, "metadata", [each])]
    bounds = [(sign, getattr(mark, name, None)) for mark in marks for name, sign in signs.items()]
    found = [f"{sign} {value}" for sign, value in bounds if value is not None]
    return f" ({', '.join(found)})" if found else ""


def _short_form(models: list[type[BaseModel]]) -> str:
    """Return that a name alone stands for a mapping, where a model accepts one."""
    if len(models) != 1:
        return ""
    first, field = next(iter(models[0].model_fields.items()))
    try:
        models[0].model_validate(field.default)
    except ValueError:
        return ""
    return f"{field.default} alone is short for {{{first}: {field.default}}}."


def _offered(kind: str | None) -> str:
    """Return the names of the components that can be chosen."""
    if kind is None:
        return ""
    names = ", ".join(entry.component.name for entry in registry.catalog().entries(kind))
    return f"One of: {names}; see micraframe show {kind} NAME."


def example_of(kind: str, name: str, model: type[BaseModel]) -> str:
    """Return a choice of the component as YAML: with what is required, and with what is nested.

    Lists of alternatives have one entry, a default one if there are any; required values are to be filled in.
    """
    from pydantic_core import to_jsonable_python

    from micraframe.config import kind_of

    params: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        nested = [] if kind_of(model, key) else list(_models(field.annotation))
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if field.is_required():
            params[key] = "FILL-IN"
        elif nested and not isinstance(default, list | tuple):
            chosen = default if isinstance(default, nested[0]) else _first(nested)
            params[key] = {inner: value for inner, value in chosen if value is not None and value != ()}
        elif nested:
            params[key] = (default or [_first(nested)])[:1]
    if not params:  # one parameter, to show where they stand
        params = {key: field.get_default(call_default_factory=True) for key, field in model.model_fields.items()}
        params = dict(list(params.items())[:1])
    choice = {kind: {"name": name, "params": to_jsonable_python(params)}}
    text = _yaml(choice, flow=None) + "\n"
    return text if max(map(len, text.splitlines())) < width() - 2 else _yaml(choice, flow=False) + "\n"


def _first(models: list[type[BaseModel]]) -> BaseModel:
    """Return the defaults of the first model that has parameters besides its kind."""
    return next((each for each in models if len(each.model_fields) > 1), models[0])()


def _alternatives(models: list[type[BaseModel]], path: str) -> Iterator[dict[str, Any]]:
    """Yield the records of alternative models: a file chooses one by a field with a single value, its `kind`."""
    for model in models:
        constants = _constants(model)
        choice = ", ".join(f"{name}: {value}" for name, value in constants.items())
        inside = f"{path}[{choice}]"
        yield {
            "parameter": inside,
            "type": "mapping",
            "required": False,
            "nested": True,
            "default": None,
            "description": inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0],
        }
        skipped = {f"{inside}.{name}" for name in constants}
        yield from (
            record for record in parameter_records(model, {}, f"{inside}.") if record["parameter"] not in skipped
        )


def _constants(model: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of a model that can have one value only, with it."""
    return {
        name: field.default
        for name, field in model.model_fields.items()
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
    }


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the parameter models within a type."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _type_name(annotation: Any, kind: str | None) -> str:
    """Return the name of a type, in the words of a configuration file."""
    from pydantic import BaseModel

    from micraframe.config import Choice

    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is Choice:
        return kind or "component"
    if annotation is None or annotation is NoneType:
        return "null"
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(_type_name(part, kind) for part in parts))
    if origin in (list, tuple, set, frozenset):
        items = dict.fromkeys(_type_name(part, kind) for part in parts if part is not Ellipsis)
        return f"list of {' or '.join(items)}"
    if origin is not None and "__metadata__" in vars(annotation):
        return _type_name(parts[0], kind) + _bounds(annotation.__metadata__)
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _yaml(value: Any, flow: bool | None = True) -> str:
    """Return a value as YAML; a component without parameters is its name.

    `flow` is True for one line, None for the innermost mappings and lists on one line each, False for a line per value.
    """
    from ruamel.yaml import YAML

    stream, writer = StringIO(), YAML()
    writer.default_flow_style = flow
    writer.width = 1 << 20
    writer.dump(_short(value), stream)
    return stream.getvalue().removesuffix("\n").removesuffix("\n...")


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"name", "params"} and not value["params"]:
            return value["name"]
        first = {"kind": value["kind"]} if "kind" in value else {}  # what the others belong to
        return {key: _short(inner) for key, inner in (first | value).items()}
    return [_short(inner) for inner in value] if isinstance(value, list) else value
