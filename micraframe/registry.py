"""Discovers plugins, and builds their components by kind and name.

Discovery asks each plugin for its records in a `try` of its own and accepts the plugin whole or rejects it whole. One
that fails is kept as a `Failure`, causes one warning, and is named by every later "unknown name" error. Nothing is
registered by side effect: discovery returns one frozen `Catalog`.

Two environment variables control discovery: `MICRAFRAME_DISABLE_PLUGINS=a,b` skips the plugins of these names, and
`MICRAFRAME_STRICT_PLUGINS=1` makes a failing plugin an error.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, cast, overload

import pluggy

from micraframe import plugin
from micraframe.errors import (
    AmbiguousComponent,
    ConfigError,
    InterfaceError,
    MissingDependency,
    PluginError,
    PluginWarning,
    UnknownComponent,
    reason_of,
)
from micraframe.plugin import KINDS, Component

if TYPE_CHECKING:
    from micraframe.interfaces import (
        Annotator,
        Backbone,
        Combiner,
        Configured,
        Dataset,
        Extractor,
        Head,
        Method,
        Metric,
    )

BUILTIN = "micraframe"

_EXPECTED: Final[Mapping[str, str]] = {
    "literal_error": "{expected}",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "{min_length} or more entries",
    "too_long": "no more than {max_length} entries",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "none_required": "null",
}
"""Expected value for each type of pydantic error; braces name entries of the error's context."""

_UNION_STEP: Final = re.compile(r"int|float|bool|str|none|constrained-\w+|(literal|tuple|list|dict)\[.*\]")
"""What pydantic inserts into the path of a problem for each type of a union."""

_ALMOST: Final = 0.85
"""Similarity from which a component of another kind is suggested for an unknown name."""


@dataclass(frozen=True)
class Plugin:
    """A plugin that works.

    Attributes:
        name: Name of its entry point.
        distribution: The distribution that it belongs to.
        version: That distribution's version.
        components: What it offers.
    """

    name: str
    distribution: str
    version: str
    components: tuple[Component, ...]


@dataclass(frozen=True)
class Failure:
    """A plugin that was rejected.

    Attributes:
        name: Name of its entry point.
        distribution: The distribution that it belongs to.
        reason: What went wrong, in one line.
        traceback: The whole traceback.
        inside: Whether the plugin's own code failed. Otherwise it was rejected for what it offers, or there is no such
            module, and the reason says everything.
    """

    name: str
    distribution: str
    reason: str
    traceback: str
    inside: bool


@dataclass(frozen=True)
class CatalogEntry:
    """A component and the plugin that offers it."""

    component: Component
    plugin: Plugin

    @property
    def qualified(self) -> str:
        """The unambiguous name: `plugin/name`."""
        return f"{self.plugin.name}/{self.component.name}"


