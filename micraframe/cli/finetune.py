"""`micraframe finetune`: a trained model goes on learning, from images of another device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micraframe.cli.output import ConfigFile
from micraframe.cli.train import learn


def finetune(
    model: Annotated[Path, typer.Argument(help="A saved model's folder, of micra-net.", show_default=False)],
    file: ConfigFile,
    update: Annotated[
        str,
        typer.Option(help="What learns: linear; linear+4 or linear+3,4 (stages of the backbone); or all."),
    ],
    output: Annotated[Path, typer.Option(help="The folder for the new model, its log and its checkpoints.")],
) -> None:
    """Let a trained model go on learning from another dataset; the same command resumes what was interrupted.

    The file names the dataset, and under `training` what is not as the model has learned: {epochs: 30}.
    """
    from functools import partial

    from pydantic import ValidationError

    from micraframe import config, registry
    from micraframe.errors import ConfigError
    from micraframe.micranet import MicraNet
    from micraframe.modelfile import load_model
    from micraframe.training import Recipe

    wanted = config.load(Path(file), config.FineTune)
    saved = load_model(model)
    method = registry.build("method", saved.method.name, **saved.method.params)
    if not isinstance(method, MicraNet):
        raise ConfigError(f"{model} is a model of {saved.method.name}; only those of micra-net can be fine-tuned")
    try:
        recipe = Recipe(**method.params.training.model_dump() | wanted.training)
    except ValidationError as error:
        raise ConfigError(f"{file}: training: {registry.explain(error, Recipe.model_fields)}") from error
    learn(wanted, output, method.learns_from, partial(method.load(model, "cpu").finetune, update, recipe))
