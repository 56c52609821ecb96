"""`micraframe check`: writes out every default of a configuration, and tries out its networks and data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from micraframe import registry
from micraframe.cli.output import ConfigFile, wrapped

if TYPE_CHECKING:
    from pydantic import BaseModel

    from micraframe.config import Choice, FineTune, Study, Train
    from micraframe.types import DatasetInfo


def check(
    file: ConfigFile,
    data: Annotated[bool, typer.Option(help="Open the data, and build the networks for them.")] = True,
) -> None:
    """Check a configuration for train, finetune or study, and print it with every default written out.

    It opens the data, builds each network and predicts a blank image with it, which shows whether combiners name
    layers that the network has. To see what the data offer, use micraframe data audit.
    """
    from micraframe import config

    settings = read_any(Path(file))
    print(config.to_yaml(settings), end="", flush=True)
    if data:
        for choice in datasets_of(settings):
            try_networks(settings, open_dataset(choice))


def datasets_of(settings: Train | FineTune | Study) -> list[Choice]:
    """Return the datasets of a configuration."""
    from micraframe.config import Study

    return settings.datasets if isinstance(settings, Study) else [settings.dataset]


def open_dataset(choice: Choice) -> DatasetInfo:
    """Read the first sample of each split of a dataset; print to stderr how many there are, and what looks wrong.

    Raises:
        DataError: If a file is missing or broken.
    """
    from micraframe.datasets.audit import kind_of_masks, other_classes
    from micraframe.types import SPLITS

    dataset = registry.build("dataset", choice.name, **choice.params)
    info = dataset.info()
    splits = {split: dataset.samples(split) for split in SPLITS}
    for samples in splits.values():
        next(iter(samples), None)
    counted = ", ".join(f"{len(samples)} {split}" for split, samples in splits.items())
    print(f"{info.name}: {counted} samples; classes {', '.join(info.classes)}", file=sys.stderr)
    for finding in (*other_classes(dataset), *kind_of_masks(dataset)):
        print(wrapped(str(finding), "", "  "), file=sys.stderr)
    return info


def try_networks(settings: BaseModel, info: DatasetInfo) -> None:
    """Build every network of a configuration for a dataset, and try out what each method does after training.

    Raises:
        ConfigError: If a combiner names a layer that the network lacks.
        ModelError: If a network cannot serve as a backbone, or an extractor cannot explain it.
    """
    from micraframe.classifier import create_network
    from micraframe.pipeline import rehearse, untrained

    done: list[Choice] = []
    for kind, choice in choices_in(settings):
        if kind not in ("method", "backbone") or choice in done:
            continue
        done.append(choice)
        if kind == "backbone":
            create_network(registry.build("backbone", choice.name, **choice.params), info.channels)
        elif (trial := untrained(choice, info)) is not None:
            rehearse(trial, info.image_size or (256, 256))


def choices_in(settings: BaseModel) -> Iterator[tuple[str, Choice]]:
    """Yield the kind and the choice of every component of a configuration, those within parameters included."""
    from pydantic import BaseModel

    from micraframe import config

    for name in type(settings).model_fields:
        value: Any = getattr(settings, name)
        kind = config.kind_of(type(settings), name)
        for item in value if isinstance(value, list | tuple) else [value]:
            if kind and isinstance(item, config.Choice):
                yield kind, item
                component = registry.load(registry.catalog().find(kind, item.name))
                yield from choices_in(component.Params(**item.params))
            elif isinstance(item, BaseModel):
                yield from choices_in(item)


def read_any(path: Path) -> Train | FineTune | Study:
    """Read and resolve a configuration; its keys tell which command it is for."""
    from micraframe import config

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []  # config.load reports the reason
    keys = {line.partition(":")[0] for line in lines}
    if "datasets" in keys or ("methods" in keys and "dataset" not in keys):
        return config.load(path, config.Study)
    if "training" in keys:
        return config.load(path, config.FineTune)
    return config.load(path, config.Train)