@dataclass(frozen=True)
class Catalog:
    """What discovery found.

    Attributes:
        plugins: The plugins that work, the built-in one first, then by name.
        failures: The plugins that were rejected.
    """

    plugins: tuple[Plugin, ...]
    failures: tuple[Failure, ...]

    def entries(self, kind: str | None = None) -> tuple[CatalogEntry, ...]:
        """Return all components, or those of one kind, ordered by kind, then by name."""
        if kind is not None:
            _check_kind(kind)
        found = [
            CatalogEntry(component, owner)
            for owner in self.plugins
            for component in owner.components
            if kind in (None, component.kind)
        ]
        return tuple(sorted(found, key=lambda entry: (KINDS.index(entry.component.kind), entry.component.name)))

    def find(self, kind: str, name: str) -> CatalogEntry:
        """Return the one component of this kind and name.

        Args:
            kind: One of `micraframe.plugin.KINDS`.
            name: The component's name, or `plugin/name` if two plugins offer it.

        Raises:
            UnknownComponent: If there is none. The message lists other kinds that have the name, similar names, and
                rejected plugins.
            AmbiguousComponent: If several plugins offer it and `name` does not say which is meant.
        """
        matches = [entry for entry in self.entries(kind) if name in (entry.component.name, entry.qualified)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise AmbiguousComponent(
                f"{kind} {name!r} is offered by {len(matches)} plugins; "
                f"write {' or '.join(repr(entry.qualified) for entry in matches)}"
            )
        message = f"there is no {kind} {name!r}; {self._hint(kind, name)}"
        if self.failures:
            rejected = "; ".join(f"{failure.name} ({failure.reason})" for failure in self.failures)
            message += f" Plugins that could not be used: {rejected}. `micraframe plugins` shows why."
        raise UnknownComponent(message)

    def _hint(self, kind: str, name: str) -> str:
        """Suggest components of that kind with a similar name; if there are none, list all of that kind.

        A component of another kind is suggested only if its name is the same or almost the same.
        """
        others = [entry for entry in self.entries() if entry.component.kind != kind]
        same = [entry for entry in others if name in (entry.component.name, entry.qualified)]
        parts = [f"there is {_and(_indefinite(entry.component.kind) + f' {name!r}' for entry in same)}"] if same else []
        known = [entry.component.name for entry in self.entries(kind)]
        if near := _near(name, known):
            parts.append(f"did you mean {' or '.join(map(repr, near))}?")
        elif not same:
            if near := _near(name, [entry.component.name for entry in others], _ALMOST):
                meant = (f"the {e.component.kind} {e.component.name!r}" for e in others if e.component.name in near)
                parts.append(f"did you mean {' or '.join(dict.fromkeys(meant))}")
            parts.append(f"there are: {', '.join(sorted(set(known))) or 'none'}")
        return "; ".join(parts)


@functools.cache
def catalog() -> Catalog:
    """Discover all plugins, once per process; `catalog.cache_clear()` makes the next call discover them again.

    Raises:
        PluginError: If a plugin fails and `MICRAFRAME_STRICT_PLUGINS` is set.
    """
    disabled = {name.strip() for name in os.environ.get("MICRAFRAME_DISABLE_PLUGINS", "").split(",")}
    strict = os.environ.get("MICRAFRAME_STRICT_PLUGINS", "") not in ("", "0")
    working: list[Plugin] = []
    failures: list[Failure] = []
    for name, distribution, version, load in _sources():
        if name in disabled:
            continue
        try:
            if any(name == other.name for other in working):
                raise PluginError(f"another plugin is named {name!r} too; rename the entry point")
            working.append(Plugin(name, distribution, version, _components(load())))
        except (Exception, SystemExit) as error:  # a plugin's failure must not be ours
            reason = reason_of(error, typed=True)
            if strict:
                raise PluginError(f"plugin {name!r} of {distribution} {version} was rejected: {reason}") from error
            failures.append(Failure(name, distribution, reason, traceback.format_exc(), _is_inside_plugin(error)))
            warnings.warn(
                f"plugin {name!r} of {distribution} {version} was rejected: {reason}", PluginWarning, stacklevel=2
            )
    return Catalog(tuple(working), tuple(failures))


def load(entry: CatalogEntry) -> type[Configured[Any]]:
    """Import a component's class and check that it implements its kind's interface.

    Raises:
        MissingDependency: If its module needs a distribution that is not installed.
        InterfaceError: If the target is missing, does not implement its interface, or ends the program on import.
    """
    component = entry.component
    what = f"{component.kind} {entry.qualified!r} ({component.target}, {entry.plugin.distribution})"
    path, _, attribute = component.target.partition(":")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        if error.name is not None and (path == error.name or path.startswith(f"{error.name}.")):
            raise InterfaceError(f"{what}: there is no module {error.name!r}") from error
        remedy = f"; install it: pip install {component.install!r}" if component.install else ""
        raise MissingDependency(f"{what} cannot be imported: {error}{remedy}") from error
    except SystemExit as error:  # the command would end with its work undone, perhaps with exit code 0
        raise InterfaceError(f"{what}: importing module {path!r} ended the program (exit code {error.code})") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise InterfaceError(f"{what}: module {path!r} has no {attribute!r}")

    # Not at the top: the interfaces import numpy and pydantic, which listing components must not load.
    from micraframe.interfaces import INTERFACES
    from micraframe.parameters import Parameters

    interface = INTERFACES[component.kind]
    if not (isinstance(found, type) and issubclass(found, interface)):
        raise InterfaceError(f"{what}: expected a subclass of micraframe.interfaces.{interface.__name__}")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise InterfaceError(f"{what} does not implement {', '.join(missing)} of {interface.__name__}")
    parameters = getattr(found, "Params", None)
    if not (isinstance(parameters, type) and issubclass(parameters, Parameters)):
        raise InterfaceError(f"{what}: expected its Params to be a subclass of micraframe.parameters.Parameters")
    return found


@overload
def build(kind: Literal["dataset"], name: str, /, **params: Any) -> Dataset[Any]: ...
@overload
def build(kind: Literal["annotator"], name: str, /, **params: Any) -> Annotator[Any]: ...
@overload
def build(kind: Literal["backbone"], name: str, /, **params: Any) -> Backbone[Any]: ...
@overload
def build(kind: Literal["extractor"], name: str, /, **params: Any) -> Extractor[Any]: ...
@overload
def build(kind: Literal["combiner"], name: str, /, **params: Any) -> Combiner[Any]: ...
@overload
def build(kind: Literal["head"], name: str, /, **params: Any) -> Head[Any]: ...
@overload
def build(kind: Literal["method"], name: str, /, **params: Any) -> Method[Any]: ...
@overload
def build(kind: Literal["metric"], name: str, /, **params: Any) -> Metric[Any]: ...
@overload
def build(kind: str, name: str, /, **params: Any) -> Configured[Any]: ...
def build(kind: str, name: str, /, **params: Any) -> Configured[Any]:
    """Build a component.

    Args:
        kind: One of `micraframe.plugin.KINDS`.
        name: Its name, or `plugin/name`.
        **params: Its parameters; `micraframe show KIND NAME` lists them.

    Raises:
        PluginError: If there is no such component or it cannot be used.
        ConfigError: If a parameter is unknown or its value is not allowed.
    """
    entry = catalog().find(kind, name)
    component = load(entry)

    from pydantic import ValidationError

    try:
        checked = component.Params(**params)
    except ValidationError as error:
        raise ConfigError(f"{kind} {name!r}: {explain(error, component.Params.model_fields)}") from error
    return component(checked)


def explain(error: Any, known: Mapping[str, Any]) -> str:
    """Describe a pydantic `ValidationError` in one line, with similar names for an unknown parameter.

    Args:
        error: The error.
        known: The fields of the model that did not validate, by name.
    """
    parts: list[str] = []
    alternatives: dict[tuple[str, str], int] = {}  # of a union, which reports one problem for each of its types
    for problem in error.errors(include_url=False):
        where = ".".join(str(step) for step in problem["loc"] if not _UNION_STEP.fullmatch(str(step)))
        if problem["type"] == "extra_forbidden":
            *outer, last = problem["loc"]
            names = list(_fields_inside(known, outer))
            parts.append(f"there is no parameter {where!r}; {hint(str(last), names)}")
        elif problem["type"] == "missing":
            parts.append(f"parameter {where!r} is missing")
        elif not where:
            parts.append(expectation(problem))
        elif problem["type"] in _EXPECTED:
            if problem["type"] == "too_short" and len(problem["input"]) >= problem["ctx"]["min_length"]:
                continue  # its entries are wrong, which other problems say
            ending = f", got {problem['input']!r}"
            place = alternatives.setdefault((where, ending), len(parts))
            if place < len(parts):
                parts[place] = f"{parts[place].removesuffix(ending)} or {_expected(problem)}{ending}"
            else:
                parts.append(f"{where}: {expectation(problem)}")
        else:
            parts.append(f"{where}: {expectation(problem)}")
    return "; ".join(parts)


def expectation(problem: Mapping[str, Any]) -> str:
    """Describe one of pydantic's `ValidationError.errors()` as `expected X, got Y`."""
    message, got = problem["msg"].removeprefix("Value error, "), problem["input"]
    if problem["type"] == "missing":
        return "expected a value, got none"
    if problem["type"] in _EXPECTED:
        return f"expected {_expected(problem)}, got {got!r}"
    # About several keys at once: the message names them, and the input would be all of them.
    return message if ", got " in message or not problem["loc"] else f"{message} (got {got!r})"


def _expected(problem: Mapping[str, Any]) -> str:
    return _EXPECTED[problem["type"]].format(**problem.get("ctx", {}))


def _fields_inside(fields: Mapping[str, Any], path: Sequence[int | str]) -> Mapping[str, Any]:
    """Return the fields of the nested model at a path below a model with these fields; none if no model is there."""
    from pydantic import BaseModel

    for step in path:
        annotation = fields[str(step)].annotation if step in fields else None
        fields = annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else {}
    return fields


def _is_inside_plugin(error: BaseException) -> bool:
    """Return whether an error was raised by a plugin's own code, rather than while it was looked up or checked."""
    if isinstance(error, ModuleNotFoundError):
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        return "importlib" not in last
    return not isinstance(error, PluginError)


def _sources() -> Iterator[tuple[str, str, str, Callable[[], ModuleType]]]:
    """Yield (name, distribution, version, loader) of every plugin: the built-in one first, the others by name."""
    # A dictionary, because an editable install can list the same entry point twice.
    points = {(point.name, point.value): point for point in metadata.entry_points(group=plugin.GROUP)}
    ordered = sorted(points.values(), key=lambda point: (point.name != BUILTIN, point.name, point.value))
    for point in ordered:
        owner = point.dist
        name, version = (owner.name, owner.version) if owner else ("unknown distribution", "unknown")
        yield point.name, name, version, cast("Callable[[], ModuleType]", point.load)


def _components(module: ModuleType) -> tuple[Component, ...]:
    """Ask one plugin's entry module for its records, and check them.

    Raises:
        PluginError: If it was written for another interface version, or its records are invalid.
    """
    declared = getattr(module, "MICRAFRAME_API", None)
    if declared != plugin.API:
        raise PluginError(f"{module.__name__}: expected MICRAFRAME_API = {plugin.API}, got {declared!r}")
    # Each plugin has a manager of its own, so none can see, wrap or break another's hooks.
    manager = pluggy.PluginManager(plugin.GROUP)
    manager.add_hookspecs(plugin)
    manager.register(module)
    manager.check_pending()
    offers = manager.hook.micraframe_components()
    if not offers:
        raise PluginError(f"{module.__name__} has no @hookimpl micraframe_components that returns records")
    records = tuple(record for offer in offers for record in offer)
    seen: set[tuple[str, str]] = set()
    for record in records:
        if not isinstance(record, Component):
            raise PluginError(f"{module.__name__}: expected micraframe.plugin.Component records, got {record!r}")
        if (record.kind, record.name) in seen:
            raise PluginError(f"{module.__name__} offers {record.kind} {record.name!r} twice")
        seen.add((record.kind, record.name))
    return records


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UnknownComponent(f"there is no kind of component {kind!r}; {hint(kind, KINDS)}")


def short_name(name: str) -> str:
    """Return a component's name without its plugin's."""
    return name.rpartition("/")[2]


def hint(name: str, known: Sequence[str]) -> str:
    """Return what an error about an unknown name ends in: the known name that resembles it most, or all of them."""
    near = _near(name, known)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"


def _near(name: str, known: Sequence[str], cutoff: float = 0.5) -> list[str]:
    """Return up to three known names that resemble one, best first; a plugin's name in front of it does not count."""
    return difflib.get_close_matches(short_name(name), list(dict.fromkeys(known)), n=3, cutoff=cutoff)


def _indefinite(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _and(parts: Iterable[str]) -> str:
    *first, last = dict.fromkeys(parts)
    return f"{', '.join(first)} and {last}" if first else last
