"""Executes the runs of a job: annotate, train, predict, measure, tune."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt
import polars as pl

from micraframe import pipeline as pipelines
from micraframe import registry
from micraframe.annotators.annotate import annotate_samples
from micraframe.config import Choice, Study
from micraframe.errors import DataError, InterfaceError
from micraframe.interfaces import Annotator, Dataset, Metric, Statistics, Thresholds
from micraframe.metrics.reduction import overall, stack
from micraframe.pipeline import Pipeline
from micraframe.runtime.locks import exclusive
from micraframe.study.folder import ROW_NAMES, StudyFolder
from micraframe.study.plan import Job, StudyRun, build_metrics
from micraframe.study.processes import Processes
from micraframe.study.tables import ROWS
from micraframe.tuning import apply_head, bounded, tune
from micraframe.types import (
    Annotation,
    FitContext,
    Origin,
    Prediction,
    Progress,
    Sample,
    Scores,
    Split,
    Task,
    Threshold,
    Work,
)

_SHOW_EVERY: Final = 20
"""Images between two reports of progress."""


def run_job(
    job: Job, study: Study, folder: StudyFolder, progress: Progress, processes: Processes | None = None
) -> dict[str, str]:
    """Execute the runs of a job that are not done; return the tracebacks of those that failed, by name.

    A job that another process works on, such as a second start of the study or a worker that was given up for lost, is
    waited for: two at one training would remove each other's files.
    """
    failures: dict[str, str] = {}
    lock = folder.training(job[0]).with_suffix(".lock")
    with exclusive(lock, lambda: progress.advance(f"{job[0]}: waiting for another process", 0, 1)):
        for run in job:
            if folder.is_done(run):
                continue
            try:
                folder.clear_results(run)
                execute(run, study, folder, progress, processes or Processes())
            except (Exception, SystemExit):  # one failed run must not end the study; its traceback is kept and reported
                failures[str(run)] = traceback.format_exc()
                folder.write_error(run, failures[str(run)])
    return failures


def execute(run: StudyRun, study: Study, folder: StudyFolder, progress: Progress, processes: Processes) -> None:
    """Execute one run, whatever was done of it before."""
    dataset = registry.build("dataset", run.dataset.name, **run.dataset.params)
    pipeline = trained(run, study, dataset, folder, progress, processes)
    start = time.perf_counter()
    # Read once: they are measured with up to three sets of thresholds.
    test = tuple(dataset.samples("test"))
    images = [sample.image for sample in test]
    valid: tuple[Sample, ...] = ()
    work: tuple[Work, ...] = ()
    if study.tuning_images:
        # Before anything is predicted: without validation images, that would be in vain.
        annotated = number_annotated(run, dataset, "valid")
        valid, work = tuning_samples(run, study, dataset.samples("valid"), annotated)
    recorder = Recorder(run, build_metrics(study))
    masks: dict[str, npt.NDArray[np.uint8]] = {}

    def measured() -> Iterator[Scores]:
        for number, (sample, scores) in enumerate(zip(test, pipeline.score(iter(images)), strict=True)):
            prediction = pipeline.decide(scores, sample.image)
            recorder.measure("fixed", sample, prediction)
            if prediction.masks is not None:
                masks[str(number)] = np.packbits(prediction.masks, axis=-1)
            if number % _SHOW_EVERY == 0 or number + 1 == len(test):
                progress.advance(f"{run}: predict", number + 1, len(test))
            yield scores

    known = tuple(bounded(measured()))
    tuned: dict[Origin, Thresholds] = {}
    if valid:
        on_valid = tuple(bounded(pipeline.score(iter([sample.image for sample in valid]))))
        sources: tuple[tuple[Origin, Sequence[Sample], Sequence[Scores]], ...] = (
            ("validation", valid, on_valid),
            ("oracle", test, known),
        )
        for origin, samples, scores in sources:
            progress.advance(f"{run}: tune on {origin}", 0, 1)
            tuned[origin] = tune(pipeline, samples, scores)
            other = pipeline.with_thresholds(tuned[origin], origin)
            for sample, prediction in zip(test, apply_head(pipeline, other, images, known), strict=True):
                recorder.measure(origin, sample, prediction)
    seconds = time.perf_counter() - start
    folder.write_results(run, recorder.table(), masks, recorder.thresholds, tuned, work, seconds)


def trained(
    run: StudyRun, study: Study, dataset: Dataset[Any], folder: StudyFolder, progress: Progress, processes: Processes
) -> Pipeline:
    """Return the run's pipeline; what no run before it has learned is learned now."""
    if not folder.is_trained(run):
        start = time.perf_counter()
        folder.clear_training(run)
        processes.announce(run.training_key)
        pipeline, work = fit(run, study, dataset, folder, progress)
        folder.write_training(run, work, time.perf_counter() - start)
        # The model appears whole or not at all, whatever happens while it is saved.
        part = folder.training(run) / "model"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        pipeline.save(part / run.training_key)
        (part / run.training_key).replace(folder.model(run))
        part.rmdir()
    # Not only after saving: a process may have been killed between the two.
    folder.remove_checkpoints(run)
    # Loaded even after training: the result does not depend on whether the run trained or another one did.
    return pipelines.load(folder.model(run), study.device, head=run.compared.head, tiling=study.tiling, **run.inference)


