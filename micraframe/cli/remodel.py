"""`micraframe remodel`: a trained model with another head, combiner, extractor or thresholds; nothing is trained."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from micraframe import registry
from micraframe.cli.predict import Combiner, Extractor, Head, choices
from micraframe.errors import ConfigError
from micraframe.runtime.files import refuse_existing

if TYPE_CHECKING:
    from micraframe.pipeline import Pipeline

NewModel = Annotated[Path, typer.Option(help="Folder for the new model; it must be new or empty.")]


def remodel(
    model: Annotated[Path, typer.Argument(help="A saved model's folder.")],
    output: NewModel,
    head: Head = None,
    combiner: Combiner = None,
    extractor: Extractor = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A new value for a parameter of the head or of the method, as KEY=VALUE, such as "
            "presence_threshold=0.3, mask_threshold=triangle or combiner.params.weight=coarse; repeat it for "
            "more. Other parameters keep their values.",
        ),
    ] = None,
) -> None:
    """Save a trained model with other parameters that are applied after training.

    The old model stays as it is. The new one shares its weights (a hard link, or a copy where there is none) and keeps
    all thresholds that are not set here; with --head, those that were tuned for the old head are dropped.
    """
    from micraframe.config import parse_choice

    refuse_existing(output)
    if not (head or combiner or extractor or setting):
        raise ConfigError(
            "expected --head, --combiner, --extractor or --set, got none of them; give what is to change, such as "
            "--set distance=8"
        )
    for text in setting or ():
        if "=" not in text:
            raise ConfigError(f"--set {text}: expected KEY=VALUE, such as distance=8; add a value")
    params = choices(combiner=combiner, extractor=extractor)
    changed = remodelled(model, head, params, parse_choice("--set:" + ",".join(setting)).params if setting else {})
    changed.save(output, like=model)
    print(f"Model: {output}")


def remodelled(model: Path, head: str | None, params: dict[str, Any], settings: Mapping[str, Any]) -> Pipeline:
    """Return a saved model with another head and other parameters of its method, once it has predicted a blank image.

    The settings are further parameters, of the head if it has one of the name and otherwise of the method; mappings
    change those of their keys only.

    Raises:
        ConfigError: If a parameter does not exist or determines what was learned, or the model cannot predict with it.
    """
    from micraframe.config import parse_choice
    from micraframe.interfaces import Method
    from micraframe.modelfile import load_model
    from micraframe.pipeline import load, rehearse

    saved = load_model(model)
    chosen = saved.head if head is None else parse_choice(head)
    fields = registry.load(registry.catalog().find("head", chosen.name)).Params.model_fields
    of_head = {key: value for key, value in settings.items() if key in fields}
    of_method = {key: _merged(saved.method.params.get(key), settings[key]) for key in settings.keys() - of_head}
    trained = registry.load(registry.catalog().find("method", saved.method.name))
    assert issubclass(trained, Method)
    if unknown := sorted(of_method.keys() - trained.Params.model_fields.keys()):
        known = [*fields, *sorted(trained.inference_params)]
        raise ConfigError(
            f"--set {unknown[0]}: neither head {registry.short_name(chosen.name)} nor method "
            f"{registry.short_name(saved.method.name)} has such a parameter; {registry.hint(unknown[0], known)}"
        )
    if twice := sorted(params.keys() & of_method):
        raise ConfigError(f"--set {twice[0]}: expected it or --{twice[0]}, got both; leave one out")
    loaded = load(model, "cpu", head=None if head is None else chosen, **params, **of_method)
    if "mask" in loaded.origins and loaded.method != saved.method:
        print(
            f"warning: the mask threshold ({loaded.origins['mask']}) was tuned for the maps of the old model; tune it "
            "again with micraframe tune",
            file=sys.stderr,
        )
    if of_head:
        current = loaded.head.params.model_dump(mode="json")
        values = {key: _merged(current[key], value) for key, value in of_head.items()}
        other = loaded.with_head(chosen.model_copy(update={"params": current | values}))
        origins = {kind: each for kind, each in loaded.origins.items() if f"{kind}_threshold" not in of_head}
        untuned = None
        if origins and loaded.untuned is not None:
            before = loaded.untuned.params.model_dump(mode="json")
            untuned = loaded.with_head(chosen.model_copy(update={"params": before | values})).head
        loaded = replace(other, origins=origins, untuned=untuned)
    rehearse(loaded, loaded.info.image_size or (256, 256))
    return loaded


def _merged(current: Any, change: Any) -> Any:
    """Return a value with those keys changed that a mapping names; anything else replaces it."""
    if not (isinstance(current, Mapping) and isinstance(change, Mapping)):
        return change
    return {**current, **{key: _merged(current.get(key), value) for key, value in change.items()}}
