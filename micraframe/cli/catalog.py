"""`micraframe list`, `show` and `plugins`: what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from micraframe import registry
from micraframe.cli.output import AsJson, print_records
from micraframe.plugin import KINDS

KindArgument = Annotated[str, typer.Argument(help=f"One of: {', '.join(KINDS)}.", show_default=False)]


def list_components(
    kind: Annotated[str | None, typer.Argument(help="Only components of this kind.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the components that micraframe and its plugins offer."""
    records = [
        {
            "kind": entry.component.kind,
            "name": entry.component.name,
            "plugin": entry.plugin.name,
            "version": entry.plugin.version,
            "summary": entry.component.summary,
        }
        for entry in registry.catalog().entries(kind)
    ]
    print_records(records, as_json)


def show(
    kind: KindArgument,
    name: Annotated[str, typer.Argument(help="The component's name, or plugin/name.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show a component: what it is, where it comes from, and its parameters."""
    entry = registry.catalog().find(kind, name)
    component = registry.load(entry)

    from pydantic_core import PydanticUndefined

    from micraframe.config import kind_of

    records: list[dict[str, Any]] = []
    for field, info in component.Params.model_fields.items():
        chosen = kind_of(component.Params, field)
        default = info.get_default(call_default_factory=True)
        records.append(
            {
                "parameter": field,
                "type": chosen or _type(info.annotation),
                "default": "required" if default is PydanticUndefined else _default(default),
                "description": info.description or "",
            }
        )
    if as_json:
        print_records(records, as_json)
        return
    print(f"{kind} {entry.qualified}  ({entry.plugin.distribution} {entry.plugin.version})")
    print(f"{entry.component.target}\n")
    print(f"{(component.__doc__ or entry.component.summary).strip()}\n")
    print_records(records, as_json) if records else print("It has no parameters.")


def plugins(as_json: AsJson = False) -> None:
    """List the plugins that were found, and why others could not be used."""
    found = registry.catalog()
    if as_json:
        records = [
            {"plugin": p.name, "distribution": p.distribution, "version": p.version, "components": len(p.components)}
            for p in found.plugins
        ]
        rejected = [
            {"plugin": f.name, "distribution": f.distribution, "reason": f.reason, "traceback": f.traceback}
            for f in found.failures
        ]
        print_records([*records, *rejected], as_json)
        return
    print_records(
        [
            {"plugin": p.name, "distribution": p.distribution, "version": p.version, "components": len(p.components)}
            for p in found.plugins
        ],
        as_json,
    )
    for failure in found.failures:
        print(f"\nplugin {failure.name!r} of {failure.distribution} cannot be used:\n{failure.traceback}")


def _type(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _default(value: Any) -> Any:
    from pydantic import BaseModel

    from micraframe.config import Choice

    if isinstance(value, Choice) and not value.params:
        return value.name
    return str(value.model_dump(mode="json")) if isinstance(value, BaseModel) else str(value)
