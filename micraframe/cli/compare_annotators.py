"""`micraframe compare-annotators`: how well annotators agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micraframe.cli.output import AsJson, print_measures
from micraframe.errors import BatchError


def compare_annotators(
    folders: Annotated[
        list[Path],
        typer.Argument(help="A folder of masks for each annotator, with files of the same names.", metavar="FOLDER..."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Also write the statistics of every image and class to this CSV.")
    ] = None,
    instances: Annotated[
        bool | None,
        typer.Option(
            "--instances/--binary",
            help="Masks contain numbered objects; or all values other than 0 mean the class, and each connected "
            "component is an object. Default: --binary, but masks with several such values are refused.",
        ),
    ] = None,
    times: Annotated[
        Path | None,
        typer.Option(
            help="A CSV of how long annotations took, with columns image, annotator (the name of a folder) and "
            "seconds; adds the time per object."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare annotators with one another: each annotator's masks against everyone else's.

    Inter-annotator agreement is the benchmark against which to judge a method. Only images with a mask from every
    annotator, all of the same shape, are compared; the others are listed at the end, with the reason. Where nothing
    was marked, the mask is all zeros.
    """
    from micraframe import batch
    from micraframe.batch.annotators import AnnotatorStatistic
    from micraframe.runtime.tables import write_csv

    found = batch.compare_annotators(folders, instances, times)
    headings = {name: f"{name}, against the others" for name in (str(each["annotator"]) for each in found.records)}
    print_measures(found.records, "annotator", as_json, headings)
    if output is not None:
        write_csv(output, found.measured, AnnotatorStatistic)
    if found.failures:
        raise BatchError("compare-annotators", found.failures, found.done)
