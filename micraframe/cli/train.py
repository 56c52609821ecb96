"""`micraframe train`: one method, one dataset, one training annotation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from micraframe.cli.output import ConfigFile, duration, progress

if TYPE_CHECKING:
    from micraframe.config import FineTune, Train
    from micraframe.pipeline import Pipeline
    from micraframe.types import Annotation, DatasetInfo, FitContext, Sample, Work


def train(
    file: ConfigFile,
    output: Annotated[
        Path, typer.Option(help="Folder for the model, its log and its checkpoints.", show_default=False)
    ],
) -> None:
    """Train a method as a configuration describes; the same command resumes a run that was interrupted.

    Started by torchrun or accelerate launch, it divides the work among processes, such as one per GPU.
    """
    from micraframe import config, pipeline, registry

    settings = config.load(Path(file), config.Train)
    method = registry.build("method", settings.method.name, **settings.method.params)

    def fit(train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext) -> Pipeline:
        return pipeline.fit(settings.method, train, valid, info, context, settings.head, settings.tiling)

    train_and_save(settings, output, method.learns_from, fit)


def train_and_save(
    settings: Train | FineTune,
    output: Path,
    learns_from: frozenset[Annotation],
    fit: Callable[[Sequence[Sample], Sequence[Sample], DatasetInfo, FitContext], Pipeline],
) -> None:
    """Annotate a dataset, train on it, and save the result.

    Args:
        settings: Dataset, annotator, seed, device and precision.
        output: Folder to write to.
        learns_from: The annotations that training can use.
        fit: Trains, and returns the pipeline to save.

    Raises:
        ConfigError: If there is a model in the folder already, or another process trains there.
    """
    from micraframe.errors import ConfigError
    from micraframe.runtime.locks import exclusive
    from micraframe.training import is_main_process

    def refuse() -> None:
        raise ConfigError(f"{output}: another process is training here; wait for it, or choose another --output")

    with exclusive(output / ".lock", refuse) if is_main_process() else nullcontext():
        _train_and_save(settings, output, learns_from, fit)


def one_sided(samples: Sequence[Sample], classes: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each class that is in all or in none of the samples, and so cannot be learned."""
    labels = [sample.labels for sample in samples if sample.labels is not None]
    for name, values in zip(classes, zip(*labels, strict=True), strict=False):
        if all(values) or not any(values):
            where = "all" if all(values) else "none"
            yield f"class {name!r} is in {where} of the {len(labels)} training samples, so it cannot be learned"


def annotation_time(work: Iterable[Work]) -> str:
    """Return how long annotation takes, by published timings."""
    from micraframe.pricing import Cost, Prices, price

    prices = Prices()
    total = sum((price(one, prices) for one in work), Cost())
    low, expected, high = map(duration, (total.low, total.seconds, total.high))
    return f"about {expected} ({low} to {high}), estimated from published timings ({prices.preset})"


def _train_and_save(
    settings: Train | FineTune,
    output: Path,
    learns_from: frozenset[Annotation],
    fit: Callable[[Sequence[Sample], Sequence[Sample], DatasetInfo, FitContext], Pipeline],
) -> None:
    from micraframe import config, registry
    from micraframe.annotators.annotate import annotate_samples
    from micraframe.errors import ConfigError
    from micraframe.runtime.files import write_text
    from micraframe.training import is_main_process
    from micraframe.types import FitContext, Progress

    model = output / "model"
    if model.exists():
        raise ConfigError(f"{model}: there is a model already; choose another --output, or remove it")
    dataset = registry.build("dataset", settings.dataset.name, **settings.dataset.params)
    annotator = registry.build("annotator", settings.annotator.name, **settings.annotator.params)
    info = dataset.info()
    train, train_work = annotate_samples(dataset.samples("train"), annotator, learns_from, settings.seed)
    valid, valid_work = annotate_samples(dataset.samples("valid"), annotator, learns_from, settings.seed)
    writes = is_main_process()
    reporter = progress() if writes else Progress()
    context = FitContext(settings.seed, output / "training", settings.device, settings.precision, reporter)
    if writes:
        write_text(output / "config.yaml", config.to_yaml(settings))
        for warning in one_sided(train, info.classes):
            print(f"warning: {warning}", file=sys.stderr)
    trained = fit(train, valid, info, context)
    if not writes:
        return
    trained.save(model)
    print(f"Trained {trained.method.name} on {len(train)} samples, with {len(valid)} for validation.")
    print(f"Annotation time: {annotation_time([*train_work, *valid_work])}.")
    print(f"Model: {model}")