def fit(
    run: StudyRun, study: Study, dataset: Dataset[Any], folder: StudyFolder, progress: Progress
) -> tuple[Pipeline, tuple[Work, ...]]:
    """Train the run's method; return its pipeline and the work of annotating its samples."""
    choice = run.compared.method
    learns_from = registry.build("method", choice.name, **choice.params).learns_from
    samples, work = training_samples(run, dataset, learns_from)
    context = FitContext(run.seed, folder.training(run), study.device, study.precision, _Prefixed(progress, str(run)))
    fitted = pipelines.fit(
        choice, samples["train"], samples["valid"], run.info, context, run.compared.head, study.tiling
    )
    return fitted, work


def training_samples(
    run: StudyRun, dataset: Dataset[Any], allowed: frozenset[Annotation]
) -> tuple[dict[Split, tuple[Sample, ...]], tuple[Work, ...]]:
    """Return what the method may see of its training and validation samples, and the work of annotating them."""
    annotator = _build_annotator(run.compared.annotator)
    found: dict[Split, tuple[Sample, ...]] = {}
    works: list[Work] = []
    for split in ("train", "valid"):
        chosen = subset(dataset.samples(split), number_annotated(run, dataset, split), run.seed)
        found[split], work = annotate_samples(chosen, annotator, allowed, run.seed)
        works += work
    return found, total_work(works)


def tuning_samples(
    run: StudyRun, study: Study, valid: Sequence[Sample], annotated: int | None
) -> tuple[tuple[Sample, ...], tuple[Work, ...]]:
    """Return the validation samples to tune on, as the study's tuning annotator leaves them, and the additional work.

    A sample that the method's own annotator has annotated in the same way is no additional work. If nobody has outlined
    a sample's objects, only its labels are left, so that only presence is tuned on it; they count as image-level work,
    unless the method's own annotator has provided them.

    Args:
        run: The method, and the seed that draws the samples.
        study: Number of samples, and their annotator.
        valid: All validation samples.
        annotated: How many of these the method's own annotator has annotated, drawn by the same seed; None: all.

    Raises:
        DataError: If there are no validation samples.
    """
    if not valid:
        raise DataError(
            f"dataset {run.info.name!r}: expected validation images to tune thresholds on, got 0; add some, or set "
            "tuning_images: 0"
        )
    same = run.compared.annotator == study.tuning_annotator
    annotator, own = _build_annotator(study.tuning_annotator), _build_annotator(run.compared.annotator)
    labeller = registry.build("annotator", "micraframe/image-level")
    already = set(_drawn(len(valid), annotated, run.seed))
    found: list[Sample] = []
    works: list[Work] = []
    for place in _drawn(len(valid), study.tuning_images, run.seed):
        sample = valid[place]
        if sample.masks is not None or sample.instances is not None:
            kept, work = annotate_samples([sample], annotator, frozenset(Annotation), run.seed)
            known = same
        elif sample.labels is not None:
            kept, work = annotate_samples([sample], labeller, frozenset({Annotation.LABELS}), run.seed)
            known = own.annotate(sample, run.seed)[0].labels is not None
        else:  # nothing is known of it
            kept, work, known = (sample.keep(()),), (), True
        found += kept
        works += () if known and place in already else work
    return tuple(found), total_work(works)


