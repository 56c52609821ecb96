"""`micraframe train`: one method, one dataset, one training annotation."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from micraframe.cli.output import ConfigFile, duration, progress, refuse_foreign

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

    When started by torchrun or accelerate launch, the processes, such as one per GPU, share the work.
    """
    from micraframe import config, pipeline, registry

    settings = config.load(Path(file), config.Train)
    method = registry.build("method", settings.method.name, **settings.method.params)

    def fit(train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext) -> Pipeline:
        return pipeline.fit(settings.method, train, valid, info, context, settings.head, settings.tiling)

    train_and_save(settings, output, method.learns_from, fit, method.uses_validation)


def train_and_save(
    settings: Train | FineTune,
    output: Path,
    learns_from: frozenset[Annotation],
    fit: Callable[[Sequence[Sample], Sequence[Sample], DatasetInfo, FitContext], Pipeline],
    uses_validation: bool = True,
) -> None:
    """Annotate a dataset, train on it, and save the result.

    Args:
        settings: Dataset, annotator, seed, device and precision.
        output: Folder to write to.
        learns_from: The annotations that training can use.
        fit: Trains, and returns the pipeline to save.
        uses_validation: Whether training needs validation samples; otherwise none are annotated.

    Raises:
        ConfigError: If the folder already contains a model or another configuration, or another process trains there.
    """
    from micraframe import config, registry
    from micraframe.annotators.annotate import annotate_samples
    from micraframe.errors import ConfigError
    from micraframe.runtime.files import write_text
    from micraframe.runtime.locks import exclusive
    from micraframe.training import create_loggers, is_main_process
    from micraframe.types import FitContext, Progress

    def refuse() -> None:
        raise ConfigError(f"{output}: another process is training here; wait for it, or choose another --output")

    writes = is_main_process()
    if writes:
        refuse_foreign(output / "config.yaml", type(settings))
    with tidied(output) if writes else nullcontext(), exclusive(output / ".lock", refuse) if writes else nullcontext():
        model = output / "model"
        if model.exists():
            raise ConfigError(f"{output}: already contains a model; choose another --output or delete it")
        loggers = create_loggers(settings.loggers)
        dataset = registry.build("dataset", settings.dataset.name, **settings.dataset.params)
        annotator = registry.build("annotator", settings.annotator.name, **settings.annotator.params)
        info = dataset.info()
        train, train_work = annotate_samples(dataset.samples("train"), annotator, learns_from, settings.seed)
        validation = dataset.samples("valid") if uses_validation else ()
        valid, valid_work = annotate_samples(validation, annotator, learns_from, settings.seed)
        reporter = progress() if writes else Progress()
        context = FitContext(settings.seed, output / "training", settings.device, settings.precision, reporter, loggers)
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


@contextmanager
def tidied(output: Path) -> Iterator[None]:
    """If the block fails before anything was learned in a new folder, remove the folder.

    Args:
        output: A training's folder. If it exists already, it is left as it is.
    """
    from micraframe.runtime.locks import is_held

    created = list(itertools.takewhile(lambda folder: not folder.exists(), (output, *output.absolute().parents)))
    try:
        yield
    except BaseException:
        learned = any(file.is_file() for file in output.glob("training/**/*"))
        if created and not learned and not is_held(output / ".lock"):
            for name in ("config.yaml", ".lock"):
                (output / name).unlink(missing_ok=True)
            for folder in (output / "training" / "checkpoints", output / "training", *created):
                with suppress(OSError):  # not empty
                    folder.rmdir()
        raise


def one_sided(samples: Sequence[Sample], classes: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each class that is in all or in none of the samples, and so cannot be learned."""
    labels = [sample.labels for sample in samples if sample.labels is not None]
    for name, values in zip(classes, zip(*labels, strict=True), strict=False):
        if all(values) or not any(values):
            where = "all" if all(values) else "none"
            yield f"class {name!r} is in {where} of the {len(labels)} training samples, so it cannot be learned"


def annotation_time(work: Iterable[Work]) -> str:
    """Return how long annotation takes, estimated from published timings."""
    from micraframe.pricing import Cost, Prices, price

    prices = Prices()
    total = sum((price(one, prices) for one in work), Cost())
    low, expected, high = map(duration, (total.low, total.seconds, total.high))
    return f"about {expected} ({low} to {high}), estimated from published timings ({prices.preset})"
