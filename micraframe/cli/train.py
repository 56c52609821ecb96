"""`micraframe train`: one method, one dataset, one training annotation."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from micraframe import registry
from micraframe.cli.output import ConfigFile, duration, print_table, progress, refuse_other_configuration
from micraframe.errors import ConfigError, DataError

if TYPE_CHECKING:
    from micraframe.batch.splits import SampleLabels
    from micraframe.config import FineTune, Train
    from micraframe.pipeline import Pipeline
    from micraframe.types import Annotation, DatasetInfo, FitContext, Progress, Sample, Work


def train(
    file: ConfigFile,
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for the model, its log and its checkpoints, splits.csv (which image is in which split, with "
            "its labels) and test.csv (the numbers of the test images)."
        ),
    ],
) -> None:
    """Train a method as a configuration describes; the same command resumes a run that was interrupted.

    Before the first step it predicts a blank image, so that what could not be predicted is refused at once. At the end
    it measures the test images, and warns of classes that the classifier has not learned.

    When started by torchrun or accelerate launch, the processes, such as one per GPU, share the work.
    """
    from micraframe import config, pipeline

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
    seen: Collection[str] = (),
) -> None:
    """Annotate a dataset, train on it, save the result, and measure it on the test samples.

    `splits.csv` says which sample is in which split; `test.csv` is written last, so that a training that was
    interrupted after the model was saved is completed by the same command. `fit` trains, and returns the pipeline to
    save; unless it uses validation samples, none are annotated. `seen` names the samples that a model to start from was
    trained on: a warning says which of these are test samples.

    Raises:
        ConfigError: If the folder already contains a model or another configuration, or another process trains there.
        DataError: If every class is in all or in none of the training samples, so that nothing can be learned.
    """
    from micraframe import config, pipeline
    from micraframe.annotators.annotate import annotate_samples
    from micraframe.batch.splits import sample_labels, write_splits
    from micraframe.runtime.files import write_text
    from micraframe.runtime.locks import exclusive
    from micraframe.training import create_loggers, is_main_process
    from micraframe.types import FitContext, Progress

    def refuse() -> None:
        raise ConfigError(f"{output}: another process is training here; wait for it, or choose another --output")

    writes = is_main_process()
    if writes:
        refuse_other_configuration(output / "config.yaml", type(settings))
    with _tidied(output) if writes else nullcontext(), exclusive(output / ".lock", refuse) if writes else nullcontext():
        model = output / "model"
        trained_before = model.exists()
        if trained_before and not _is_incomplete(output, config.to_yaml(settings)):
            raise ConfigError(f"{output}: already contains a model; choose another --output or delete it")
        if trained_before and not writes:
            return
        loggers = create_loggers(settings.loggers)
        dataset = registry.build("dataset", settings.dataset.name, **settings.dataset.params)
        annotator = registry.build("annotator", settings.annotator.name, **settings.annotator.params)
        info = dataset.info()
        train, train_work = annotate_samples(dataset.samples("train"), annotator, learns_from, settings.seed)
        validation = dataset.samples("valid") if uses_validation else ()
        valid, valid_work = annotate_samples(validation, annotator, learns_from, settings.seed)
        reporter = progress() if writes else Progress()
        context = FitContext(settings.seed, output / "training", settings.device, settings.precision, reporter, loggers)
        test = dataset.samples("test") if writes else ()
        splits = {"train": sample_labels(train), "valid": sample_labels(valid), "test": sample_labels(test)}
        if writes:
            write_text(output / "config.yaml", config.to_yaml(settings))
            write_splits(output / "splits.csv", splits, info.classes)
            _print_balance(splits, info.classes)
            if known := [each.id for each in splits["test"] if each.id in seen]:
                print(
                    f"warning: {len(known)} of {len(test)} test samples have the names of samples that the model to "
                    f"start from was trained on (first: {known[0]}); if they are the same images, the numbers of the "
                    "test samples are too good: test on others",
                    file=sys.stderr,
                )
        one_sided = list(_one_sided(train, info.classes))
        # A method that learns from more than labels may learn a class from its outlines alone.
        if len(one_sided) == len(info.classes) and len(learns_from) == 1:
            raise DataError(
                f"dataset {info.name!r}: expected training samples with a class and others without it, got "
                f"{'; '.join(one_sided)}: add samples of both kinds, or check the labels with micraframe data audit"
            )
        for warning in one_sided if writes else ():
            print(f"warning: {warning}, so it cannot be learned", file=sys.stderr)
        trained = pipeline.load(model, settings.device) if trained_before else fit(train, valid, info, context)
        if not writes:
            return
        if not trained_before:
            trained.save(model)
        print(f"Trained {trained.method.name} on {len(train)} samples, with {len(valid)} for validation.")
        print(f"Annotation time: {_annotation_time([*train_work, *valid_work])}.")
        if isinstance(settings, config.Train) and settings.head:
            _print_auto(settings.head.params, trained)
        _print_learned(trained, valid, splits["valid"], dataset.samples("valid"))
        _print_test(trained, test, output / "test.csv", reporter)
        print(f"Model: {model}")


def _is_incomplete(output: Path, configuration: str) -> bool:
    """Return whether the same training was interrupted after it saved its model: the test images are not measured."""
    config = output / "config.yaml"
    same = config.exists() and config.read_text(encoding="utf-8") == configuration
    return same and not (output / "test.csv").exists()


def _print_balance(splits: Mapping[str, Sequence[SampleLabels]], classes: Sequence[str]) -> None:
    from micraframe.batch.splits import class_balance

    print("Samples with each class, of those whose labels are known:")
    print_table(class_balance(splits, classes))
    print(flush=True)


def _print_auto(asked: Mapping[str, Any], trained: Pipeline) -> None:
    """Print the numbers that training found for those of the head's parameters that are `auto`."""
    head = trained.head.params.model_dump()
    found = {name: head[name] for name, value in asked.items() if value == "auto" and head[name] != "auto"}
    if found:
        print(f"Head: {', '.join(f'{name} {value:g}' for name, value in found.items())} (from auto)")