def total_work(works: Iterable[Work]) -> tuple[Work, ...]:
    """Return the sum of work for each task, in order of first appearance."""
    total: dict[Task, Work] = {}
    for work in works:
        total[work.task] = total[work.task] + work if work.task in total else work
    return tuple(total.values())


def subset(samples: Sequence[Sample], number: int | None, seed: int) -> Sequence[Sample]:
    """Return so many samples, drawn by the seed, in their order; all if there are no more, or for None.

    A smaller subset of the same samples and seed is part of a larger one.
    """
    if number is None or number >= len(samples):
        return samples
    return [samples[place] for place in _drawn(len(samples), number, seed)]


def number_annotated(run: StudyRun, dataset: Dataset[Any], split: Split) -> int | None:
    """Return how many samples of a split the method's annotator annotates, drawn by the seed; None: all."""
    number = run.compared.train_images
    if number is None or split == "train":
        return number
    share = number / max(len(dataset.samples("train")), 1)
    return max(round(share * len(dataset.samples(split))), 1)


@final
class Recorder:
    """Collects the statistics of predictions, image by image.

    Args:
        run: The run.
        metrics: The study's metrics.

    Attributes:
        thresholds: The thresholds that were applied to the first image, by origin.
    """

    def __init__(self, run: StudyRun, metrics: Sequence[Metric[Any]]) -> None:
        self.thresholds: dict[str, tuple[Threshold, ...]] = {}
        self._classes = run.info.classes
        self._metrics = metrics
        self._columns: dict[str, list[Any]] = {name: [] for name in ROW_NAMES}
        self._fixed: list[list[Statistics]] = [[] for _ in metrics]

    def measure(self, origin: str, sample: Sample, prediction: Prediction) -> None:
        """Measure one image, predicted with thresholds of this origin.

        Raises:
            InterfaceError: If two metrics measure a statistic of one name, or one does not have a value per class.
        """
        self.thresholds.setdefault(origin, prediction.thresholds)
        measured: set[str] = set()
        for metric, fixed in zip(self._metrics, self._fixed, strict=True):
            statistics = metric.measure(prediction, sample)
            if origin == "fixed":
                fixed.append(statistics)
            for name, values in statistics.items():
                if name in measured:
                    raise InterfaceError(f"two metrics measure {name!r}; remove one of them from the study")
                measured.add(name)
                self._add(origin, sample, name, np.asarray(values, np.float64))

    def _add(self, origin: str, sample: Sample, name: str, values: npt.NDArray[np.float64]) -> None:
        count = len(self._classes)
        if values.shape != (count,):
            raise InterfaceError(f"expected {name!r} of {count} classes, got an array of shape {values.shape}")
        rows = {
            "thresholds": [origin] * count,
            "image": [sample.id] * count,
            "group": [sample.group or sample.id] * count,
            "class": self._classes,
            "metric": [name] * count,
            "value": values.tolist(),
        }
        for column, entries in rows.items():
            self._columns[column] += entries

    def table(self) -> pl.DataFrame:
        """Return the statistics, with the columns `ROW_NAMES`.

        The metrics reduce them once, so that one that cannot fails its run, not the tables of the whole study.
        """
        for metric, fixed in zip(self._metrics, self._fixed, strict=True):
            overall(metric, stack(fixed, len(self._classes)))
        return pl.DataFrame(self._columns, {name: ROWS[name] for name in ROW_NAMES})


def _drawn(total: int, number: int | None, seed: int) -> tuple[int, ...]:
    """Return the positions of so many of `total` samples, drawn by the seed, in order; all for None.

    Fewer of the same total and seed are among more.
    """
    if number is None or number >= total:
        return tuple(range(total))
    return tuple(sorted(np.random.default_rng(seed).permutation(total)[:number].tolist()))


def _build_annotator(choice: Choice) -> Annotator[Any]:
    return registry.build("annotator", choice.name, **choice.params)


@final
class _Prefixed(Progress):
    """Passes progress on with the name of a run."""

    def __init__(self, inner: Progress, name: str) -> None:
        self._inner = inner
        self._name = name

    def advance(self, label: str, done: int, total: int, numbers: Mapping[str, float] = MappingProxyType({})) -> None:
        """Report progress."""
        self._inner.advance(f"{self._name}: {label}", done, total, numbers)
