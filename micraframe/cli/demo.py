"""`micraframe demo`: a complete study on embedded data, without network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from micraframe.cli.output import AsJson

if TYPE_CHECKING:
    from micraframe.config import Study


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the results; an interrupted demo in it is resumed.")] = Path(
        "demo"
    ),
    as_json: AsJson = False,
) -> None:
    """Learn to segment handwritten digits from image-level labels, and compare methods: ten minutes on two cores."""
    from importlib import resources

    from micraframe import config
    from micraframe.cli.study import run_and_print

    text = resources.files("micraframe.study").joinpath("demo.yaml").read_text(encoding="utf-8")
    study, missing = installed_part(config.parse(text, config.Study, "demo.yaml"))
    for reason in missing:
        print(f"not installed: {reason}", file=sys.stderr)
    run_and_print(study, output, as_json)


def installed_part(study: Study) -> tuple[Study, list[str]]:
    """Return the study without the methods of plugins that are not installed, and how to install those."""
    from micraframe import registry
    from micraframe.errors import UnknownComponent

    found, missing = [], []
    for compared in study.methods:
        try:
            registry.catalog().find("method", compared.method.name)
        except UnknownComponent:
            plugin = compared.method.name.partition("/")[0]
            missing.append(f"{compared.label} ({compared.annotator.name}): pip install {plugin}")
        else:
            found.append(compared)
    return study.model_copy(update={"methods": found}), missing