def _print_learned(
    trained: Pipeline, valid: Sequence[Sample], known: Sequence[SampleLabels], truth: Sequence[Sample]
) -> None:
    """Print how well the presence of classes is decided on validation samples, and warn where it is not.

    `truth` are the same samples with all annotation, for the warning that subtracting a contact map does harm.
    """
    from micraframe.batch.learned import complaints, contact_complaints, learned

    found = learned(trained, valid, known)
    judged = [one for one in found if not math.isnan(one.auc)]
    if judged:
        print("\nPresence on the validation samples, which also chose the best epoch:")
        print_table(
            [{"class": one.class_, "balanced accuracy": one.balanced_accuracy, "AUC": one.auc} for one in judged]
        )
    for complaint in (*complaints(found), *contact_complaints(trained, found, truth)):
        print(f"warning: {complaint}", file=sys.stderr)


def _print_test(trained: Pipeline, samples: Sequence[Sample], path: Path, reporter: Progress) -> None:
    """Measure test samples, print the numbers, and write them to a CSV."""
    from micraframe.batch.evaluate import MeasuredNumber
    from micraframe.batch.learned import measure
    from micraframe.runtime.tables import write_csv

    found = measure(trained, samples, reporter)
    names = [one.metric for one in found]
    if "correct" in names:
        names.append("average_precision")  # undefined if all samples or none have the class
    write_csv(path, found, MeasuredNumber)
    if found:
        print(f"\nOn {len(samples)} test samples (correct: the share whose presence was classified correctly):")
        rows: dict[str, dict[str, str | float]] = {}
        for one in found:
            rows.setdefault(one.class_, {"class": one.class_, **dict.fromkeys(names, "-")})[one.metric] = one.value
        print_table(list(rows.values()))
        print()
    elif len(samples):
        print(f"Test: the labels of the {len(samples)} test samples are not known, so nothing was measured.")
    else:
        print(
            "Test: the dataset has no test samples, so nothing was measured. Measure other images with micraframe "
            "predict and micraframe evaluate, or set the dataset's share of test images."
        )


@contextmanager
def _tidied(output: Path) -> Iterator[None]:
    """If the block fails before anything was learned in a training's folder, and the folder is new, remove it."""
    from micraframe.runtime.locks import is_held

    created = list(itertools.takewhile(lambda folder: not folder.exists(), (output, *output.absolute().parents)))
    try:
        yield
    except BaseException:
        learned = any(file.is_file() for file in output.glob("training/**/*"))
        if created and not learned and not is_held(output / ".lock"):
            for name in ("config.yaml", "splits.csv", ".lock"):
                (output / name).unlink(missing_ok=True)
            for folder in (output / "training" / "checkpoints", output / "training", *created):
                with suppress(OSError):  # not empty
                    folder.rmdir()
        raise


def _one_sided(samples: Sequence[Sample], classes: Sequence[str]) -> Iterator[str]:
    """Yield a sentence about each class that is in all or in none of the samples, and so cannot be learned."""
    labels = [sample.labels for sample in samples if sample.labels is not None]
    for name, values in zip(classes, zip(*labels, strict=True), strict=False):
        if all(values) or not any(values):
            where = "all" if all(values) else "none"
            yield f"class {name!r} is in {where} of the {len(labels)} training samples"


def _annotation_time(work: Iterable[Work]) -> str:
    """Return how long annotation takes, estimated from published timings."""
    from micraframe.pricing import Cost, Prices, price

    prices = Prices()
    total = sum((price(one, prices) for one in work), Cost())
    low, expected, high = map(duration, (total.low, total.seconds, total.high))
    return f"about {expected} ({low} to {high}), estimated from published timings ({prices.preset})"
