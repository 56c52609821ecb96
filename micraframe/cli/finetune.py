"""`micraframe finetune`: continues training a model, with images from another device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from micraframe import registry
from micraframe.cli.output import ConfigFile
from micraframe.cli.train import train_and_save
from micraframe.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from micraframe.pipeline import Pipeline
    from micraframe.types import DatasetInfo, FitContext, Sample


def finetune(
    model: Annotated[Path, typer.Argument(help="Folder of a saved micra-net model.")],
    file: ConfigFile,
    unfreeze: Annotated[
        str,
        typer.Option(help="The layers that learn: linear, linear+4 or linear+3,4 (stages of the backbone), or all."),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the new model, its log and its checkpoints.")],
    rename: Annotated[
        list[str] | None,
        typer.Option(help="A class that the dataset calls by another name, as OLD=NEW; repeat it for more."),
    ] = None,
) -> None:
    """Continue training a model on another dataset; the same command resumes a run that was interrupted.

    The file names the dataset and, under `training`, the training parameters that differ from the model's own, such as
    {epochs: 30}. The new model has the head of the old one, without thresholds that were tuned for it, and the names
    of the dataset's classes.
    """
    from pydantic import ValidationError

    from micraframe import config, pipeline
    from micraframe.batch.splits import trained_on
    from micraframe.micranet import MicraNet, MicraNetModel
    from micraframe.modelfile import provenance
    from micraframe.runtime.numerics import numerics
    from micraframe.training import ClassifierRecipe

    settings = config.load(Path(file), config.FineTune)
    pairs = [text.partition("=") for text in rename or ()]
    if wrong := ["".join(pair) for pair in pairs if not all(pair)]:
        raise ConfigError(f"--rename {wrong[0]}: expected OLD=NEW, such as --rename ring=lattice")
    settings = settings.model_copy(update={"rename": settings.rename | {old: new for old, _, new in pairs}})
    loaded = pipeline.load(model, "cpu")
    trained = loaded.model
    if not isinstance(trained, MicraNetModel):
        raise ConfigError(f"{model}: expected a model of micra-net, got one of {loaded.method.name}")
    try:
        recipe = ClassifierRecipe(**trained.params.training.model_dump() | settings.training)
    except ValidationError as error:
        raise ConfigError(f"{file}: training: {registry.explain(error, ClassifierRecipe.model_fields)}") from error

    def fit(train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext) -> Pipeline:
        train, valid = (pipeline.checked_samples(part, MicraNet.learns_from, info) for part in (train, valid))
        info = pipeline.with_training_size(info, train)
        params = {**loaded.method.params, "training": recipe.model_dump(mode="json")}
        computed_with = numerics(context.device, context.precision)
        # An imported model has no seed.
        known = [key for key in ("seed", "data") if key in loaded.provenance]
        before = {f"before {unfreeze}: {key}": loaded.provenance[key] for key in known}
        if settings.rename:
            before[f"before {unfreeze}: classes"] = ", ".join(trained.info.classes)
        return dataclasses.replace(
            loaded.without_tuning(),
            method=loaded.method.model_copy(update={"params": params}),
            model=trained.finetune(unfreeze, recipe, train, valid, info, context, settings.rename),
            info=info,
            provenance={**provenance(context.seed, info.fingerprint, computed_with), **before},
        )

    train_and_save(settings, output, MicraNet.learns_from, fit, seen=trained_on(model.parent / "splits.csv"))
