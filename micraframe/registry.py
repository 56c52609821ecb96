"""Finds plugins, and from them builds components by kind and name.

Discovery asks every plugin for its records in a `try` of its own and takes the plugin whole or rejects it whole: one
that fails is kept as a `Failure`, warned of once, and named by every later "unknown name" error. Nothing is
registered by side effect; all that was found is one frozen `Catalog`.

Two environment variables steer discovery: `MICRAFRAME_DISABLE_PLUGINS=a,b` skips the plugins of these names, and
`MICRAFRAME_STRICT_PLUGINS=1` makes a failing plugin an error.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast, overload

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


@dataclass(frozen=True)
class Plugin:
    """A plugin that was taken.

    Attributes:
        name: The name of its entry point.
        distribution: The distribution that brought it.
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
        name: The name of its entry point.
        distribution: The distribution that brought it.
        reason: What went wrong, in one line.
        traceback: The whole traceback.
    """

    name: str
    distribution: str
    reason: str
    traceback: str


@dataclass(frozen=True)
class Entry:
    """A component together with the plugin that offers it."""

    component: Component
    plugin: Plugin

    @property
    def qualified(self) -> str:
        """The name that cannot be mistaken: `plugin/name`."""
        return f"{self.plugin.name}/{self.component.name}"


@dataclass(frozen=True)
class Catalog:
    """All that discovery found.

    Attributes:
        plugins: The plugins that were taken, built-in first, then by name.
        failures: The plugins that were rejected.
    """

    plugins: tuple[Plugin, ...]
    failures: tuple[Failure, ...]

    def entries(self, kind: str | None = None) -> tuple[Entry, ...]:
        """Return all components, or those of one kind, in the order of kinds, then of names."""
        if kind is not None:
            _check_kind(kind)
        found = [
            Entry(component, owner)
            for owner in self.plugins
            for component in owner.components
            if kind in (None, component.kind)
        ]
        return tuple(sorted(found, key=lambda entry: (KINDS.index(entry.component.kind), entry.component.name)))

    def find(self, kind: str, name: str) -> Entry:
        """Return the one component of that kind and name.

        Args:
            kind: One of `micraframe.plugin.KINDS`.
            name: The component's name, or `plugin/name` where two plugins offer it.

        Raises:
            UnknownComponent: If there is none; the message lists near names and rejected plugins.
            AmbiguousComponent: If several plugins offer it and `name` does not say which.
        """
        entries = self.entries(kind)
        matches = [entry for entry in entries if name in (entry.component.name, entry.qualified)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise AmbiguousComponent(
                f"{kind} {name!r} is offered by {len(matches)} plugins; "
                f"write {' or '.join(repr(entry.qualified) for entry in matches)}"
            )
        known = [entry.component.name for entry in entries]
        near = difflib.get_close_matches(name.rpartition("/")[2], known, n=3, cutoff=0.5)
        message = f"there is no {kind} {name!r}"
        if near:
            message += f"; did you mean {' or '.join(repr(other) for other in near)}?"
        else:
            message += f"; there are: {', '.join(sorted(set(known))) or 'none'}"
        if self.failures:
            rejected = "; ".join(f"{failure.name} ({failure.reason})" for failure in self.failures)
            message += f" Plugins that could not be used: {rejected}. `micraframe plugins` shows why."
        raise UnknownComponent(message)


@functools.cache
def catalog() -> Catalog:
    """Discover all plugins, once per process; `catalog.cache_clear()` forgets them.

    Raises:
        PluginError: If a plugin fails and `MICRAFRAME_STRICT_PLUGINS` is set.
    """
    disabled = {name.strip() for name in os.environ.get("MICRAFRAME_DISABLE_PLUGINS", "").split(",")}
    strict = os.environ.get("MICRAFRAME_STRICT_PLUGINS", "") not in ("", "0")
    taken: list[Plugin] = []
    failures: list[Failure] = []
    for name, distribution, version, load in _sources():
        if name in disabled:
            continue
        try:
            if any(name == other.name for other in taken):
                raise PluginError(f"a plugin of the name {name!r} is there already; rename the entry point")
            taken.append(Plugin(name, distribution, version, _components(load())))
        except (Exception, SystemExit) as error:  # whatever a plugin raises is that plugin's failure, not ours
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            if strict:
                raise PluginError(f"plugin {name!r} of {distribution} {version} was rejected: {reason}") from error
            failures.append(Failure(name, distribution, reason, traceback.format_exc()))
            warnings.warn(
                f"plugin {name!r} of {distribution} {version} was rejected: {reason}", PluginWarning, stacklevel=2
            )
    return Catalog(tuple(taken), tuple(failures))


def load(entry: Entry) -> type[Configured]:
    """Import a component's class and check that it implements its kind's interface.

    Raises:
        MissingDependency: If its module needs a distribution that is not installed.
        InterfaceError: If the target does not exist or is not what its kind demands.
    """
    component = entry.component
    what = f"{component.kind} {entry.qualified!r} ({component.target}, {entry.plugin.distribution})"
    path, _, attribute = component.target.partition(":")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        if error.name is not None and (path == error.name or path.startswith(f"{error.name}.")):
            raise InterfaceError(f"{what}: there is no module {error.name!r}") from error
        remedy = f"; pip install {component.install!r} brings it" if component.install else ""
        raise MissingDependency(f"{what} cannot be imported: {error}{remedy}") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise InterfaceError(f"{what}: module {path!r} has no {attribute!r}")

    # Only now: the interfaces bring numpy and pydantic, which listing components must not load.
    from micraframe.interfaces import INTERFACES, Parameters

    wanted = INTERFACES[component.kind]
    if not (isinstance(found, type) and issubclass(found, wanted)):
        raise InterfaceError(f"{what} is not a subclass of micraframe.interfaces.{wanted.__name__}")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise InterfaceError(f"{what} does not implement {', '.join(missing)} of {wanted.__name__}")
    parameters = getattr(found, "Params", None)
    if not (isinstance(parameters, type) and issubclass(parameters, Parameters)):
        raise InterfaceError(f"{what}: its Params is not a subclass of micraframe.interfaces.Parameters")
    return found


@overload
def build(kind: Literal["dataset"], name: str, /, **params: Any) -> Dataset: ...
@overload
def build(kind: Literal["annotator"], name: str, /, **params: Any) -> Annotator: ...
@overload
def build(kind: Literal["backbone"], name: str, /, **params: Any) -> Backbone: ...
@overload
def build(kind: Literal["extractor"], name: str, /, **params: Any) -> Extractor: ...
@overload
def build(kind: Literal["combiner"], name: str, /, **params: Any) -> Combiner: ...
@overload
def build(kind: Literal["head"], name: str, /, **params: Any) -> Head: ...
@overload
def build(kind: Literal["method"], name: str, /, **params: Any) -> Method: ...
@overload
def build(kind: Literal["metric"], name: str, /, **params: Any) -> Metric: ...
@overload
def build(kind: str, name: str, /, **params: Any) -> Configured: ...
def build(kind: str, name: str, /, **params: Any) -> Configured:
    """Make a component.

    Args:
        kind: One of `micraframe.plugin.KINDS`.
        name: Its name, or `plugin/name`.
        **params: Its parameters; `micraframe show KIND NAME` prints them.

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
    """Say in one line what a pydantic `ValidationError` found, naming the near parameters of an unknown one.

    Args:
        error: The error.
        known: The fields of the model that was to be made, by name.
    """
    parts = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            *outer, last = problem["loc"]
            names = list(_fields_inside(known, outer))
            near = difflib.get_close_matches(str(last), names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
            parts.append(f"there is no parameter {where!r}; {hint}")
        elif problem["type"] == "missing":
            parts.append(f"parameter {where!r} is missing")
        elif not where:
            # Of several parameters together: the message names them, and all of them would be a long list.
            parts.append(problem["msg"].removeprefix("Value error, "))
        else:
            parts.append(f"{where}: {problem['msg'].removeprefix('Value error, ')} (it is {problem['input']!r})")
    return "; ".join(parts)


def _fields_inside(fields: Mapping[str, Any], path: Sequence[int | str]) -> Mapping[str, Any]:
    """Return the fields of the model that a path leads to from a model with these; none where it leads to no model."""
    from pydantic import BaseModel

    for step in path:
        annotation = fields[str(step)].annotation if step in fields else None
        fields = annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else {}
    return fields


def _sources() -> Iterator[tuple[str, str, str, Callable[[], ModuleType]]]:
    """Yield (name, distribution, version, loader) of every plugin: the built-in one first, the others by name."""
    # A dictionary, for an editable install can show the same entry point twice.
    points = {(point.name, point.value): point for point in metadata.entry_points(group=plugin.GROUP)}
    ordered = sorted(points.values(), key=lambda point: (point.name != BUILTIN, point.name, point.value))
    for point in ordered:
        owner = point.dist
        name, version = (owner.name, owner.version) if owner else ("unknown distribution", "unknown")
        yield point.name, name, version, cast("Callable[[], ModuleType]", point.load)


def _components(module: ModuleType) -> tuple[Component, ...]:
    """Ask one plugin's entry module for its records and check them all.

    Raises:
        PluginError: If it was written for another interface version or its records are not in order.
    """
    declared = getattr(module, "MICRAFRAME_API", None)
    if declared != plugin.API:
        raise PluginError(f"{module.__name__} declares MICRAFRAME_API = {declared!r}; this micraframe has {plugin.API}")
    # A manager of its own for every plugin: none can see, wrap or break another's hooks.
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
            raise PluginError(f"{module.__name__} offers {record!r}; a micraframe.plugin.Component is wanted")
        if (record.kind, record.name) in seen:
            raise PluginError(f"{module.__name__} offers {record.kind} {record.name!r} twice")
        seen.add((record.kind, record.name))
    return records


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"kinds are: {', '.join(KINDS)}"
        raise UnknownComponent(f"there is no kind {kind!r}; {hint}")
