"""`micraframe demo`: a complete study on embedded data, without network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from micraframe import registry
from micraframe.cli.output import AsJson
from micraframe.errors import UnknownComponent

if TYPE_CHECKING:
    from micraframe.config import Study

_PLUGINS: Final = {"micraframe/best-from-labels": "micraframe-unet"}
"""The plugin that a method of core's builds on."""


def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results; an interrupted demo in it is resumed. Default: demo, with --digits: digits."
        ),
    ] = None,
    digits: Annotated[
        bool, typer.Option("--digits", help="Handwritten digits of ten classes instead: ten minutes on two cores.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes to run it in; more than one need the extra dask and share the cores.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Learn to segment nuclei from labels and from outlines, and compare: minutes on two cores."""
    from importlib import resources

    from micraframe import config
    from micraframe.cli.study import run_and_print

    name = "digits" if digits else "demo"
    text = resources.files("micraframe.study").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    study, missing = installed_part(config.parse(text, config.Study, f"{name}.yaml"))
    for reason in missing:
        print(f"not installed: {reason}", file=sys.stderr)
    executor = None
    if workers > 1:
        from micraframe.study.executors import Dask

        executor = Dask(workers)
    run_and_print(study, output or Path(name), as_json, executor)


def installed_part(study: Study) -> tuple[Study, list[str]]:
    """Return the study without the methods of plugins that are not installed, and how to install those."""
    found, missing = [], {}
    for compared in study.methods:
        method = compared.method
        try:
            registry.build("method", method.name, **method.params)
        except UnknownComponent:
            plugin = _PLUGINS.get(method.name, method.name.partition("/")[0])
            missing[f"{compared.label} ({compared.annotator.name}): pip install {plugin}"] = compared.label
        else:
            found.append(compared)
    # A pair names METHOD or METHOD (ANNOTATION).
    gone = tuple(f"{label} (" for label in missing.values())
    pairs = [pair for pair in study.comparisons or () if not any(f"{name} (".startswith(gone) for name in pair)]
    changes = {"methods": found, "comparisons": pairs, "margin": study.margin if pairs else None}
    return study.model_copy(update=changes), list(missing)
