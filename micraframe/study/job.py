"""Executes the runs of a job: annotate, train, predict, measure, tune."""

from __future__ import annotations

import gc
import math
import re
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
from micraframe.annotators.annotate import SampleWork, annotate, annotate_samples, total_work
from micraframe.annotators.ceiling import as_prediction
from micraframe.config import Choice, Study
from micraframe.errors import DataError, InterfaceError
from micraframe.interfaces import Annotator, Dataset, Metric, Statistics, Thresholds, every_class
from micraframe.metrics.reduction import stack, summarise
from micraframe.pipeline import Pipeline
from micraframe.runtime.locks import exclusive
from micraframe.selection import label_criteria
from micraframe.study.folder import ROW_NAMES, Step, StudyFolder
from micraframe.study.plan import Job, StudyRun, build_metrics, method_class
from micraframe.study.processes import Processes
from micraframe.study.provenance import ComputedOn
from micraframe.study.tables import ROWS
from micraframe.training import create_loggers
from micraframe.tuning import apply_head, bounded, tune, tune_by_labels
from micraframe.types import (
    Annotation,
    FitContext,
    Origin,
    Prediction,
    PrefixedProgress,
    Progress,
    Sample,
    Scores,
    Split,
    Threshold,
    Work,
)

_KEEP_EVERY: Final = 5.0
"""Seconds between two records of the step that a run is at; of a new kind of step, one second is enough."""

_SHOW_EVERY: Final = 20
"""Images between two reports of progress."""


def run_job(
    job: Job, progress: Progress, processes: Processes | None = None, *, study: Study, folder: StudyFolder
) -> dict[str, str]:
    """Execute the runs of a job that are not done; return the tracebacks of those that failed, by name.

    A job that another process works on, such as a second start of the study or a worker that was given up for lost, is
    waited for: two at one training would remove each other's files. With study and folder given, it is an executor's
    `JobFunction`.
    """
    failures: dict[str, str] = {}
    with exclusive(folder.lock(job[0]), lambda: progress.advance(f"{job[0]}: waiting for another process", 0, 1)):
        kept = _KeptStep(progress, folder, job[0])
        for run in job:
            if folder.is_done(run):
                continue
            try:
                folder.clear_results(run)
                kept.advance(f"{run}: start", 0, 1)
                execute(run, study, folder, kept, processes or Processes())
            except (Exception, SystemExit):  # one failed run must not end the study; its traceback is kept and reported
                failures[str(run)] = with_names(traceback.format_exc(), folder.read_sample_names(run))
                folder.write_error(run, failures[str(run)])
        folder.clear_step(job[0])  # not if this was interrupted: what is left says that it was
    return failures


