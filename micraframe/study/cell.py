"""Runs one cell: annotate, learn, tune, predict, measure."""

from __future__ import annotations

import dataclasses
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from micraframe import registry
from micraframe.config import Study
from micraframe.interfaces import Annotator, Dataset, Fitted, Metric
from micraframe.metrics.evidence import labels_of, ranks
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import Cell, Job
from micraframe.study.tables import Row
from micraframe.study.tuning import Tuned, kept, redecided, tune
from micraframe.types import (
    Annotation,
    BoolArray,
    Cost,
    FloatArray,
    Prediction,
    Progress,
    Run,
    Sample,
    Split,
    Threshold,
)


def run_job(job: Job, study: Study, folder: StudyFolder, progress: Progress) -> dict[str, str]:
    """Run the cells of a job that are not done; return the tracebacks of those that failed, by their names.

    A job that another process is at, be it a second run of the study or a worker that was given up for lost, is waited
    for: two at one training would remove each other's files.
    """
    failures: dict[str, str] = {}
    with _alone(folder.training(job[0]).with_suffix(".lock"), f"{job[0]}: waiting for another process", progress):
        for cell in job:
            if folder.is_done(cell):
                continue
            try:
                for leftover in folder.cell(cell).glob(".*"):
                    leftover.unlink()  # of a process that was killed while it wrote
                run_cell(cell, study, folder, progress)
            except Exception:  # one failed cell must not end the study; its traceback is kept and reported
                failures[str(cell)] = traceback.format_exc()
                folder.write_error(cell, failures[str(cell)])
    return failures


def run_cell(cell: Cell, study: Study, folder: StudyFolder, progress: Progress) -> None:
    """Run one cell, whatever was done of it before."""
    dataset = registry.build("dataset", cell.dataset.name, **cell.dataset.params)
    fitted = fitted_for(cell, study, dataset, folder, progress)
    start = time.perf_counter()
    metrics = [registry.build("metric", metric.name, **metric.params) for metric in study.metrics]
    # Read once, as training samples are: they are measured by up to three thresholds.
    test = tuple(dataset.samples("test"))
    rows = _Rows(cell, metrics)
    masks: dict[str, npt.NDArray[np.uint8]] = {}
    thresholds: dict[str, tuple[Threshold, ...]] = {}

    def measured() -> Iterator[Prediction]:
        predictions = fitted.predict(sample.image for sample in test)
        for number, (sample, prediction) in enumerate(zip(test, predictions, strict=True)):
            rows.measure("fixed", sample, prediction)
            thresholds.setdefault("fixed", prediction.thresholds)
            if prediction.masks is not None:
                masks[str(number)] = np.packbits(prediction.masks, axis=-1)
            if number % 20 == 0 or number + 1 == len(test):
                progress.advance(f"{cell}: predict", number + 1, len(test))
            yield prediction

    known = tuple(kept(measured()))
    rows.rank("fixed")
    cost = Cost()
    if fitted.head is not None and study.tune:
        valid, cost = tuning_samples(cell, study, subset(dataset.samples("valid"), study.tune, cell.seed))
        told = tuple(kept(fitted.predict(sample.image for sample in valid)))
        for origin, samples, found in (("validation", valid, told), ("oracle", test, known)):
            progress.advance(f"{cell}: tune on {origin}", 0, 1)
            tuned = tune(fitted, samples, found)
            head = fitted.head.with_thresholds(*tuned)
            for sample, prediction in zip(test, redecided(fitted, head, test, known), strict=True):
                rows.measure(origin, sample, prediction)
                if origin not in thresholds:
                    thresholds[origin] = tuple(_with_origin(each, tuned, origin) for each in prediction.thresholds)
            rows.rank(origin)
    folder.write_results(cell, rows.rows, masks, thresholds, cost, time.perf_counter() - start)


def annotate(
    samples: Sequence[Sample], annotator: Annotator, allowed: frozenset[Annotation], seed: int
) -> tuple[tuple[Sample, ...], Cost]:
    """Return what a method is given: the annotator's samples without any field that the method may not use.

    It is a tuple of its own, so that nothing leads back to the dataset, and what the annotator took away is gone.
    """
    kept, cost = [], Cost()
    for sample in samples:
        annotated, price = annotator.annotate(sample, seed)
        kept.append(annotated.keep(allowed))
        cost += price
    return tuple(kept), cost


def subset(samples: Sequence[Sample], number: int | None, seed: int) -> Sequence[Sample]:
    """Return so many samples, drawn by the seed, in their order; all where there are no more, or None is wanted.

    A smaller subset of the same samples and seed is part of a larger one.
    """
    if number is None or number >= len(samples):
        return samples
    chosen = np.random.default_rng(seed).permutation(len(samples))[:number]
    return [samples[int(place)] for place in np.sort(chosen)]


