"""`micraframe new-plugin`: the start of a plugin, which works at once."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from micraframe.plugin import KINDS


def new_plugin(
    name: Annotated[str, typer.Argument(help="The distribution's name: lower-case letters, digits and hyphens.")],
    kinds: Annotated[
        str, typer.Option(help=f"Kinds of component that it offers, with commas between them: {', '.join(KINDS)}.")
    ] = "combiner",
    output: Annotated[Path | None, typer.Option(help="Folder to write; it must not exist yet. Default: NAME.")] = None,
) -> None:
    """Write a plugin with a minimal component of each kind, and its tests. It works at once; then make it yours."""
    from micraframe.scaffold import COMPONENTS, write_plugin

    chosen = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    folder = output or Path(name)
    write_plugin(name, chosen, folder)
    where = shlex.quote(str(folder))
    print(f"{folder} offers:")
    for kind in KINDS:
        if kind in chosen:
            print(f"  {kind} {name}/{COMPONENTS[kind].name}")
    print("Next:")
    print(f"  pip install --editable {where}")
    print(f"  micraframe conformance {name}")
    print(f"  pytest {where}")
