"""`micraframe agreement`: how far annotators agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micraframe.cli.output import AsJson, print_records


def agreement(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="A folder of masks for each annotator, with files of the same names.",
            metavar="FOLDER...",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="A CSV for the numbers of every image and class.", show_default=False)
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Masks hold numbered objects; else each connected piece is one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare annotators with one another: each one's masks against all others', undefined numbers left out.

    What a method reaches against one annotator is to be held against what another annotator does.
    """
    from micraframe.batch import compare_annotators
    from micraframe.batch.agreement import Agreement, summarise
    from micraframe.errors import BatchError
    from micraframe.study.tables import write_csv

    found, failures = compare_annotators(folders, instances)
    print_records(summarise(found), as_json)
    if output is not None:
        write_csv(output, found, Agreement)
    if failures:
        raise BatchError("agreement", failures, len({one.image for one in found}))