def tuning_samples(cell: Cell, study: Study, samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], Cost]:
    """Return validation samples as the study's tuning annotator leaves them, and what that costs.

    It costs nothing more where the method has had this annotation of all of them. Of samples whose objects nobody has
    outlined, only the labels are left, and so only thresholds of presence are tuned on them.
    """
    choice = study.tuning_annotator
    annotator = registry.build("annotator", choice.name, **choice.params)
    found, cost = [], Cost()
    for sample in samples:
        if sample.masks is None and sample.instances is None:
            found.append(sample.keep({Annotation.LABELS}))
            continue
        (told,), price = annotate([sample], annotator, frozenset(Annotation), cell.seed)
        found.append(told)
        cost += price
    same = cell.contender.annotator == choice and cell.contender.images is None
    return tuple(found), Cost() if same else cost


def fitted_for(cell: Cell, study: Study, dataset: Dataset, folder: StudyFolder, progress: Progress) -> Fitted:
    """Load what was learned, or learn it."""
    choice = cell.contender.method
    method = registry.build("method", choice.name, **choice.params)
    if not folder.is_trained(cell):
        start = time.perf_counter()
        annotator = registry.build("annotator", cell.contender.annotator.name, **cell.contender.annotator.params)
        given: dict[Split, tuple[Sample, ...]] = {}
        cost = Cost()
        share = 1.0
        wanted = cell.contender.images
        for split in ("train", "valid"):
            samples = dataset.samples(split)
            if wanted and split == "train":
                share = wanted / max(len(samples), 1)
            chosen = subset(samples, max(round(share * len(samples)), 1) if wanted else None, cell.seed)
            given[split], price = annotate(chosen, annotator, method.learns_from, cell.seed)
            cost += price
        named = _Named(progress, str(cell))
        run = Run(cell.seed, folder.training(cell), study.device, study.precision, named)
        learned = method.fit(given["train"], given["valid"], cell.info, run)
        folder.write_cost(cell, cost, time.perf_counter() - start)
        # A model is there whole or not at all, however the method saves it.
        part = folder.training(cell) / "model"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        learned.save(part / cell.training_key)
        (part / cell.training_key).replace(folder.model(cell))
        part.rmdir()
    return method.load(folder.model(cell), study.device)


@contextmanager
def _alone(path: Path, waiting: str, progress: Progress) -> Iterator[None]:
    """Hold a lock that only one process has at a time, and that ends with the process, however that ends.

    Where the system or the file system has no such locks, nothing is held.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as held:
        with suppress(OSError):  # a file system of a cluster that is mounted without locks
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress.advance(waiting, 0, 1)
                fcntl.flock(held, fcntl.LOCK_EX)
        yield


@final
class _Rows:
    """Measures predictions, image by image and in the end all together.

    Attributes:
        rows: What was measured.
        scores: Of each image, (K,), by the origin of the thresholds.
    """

    def __init__(self, cell: Cell, metrics: Sequence[Metric]) -> None:
        self.rows: list[Row] = []
        self.scores: dict[str, list[FloatArray]] = {}
        self._images: dict[str, list[tuple[str, BoolArray | None]]] = {}
        self._cell = cell
        self._metrics = metrics

    def measure(self, origin: str, sample: Sample, prediction: Prediction) -> None:
        """Measure one image."""
        for metric in self._metrics:
            for name, values in metric.measure(prediction, sample).items():
                self._add(origin, sample.id, name, values)
        self.scores.setdefault(origin, []).append(prediction.scores)
        self._images.setdefault(origin, []).append((sample.id, labels_of(sample)))

    def rank(self, origin: str) -> None:
        """Measure what depends on all images, when all of them have been measured."""
        scores = self.scores.get(origin, [])
        images = self._images.get(origin, [])
        for name, table in ranks(self._metrics, scores, [labels for _, labels in images]).items():
            for (image, _), values in zip(images, table, strict=True):
                self._add(origin, image, name, values)

    def _add(self, origin: str, image: str, metric: str, values: FloatArray) -> None:
        cell = self._cell
        named = (cell.info.name, cell.annotator, cell.method, cell.seed, origin, image)
        for class_, value in zip(cell.info.classes, values, strict=True):
            self.rows.append(Row(*named, class_, metric, float(value)))


def _with_origin(threshold: Threshold, tuned: Tuned, origin: Any) -> Threshold:
    """Return the threshold with where it came from; the head's own rule stays what it was."""
    if threshold.name == "mask" and tuned.mask is None:
        return threshold
    return dataclasses.replace(threshold, origin=origin)


class _Named(Progress):
    """Passes progress on under the name of a cell."""

    def __init__(self, inner: Progress, name: str) -> None:
        self._inner = inner
        self._name = name

    def advance(self, label: str, done: int, total: int, numbers: Mapping[str, float] | None = None) -> None:
        self._inner.advance(f"{self._name}: {label}", done, total, numbers or {})
