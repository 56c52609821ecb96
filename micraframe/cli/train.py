"""`micraframe train`: one method, one dataset, one annotation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from micraframe.cli.output import ConfigFile, progress

if TYPE_CHECKING:
    from micraframe.config import FineTune, Train
    from micraframe.interfaces import Fitted
    from micraframe.types import Annotation, DatasetInfo, Run, Sample


def train(
    file: ConfigFile,
    output: Annotated[Path, typer.Option(help="The folder for the model, its log and its checkpoints.")],
) -> None:
    """Train a method as a configuration says; the same command resumes a run that was interrupted.

    Started by torchrun or accelerate launch, it shares the work among processes, such as one per GPU.
    """
    from micraframe import config, registry

    wanted = config.load(Path(file), config.Train)
    method = registry.build("method", wanted.method.name, **wanted.method.params)
    learn(wanted, output, method.learns_from, method.fit)


def learn(
    wanted: Train | FineTune,
    output: Path,
    learns_from: frozenset[Annotation],
    fit: Callable[[Sequence[Sample], Sequence[Sample], DatasetInfo, Run], Fitted],
) -> None:
    """Let something learn from a dataset, and save it.

    Args:
        wanted: Which dataset, what is told of it, seed, device and precision.
        output: The folder to write to.
        learns_from: The annotations that are given.
        fit: What learns, as `Method.fit` does.
    """
    from micraframe import config, registry
    from micraframe.errors import ConfigError
    from micraframe.files import write_text
    from micraframe.study.cell import annotate
    from micraframe.training import is_main_process
    from micraframe.types import Run

    model = output / "model"
    if model.exists():
        raise ConfigError(f"{model} is there already; name another --output, or remove it")
    dataset = registry.build("dataset", wanted.dataset.name, **wanted.dataset.params)
    annotator = registry.build("annotator", wanted.annotator.name, **wanted.annotator.params)
    given, cost = annotate(dataset.samples("train"), annotator, learns_from, wanted.seed)
    held, price = annotate(dataset.samples("valid"), annotator, learns_from, wanted.seed)
    writes = is_main_process()
    run = Run(wanted.seed, output / "training", wanted.device, wanted.precision, progress() if writes else None)
    if writes:
        write_text(output / "config.yaml", config.to_yaml(wanted))
        for warning in one_sided(given, dataset.info().classes):
            print(f"warning: {warning}", file=sys.stderr)
    fitted = fit(given, held, dataset.info(), run)
    if not writes:
        return
    fitted.save(model)
    hours = (cost + price).seconds / 3600
    print(f"{model}: learned from {len(given)} samples, {len(held)} to choose by; annotation about {hours:.1f} h")


def one_sided(samples: Sequence[Sample], classes: Sequence[str]) -> Iterator[str]:
    """Say of which classes the labels show only one side, so that nobody can learn to tell it from the other."""
    told = [sample.labels for sample in samples if sample.labels is not None]
    for name, answers in zip(classes, zip(*told, strict=True), strict=False):
        if all(answers) or not any(answers):
            where = "in all" if all(answers) else "in none"
            yield f"the class {name!r} is {where} of the {len(told)} training samples, so that it cannot be learned"