def execute(run: StudyRun, study: Study, folder: StudyFolder, progress: Progress, processes: Processes) -> None:
    """Execute one run, whatever was done of it before."""
    if run.kind == "ceiling":
        _measure_ceiling(run, study, folder, progress)
        return
    pipeline = trained(run, study, folder, progress, processes)
    start = time.perf_counter()
    dataset = _build_dataset(run)
    # Read once: they are measured with several sets of thresholds.
    test = tuple(dataset.samples("test"))
    images = [sample.image for sample in test]
    valid: tuple[Sample, ...] = ()
    labelled: tuple[Sample, ...] = ()
    work: tuple[Work, ...] = ()
    if study.tuning_images:
        # Before anything is predicted: without validation images, that would be in vain.
        annotated = _number_annotated(run, dataset, "valid")
        valid, work = tuning_samples(run, study, dataset.samples("valid"), annotated)
        labelled = labelled_samples(run, study, dataset.samples("valid"), annotated)
    recorder = Recorder(run, build_metrics(study))

    def measured() -> Iterator[Scores]:
        for number, (sample, scores) in enumerate(zip(test, pipeline.score(iter(images)), strict=True)):
            prediction = pipeline.decide(scores, sample.image)
            recorder.measure("fixed", sample, prediction)
            if number % _SHOW_EVERY == 0 or number + 1 == len(test):
                progress.advance(f"{run}: predict", number + 1, len(test))
            yield scores

    known = tuple(bounded(measured()))
    tuned: dict[Origin, Thresholds] = {}

    def measure_tuned(origin: Origin, thresholds: Thresholds) -> None:
        tuned[origin] = thresholds
        other = pipeline.with_thresholds(thresholds, origin)
        for sample, prediction in zip(test, apply_head(pipeline, other, images, known), strict=True):
            recorder.measure(origin, sample, prediction)

    tuning_images = [sample.image for sample in valid]
    # Once, for all that needs the maps of every class.
    every: tuple[Scores, ...] = ()
    if labelled or study.label_criteria:
        progress.advance(f"{run}: score validation images", 0, 1)
        every = tuple(pipeline.score(iter(tuning_images), every_class))
    if labelled:
        progress.advance(f"{run}: tune by labels", 0, 1)
        by_id = {sample.id: scores for sample, scores in zip(valid, every, strict=True)}
        theirs = [by_id[sample.id] for sample in labelled]
        for origin, thresholds in tune_by_labels(pipeline, labelled, scores=theirs).items():
            measure_tuned(origin, thresholds)
    if valid:
        # A tile's map depends on the classes that the head finds there.
        at_hand = every and not any(map(pipeline.cuts, tuning_images))
        on_valid = every if at_hand else tuple(bounded(pipeline.score(iter(tuning_images))))
        sources: tuple[tuple[Origin, Sequence[Sample], Sequence[Scores]], ...] = (
            ("validation", valid, on_valid),
            ("oracle", test, known),
        )
        for origin, samples, scores in sources:
            progress.advance(f"{run}: tune on {origin}", 0, 1)
            measure_tuned(origin, tune(pipeline, samples, scores))
    if study.label_criteria:
        progress.advance(f"{run}: judge by labels", 0, 1)
        chosen = subset(dataset.samples("valid"), study.tuning_images, run.seed)
        judged = [sample.keep({Annotation.LABELS}) for sample in chosen]
        without_masks = {origin: each for origin, each in tuned.items() if origin not in ("validation", "oracle")}
        candidates = {"fixed": pipeline} | {
            origin: pipeline.with_thresholds(each, origin) for origin, each in without_masks.items()
        }
        criteria = {origin: label_criteria(each, judged, run.seed, scores=every) for origin, each in candidates.items()}
        folder.write_criteria(run, criteria)
    seconds = time.perf_counter() - start
    computed = ComputedOn.here(study.device, study.precision)
    head = with_numbers(run.compared.head, pipeline)
    folder.write_results(
        run, head, recorder.table(), recorder.masks, recorder.thresholds, tuned, work, seconds, computed
    )


def _measure_ceiling(run: StudyRun, study: Study, folder: StudyFolder, progress: Progress) -> None:
    """Measure the training annotation of the test images as if it were a prediction; nothing is trained.

    It costs what this annotation of the training and validation images costs. Labels and strokes, which do not say of
    every pixel what it is, have no rows.
    """
    start = time.perf_counter()
    dataset, annotator = _build_dataset(run), _build_annotator(run.compared.annotator)
    computed = ComputedOn.here(study.device, study.precision)
    everything = frozenset(Annotation)
    splits: tuple[Split, ...] = ("train", "valid")
    work = {split: annotate_samples(dataset.samples(split), annotator, everything, run.seed)[1] for split in splits}
    folder.write_training(run, work, 0.0, computed)
    recorder = Recorder(run, build_metrics(study))
    test = dataset.samples("test")
    for number, sample in enumerate(test):
        prediction = as_prediction(annotator.annotate(sample, run.seed)[0], run.info, sample.ignore)
        if prediction is None:
            # Not even for the other images: those that strokes describe completely are the empty ones.
            recorder = Recorder(run, ())
            break
        recorder.measure("fixed", sample, prediction)
        if number % _SHOW_EVERY == 0 or number + 1 == len(test):
            progress.advance(f"{run}: measure", number + 1, len(test))
    seconds = time.perf_counter() - start
    folder.write_results(run, None, recorder.table(), recorder.masks, recorder.thresholds, {}, (), seconds, computed)


def trained(run: StudyRun, study: Study, folder: StudyFolder, progress: Progress, processes: Processes) -> Pipeline:
    """Return the run's pipeline; what no run before it has learned is learned now."""
    if not folder.is_trained(run):
        start = time.perf_counter()
        folder.clear_training(run)
        processes.announce(run.training_key)
        pipeline, work = fit(run, study, folder, progress)
        computed = ComputedOn.here(study.device, study.precision)
        folder.write_training(run, work, time.perf_counter() - start, computed)
        # The model appears whole or not at all, whatever happens while it is saved.
        part = folder.training(run) / "model"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        pipeline.save(part / run.training_key)
        (part / run.training_key).replace(folder.model(run))
        part.rmdir()
    # Not only after saving: a process may have been killed between the two.
    folder.finish_training(run)

    def annotated() -> Sequence[Sample]:
        samples, _ = _training_samples(run, _build_dataset(run), method_class(run.compared.method).learns_from)
        return samples["valid"] or samples["train"]

    # Loaded even after training: the result does not depend on whether the run trained or another one did.
    return pipelines.load(
        folder.model(run),
        study.device,
        head=run.compared.head,
        tiling=study.tiling,
        sizes_from=annotated,
        **run.inference,
    )


