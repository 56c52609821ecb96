"""`micraframe conformance`: whether the components of plugins keep the promises of their kinds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from micraframe import registry
from micraframe.cli.output import AsJson, print_json, wrapped
from micraframe.errors import ConfigError, DataError, MicraframeError, MissingDependency, PluginWarning, counted

if TYPE_CHECKING:
    from micraframe.registry import CatalogEntry
    from micraframe.testing import Report
    from micraframe.testing.report import CheckOutcome


def conformance(
    plugin: Annotated[str | None, typer.Argument(help="Name of a plugin; by default all that are installed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that every component of a plugin keeps the promises of its kind. Exit code 1 if one does not.

    A component is tried out with the example parameters in its record, or with the defaults.
    """
    records: list[dict[str, Any]] = []
    failed = 0
    for entry in _entries(plugin):
        report = _examine(entry)
        failed += bool(report.failures)
        records += _records(entry, report)
        if not as_json:
            _print(entry, report)
    for failure in registry.catalog().failures:
        if plugin in (None, failure.name):
            failed += 1
            records.append({**_EMPTY, "plugin": failure.name, "outcome": "failed", "reason": failure.reason})
            if not as_json:
                print(wrapped(f"plugin {failure.name} was rejected: {failure.reason}", "", "    "))
    if as_json:
        print_json(records)
    elif failed:
        print(f"{counted(failed, 'component')} failed")
    raise typer.Exit(failed > 0)


_ADD = "add an example to its record, or test it with `micraframe.testing.check`"
_EMPTY = dict.fromkeys(("plugin", "kind", "name", "check", "outcome", "reason"), "")


def _entries(plugin: str | None) -> list[CatalogEntry]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # a rejected plugin is a result, or not what was asked for
        found = registry.catalog()
    known = [*(each.name for each in found.plugins), *(each.name for each in found.failures)]
    if plugin is not None and plugin not in known:
        raise ConfigError(f"there is no plugin {plugin!r}; {registry.hint(plugin, known)}")
    return [entry for entry in found.entries() if plugin in (None, entry.plugin.name)]


def _examine(entry: CatalogEntry) -> Report:
    """Run all checks; of what cannot be tried out, the report has one result, which says why."""
    from micraframe.testing import examine

    component = entry.component
    try:
        if missing := _missing(entry):
            return _without_checks(entry, "not applicable", f"it requires {', '.join(missing)}; {_ADD}")
        report = examine(component.kind, entry.qualified)
    except MissingDependency as error:
        return _without_checks(entry, "not applicable", str(error))
    except MicraframeError as error:
        if isinstance(error, ConfigError) and not component.example:
            return _without_checks(entry, "not applicable", f"its defaults are not enough ({error}); {_ADD}")
        return _without_checks(entry, "failed", str(error))
    # A dataset says by such an error that its files are not here, which is no fault of it.
    lost = [each for each in report.failures[:1] if isinstance(each.error, ConfigError | DataError)]
    if component.kind == "dataset" and not component.example and lost:
        return _without_checks(entry, "not applicable", f"its data are not here: {lost[0].reason}")
    return report


def _without_checks(entry: CatalogEntry, outcome: CheckOutcome, reason: str) -> Report:
    from micraframe.testing import Report, Result

    return Report(entry.component.kind, entry.qualified, (Result("", outcome, reason),))


def _missing(entry: CatalogEntry) -> list[str]:
    """Return the parameters that are required and not in the example."""
    fields = registry.load(entry).Params.model_fields
    return [name for name, one in fields.items() if one.is_required() and name not in entry.component.example]


def _records(entry: CatalogEntry, report: Report) -> Iterator[dict[str, Any]]:
    for result in report.results:
        yield {
            "plugin": entry.plugin.name,
            "kind": report.kind,
            "name": entry.component.name,
            "check": result.check,
            "outcome": result.outcome,
            "reason": result.reason,
        }


def _print(entry: CatalogEntry, report: Report) -> None:
    print(wrapped(f"{report.kind} {report.name}: {report.summary}", "", "    "), flush=True)
    for failure in report.failures:
        print(wrapped(": ".join(filter(None, (failure.check, failure.reason))), "  ", "    "), flush=True)
