"""`micraframe demo`: the whole way on embedded data, without network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from micraframe.cli.output import AsJson

if TYPE_CHECKING:
    from micraframe.config import Study


def demo(
    output: Annotated[Path, typer.Option(help="The folder for results; an interrupted run there is continued.")] = Path(
        "demo"
    ),
    as_json: AsJson = False,
) -> None:
    """Learn to segment handwritten digits from image-level labels, and compare: minutes on two cores."""
    from importlib import resources

    from micraframe import config
    from micraframe.cli.study import run_and_print

    text = resources.files("micraframe.study").joinpath("demo.yaml").read_text(encoding="utf-8")
    study, missing = _what_is_there(config.parse(text, config.Study, "demo.yaml"))
    for reason in missing:
        print(f"left out: {reason}", file=sys.stderr)
    run_and_print(study, output, as_json)


def _what_is_there(study: Study) -> tuple[Study, list[str]]:
    """Return the study without the methods of plugins that are not installed, and what is missing."""
    from micraframe import registry
    from micraframe.errors import UnknownComponent

    there, missing = [], []
    for contender in study.contenders:
        try:
            registry.catalog().find("method", contender.method.name)
        except UnknownComponent:
            name = contender.method.name
            missing.append(f"{contender.label} ({contender.annotator.name}): pip install micraframe-{name}")
        else:
            there.append(contender)
    return study.model_copy(update={"contenders": there}), missing
