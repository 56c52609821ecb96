"""`micraframe demo`: the whole way on embedded data, without network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micraframe.cli.output import AsJson


def demo(
    output: Annotated[Path, typer.Option(help="The folder for results; an interrupted run there is continued.")] = Path(
        "demo"
    ),
    as_json: AsJson = False,
) -> None:
    """Learn to segment handwritten digits from image-level labels, and compare with controls: minutes on two cores."""
    from importlib import resources

    from micraframe import config
    from micraframe.cli.study import run_and_print

    text = resources.files("micraframe.study").joinpath("demo.yaml").read_text(encoding="utf-8")
    run_and_print(config.parse(text, config.Study, "demo.yaml"), output, as_json)
