"""`micraframe import-zoo`: the published models of the MICRA-Net paper, as models of micraframe."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from micraframe.cli.output import AsJson, print_records
from micraframe.errors import MissingDependency
from micraframe.runtime.files import refuse_existing


def import_zoo(
    file: Annotated[Path, typer.Argument(help="A published model file (HDF5).")],
    output: Annotated[
        Path, typer.Option(help="Folder for the models, each in ARCHITECTURE/MODEL; must be new or empty.")
    ],
    dataset: Annotated[
        str | None,
        typer.Option(help="f-actin, ctc, em-axon or p-vivax: what they learned from. Default: inferred from the file."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="official, as in the published code, or paper, as in its text.")
    ] = "official",
    intensities: Annotated[
        tuple[float, float] | None,
        typer.Option(help="For f-actin: MIN and MAX of the scaling of images, which are not in the file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert every MICRA-Net of a published model file.

    The models have the combiner and the head of the published code, and the thresholds in the file, where it has any.
    Folds of one model become one model, whose maps are their mean. Requires the plugin micraframe-paper.
    """
    refuse_existing(output)
    try:
        zoo = importlib.import_module("micraframe_paper.zoo")
    except ImportError as error:
        raise MissingDependency(
            f"import-zoo: cannot import plugin micraframe-paper: {error}; pip install micraframe-paper"
        ) from error
    records = [
        {
            "model": str(folder),
            "dataset": made.info.name,
            "classes": ", ".join(made.info.classes),
            "folds": len(model.folds),
            "presence_threshold": ", ".join(f"{value:g}" for value in model.thresholds or ()),
        }
        for folder, model, made in zoo.import_zoo(file, output, dataset, preset, intensities)
    ]
    print_records(records, as_json)