def with_numbers(head: Choice | None, pipeline: Pipeline) -> Choice | None:
    """Return a run's head with the numbers that its pipeline has in place of `auto`."""
    if head is None:
        return None
    found = pipeline.head.params.model_dump(mode="json")
    params = {name: found[name] if value == "auto" else value for name, value in head.params.items()}
    return Choice(name=head.name, params=params)


def fit(
    run: StudyRun, study: Study, folder: StudyFolder, progress: Progress
) -> tuple[Pipeline, dict[Split, tuple[Work, ...]]]:
    """Train the run's method; return its pipeline and the work of annotating the samples of each split.

    While it trains, no annotation but the method's own is in memory: the dataset and what it has read are gone. What
    one process cannot prevent: a method that inspects the interpreter or guesses paths can find the study's
    configuration and read the files that it names.
    """
    choice = run.compared.method
    samples, work = _training_samples(run, _build_dataset(run), method_class(choice).learns_from)
    names: dict[str, str] = {}
    seen = {split: anonymous(part, names) for split, part in samples.items()}
    folder.write_sample_names(run, names)
    del samples, names
    gc.collect()  # what is left of the dataset and the full annotation in reference cycles
    callback, loggers = PrefixedProgress(progress, str(run)), create_loggers(study.loggers)
    context = FitContext(run.seed, folder.scratch(run), study.device, study.precision, callback, loggers)
    fitted = pipelines.fit(choice, seen["train"], seen["valid"], run.info, context, run.compared.head, study.tiling)
    return fitted, work


def anonymous(samples: Iterable[Sample], names: dict[str, str]) -> tuple[Sample, ...]:
    """Return samples with nothing that leads to where they come from: images, annotation, and numbered names.

    Args:
        samples: Annotated samples. Annotators draw by their ids, so it is only afterwards that these may change.
        names: By numbered name, the real names of samples and groups so far; those of these samples are added.
    """
    groups = {name: number for number, name in names.items() if number.startswith("group-")}
    counts = {"sample": len(names) - len(groups), "group": len(groups)}

    def numbered(kind: str, name: str) -> str:
        number = f"{kind}-{counts[kind]:05d}"
        counts[kind] += 1
        names[number] = name
        return number

    found = []
    for sample in samples:
        if sample.group is not None and sample.group not in groups:
            groups[sample.group] = numbered("group", sample.group)
        kept = {kind.value: getattr(sample, kind.value) for kind in Annotation}
        found.append(
            Sample(
                id=numbered("sample", sample.id),
                image=sample.image,
                ignore=sample.ignore,
                pixel_size_um=sample.pixel_size_um,
                group=None if sample.group is None else groups[sample.group],
                **kept,
            )
        )
    return tuple(found)


def with_names(text: str, names: Mapping[str, str]) -> str:
    """Return an error's text with the real names of the samples beside the numbered ones."""

    def named(match: re.Match[str]) -> str:
        return f"{match[0]} ({names[match[0]]})" if match[0] in names else match[0]

    return re.sub(r"\b(?:sample|group)-\d{5,}\b", named, text) if names else text


def _training_samples(
    run: StudyRun, dataset: Dataset[Any], allowed: frozenset[Annotation]
) -> tuple[dict[Split, tuple[Sample, ...]], dict[Split, tuple[Work, ...]]]:
    """Return what the method may see of its training and validation samples, and the work of annotating each split.

    A method that does not use validation samples is given none, and nobody annotates them.
    """
    annotator = _build_annotator(run.compared.annotator)
    found: dict[Split, tuple[Sample, ...]] = {"train": (), "valid": ()}
    works: dict[Split, tuple[Work, ...]] = {}
    for split in found:
        if split == "train" or method_class(run.compared.method).uses_validation:
            chosen = subset(dataset.samples(split), _number_annotated(run, dataset, split), run.seed)
            found[split], works[split] = annotate_samples(chosen, annotator, allowed, run.seed)
    return found, works


def tuning_samples(
    run: StudyRun, study: Study, valid: Sequence[Sample], annotated: int | None
) -> tuple[tuple[Sample, ...], tuple[Work, ...]]:
    """Return the validation samples to tune on, as the study's tuning annotator leaves them, and the additional work.

    A sample that the method's own annotator has annotated in the same way is no additional work, if the method uses
    validation samples. If nobody has outlined a sample's objects, only its labels are left, so that only presence is
    tuned on it; they count as image-level work, unless the method's own annotator has provided them.

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
    used = method_class(run.compared.method).uses_validation
    already = set(_drawn(len(valid), annotated, run.seed)) if used else set()
    found: list[Sample] = []
    works: list[SampleWork] = []
    for place in _drawn(len(valid), study.tuning_images, run.seed):
        sample = valid[place]
        if sample.masks is not None or sample.instances is not None:
            kept, work = annotate(sample, annotator, frozenset(Annotation), run.seed)
            known = same
        elif sample.labels is not None:
            kept, work = annotate(sample, labeller, frozenset({Annotation.LABELS}), run.seed)
            known = own.annotate(sample, run.seed)[0].labels is not None
        else:  # nothing is known of it
            found.append(sample.keep(()))
            continue
        found.append(kept)
        if not (known and place in already):
            works.append(work)
    return tuple(found), total_work(works)


def labelled_samples(run: StudyRun, study: Study, valid: Sequence[Sample], annotated: int | None) -> tuple[Sample, ...]:
    """Return the validation samples to tune on whose labels the method's own annotator has provided, with no more.

    They are no additional work, and are among `tuning_samples`. A method that uses no validation samples has none.

    Args:
        run: The method, and the seed that draws the samples.
        study: Largest number of samples.
        valid: All validation samples.
        annotated: How many of these the method's own annotator has annotated, drawn by the same seed; None: all.
    """
    if not method_class(run.compared.method).uses_validation:
        return ()
    number = study.tuning_images if annotated is None else min(study.tuning_images, annotated)
    annotator = _build_annotator(run.compared.annotator)
    labels = frozenset({Annotation.LABELS})
    return annotate_samples(subset(valid, number, run.seed), annotator, labels, run.seed)[0]


def subset(samples: Sequence[Sample], number: int | None, seed: int) -> Sequence[Sample]:
    """Return so many samples, drawn by the seed, in their order; all if there are no more, or for None.

    A smaller subset of the same samples and seed is part of a larger one.
    """
    if number is None or number >= len(samples):
        return samples
    return [samples[place] for place in _drawn(len(samples), number, seed)]


def _number_annotated(run: StudyRun, dataset: Dataset[Any], split: Split) -> int | None:
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
        masks: The masks (K, H, W) with fixed thresholds, packed to bits along the rows, by the image's number.
    """

    def __init__(self, run: StudyRun, metrics: Sequence[Metric[Any]]) -> None:
        self.thresholds: dict[str, tuple[Threshold, ...]] = {}
        self.masks: dict[str, npt.NDArray[np.uint8]] = {}
        self._images = 0
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
        if origin == "fixed":
            if prediction.masks is not None:
                self.masks[str(self._images)] = np.packbits(prediction.masks, axis=-1)
            self._images += 1
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
            summarise(metric, stack(fixed, len(self._classes)))
        return pl.DataFrame(self._columns, {name: ROWS[name] for name in ROW_NAMES})


def _drawn(total: int, number: int | None, seed: int) -> tuple[int, ...]:
    """Return the positions of so many of `total` samples, drawn by the seed, in order; all for None.

    Fewer of the same total and seed are among more.
    """
    if number is None or number >= total:
        return tuple(range(total))
    return tuple(sorted(np.random.default_rng(seed).permutation(total)[:number].tolist()))


def _build_dataset(run: StudyRun) -> Dataset[Any]:
    return registry.build("dataset", run.dataset.name, **run.dataset.params)


def _build_annotator(choice: Choice) -> Annotator[Any]:
    return registry.build("annotator", choice.name, **choice.params)


@final
class _KeptStep(Progress):
    """Passes progress on, and keeps the step in the study's folder, where `study status` finds it."""

    def __init__(self, inner: Progress, folder: StudyFolder, run: StudyRun) -> None:
        self._inner = inner
        self._folder = folder
        self._run = run
        self._label = ""
        self._last = -math.inf

    def advance(self, label: str, done: int, total: int, numbers: Mapping[str, float] = MappingProxyType({})) -> None:
        """Report progress."""
        self._inner.advance(label, done, total, numbers)
        now = time.monotonic()
        if now - self._last >= (_KEEP_EVERY if label == self._label else 1.0):
            self._label, self._last = label, now
            self._folder.write_step(self._run, Step(label, done, total, dict(numbers)))
