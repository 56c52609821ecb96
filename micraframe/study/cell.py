"""Runs one cell: annotate, learn, tune, predict, measure."""

from __future__ import annotations

import dataclasses
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from micraframe import registry
from micraframe.annotators.costs import Pricing
from micraframe.config import Choice, Study
from micraframe.errors import DataError
from micraframe.interfaces import Annotator, Dataset, Fitted, Metric
from micraframe.metrics.evidence import labels_of, ranks
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import Cell, Job, unpriced
from micraframe.study.tables import Row
from micraframe.study.tuning import Tuned, kept, redecided, tune
from micraframe.tiling import predict
from micraframe.types import (
    Annotation,
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
        predictions = predict(fitted, _images(test), study.tiling)
        for number, (sample, prediction) in enumerate(zip(test, predictions, strict=True)):
            rows.measure("fixed", sample, prediction)
            thresholds.setdefault("fixed", prediction.thresholds)
            if prediction.masks is not None:
                masks[str(number)] = np.packbits(prediction.masks, axis=-1)
            if number % 20 == 0 or number + 1 == len(test):
                progress.advance(f"{cell}: predict", number + 1, len(test))
            yield prediction

    valid: tuple[Sample, ...] = ()
    cost = Cost()
    if fitted.head is not None and study.tune:
        # Before anything is predicted: where there are none, that is soon told.
        valid, cost = tuning_samples(cell, study, dataset.samples("valid"), number_annotated(cell, dataset, "valid"))
    known = tuple(kept(measured()))
    rows.rank("fixed")
    if fitted.head is not None and valid:
        told = tuple(kept(predict(fitted, _images(valid), study.tiling)))
        for origin, samples, found in (("validation", valid, told), ("oracle", test, known)):
            progress.advance(f"{cell}: tune on {origin}", 0, 1)
            tuned = tune(fitted, samples, found, study.tiling)
            head = fitted.head.with_thresholds(*tuned)
            for sample, prediction in zip(test, redecided(fitted, head, test, known, study.tiling), strict=True):
                rows.measure(origin, sample, prediction)
                if origin not in thresholds:
                    thresholds[origin] = tuple(with_origin(each, tuned, origin) for each in prediction.thresholds)
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
    return [samples[place] for place in _drawn(len(samples), number, seed)]


def tuning_samples(
    cell: Cell, study: Study, valid: Sequence[Sample], paid: int | None
) -> tuple[tuple[Sample, ...], Cost]:
    """Return the validation samples to tune on as the study's tuning annotator leaves them, and what that costs.

    Where the contender's own annotation of a sample has been the same, it costs nothing more. Of samples whose objects
    nobody has outlined, only the labels are left, so that only thresholds of presence are tuned on them; they are paid
    for as image-level ones, unless the contender's own annotator has given them already.

    Args:
        cell: The contender, and the seed that draws the samples.
        study: How many, and annotated by whom.
        valid: All validation samples.
        paid: How many of these the contender's own annotator has annotated, drawn by the same seed; None: all.

    Raises:
        DataError: If there are no validation samples.
    """
    if not valid:
        raise DataError(
            f"dataset {cell.info.name!r} has 0 validation images, and thresholds are to be tuned on up to "
            f"{study.tune}; add validation images, or set tune: 0"
        )
    choice, own = study.tuning_annotator, cell.contender.annotator
    annotator, labeller, before = _annotator(choice), _labeller(choice), _annotator(own)
    already = set(_drawn(len(valid), paid, cell.seed))
    found, cost = [], Cost()
    for place in _drawn(len(valid), study.tune, cell.seed):
        sample = valid[place]
        if sample.masks is not None or sample.instances is not None:
            (told,), price = annotate([sample], annotator, frozenset(Annotation), cell.seed)
            free = place in already and unpriced(own) == unpriced(choice)
        elif sample.labels is not None:
            (told,), price = annotate([sample], labeller, frozenset({Annotation.LABELS}), cell.seed)
            free = place in already and before.annotate(sample, cell.seed)[0].labels is not None
        else:  # nobody knows anything of it, and nothing is paid
            told, price, free = sample.keep(()), Cost(), True
        found.append(told)
        cost += Cost() if free else price
    return tuple(found), cost


def fitted_for(cell: Cell, study: Study, dataset: Dataset, folder: StudyFolder, progress: Progress) -> Fitted:
    """Load what was learned, or learn it."""
    choice = cell.contender.method
    method = registry.build("method", choice.name, **choice.params)
    if not folder.is_trained(cell):
        start = time.perf_counter()
        folder.clear_training(cell)
        given, cost = given_to(cell, dataset, method.learns_from)
        named = _Named(progress, str(cell))
        run = Run(cell.seed, folder.training(cell), study.device, study.precision, named)
        learned = method.fit(given["train"], given["valid"], cell.info, run)
        folder.write_cost(cell, cost)
        folder.write_training_seconds(cell, time.perf_counter() - start)
        # A model is there whole or not at all, however the method saves it.
        part = folder.training(cell) / "model"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        learned.save(part / cell.training_key)
        (part / cell.training_key).replace(folder.model(cell))
        part.rmdir()
    # Not only when it has just been saved: a process may have been killed between the two.
    folder.remove_checkpoints(cell)
    return method.load(folder.model(cell), study.device)


def given_to(
    cell: Cell, dataset: Dataset, allowed: frozenset[Annotation]
) -> tuple[dict[Split, tuple[Sample, ...]], Cost]:
    """Return the training and validation samples that the contender is given, and what their annotation costs."""
    annotator = _annotator(cell.contender.annotator)
    given: dict[Split, tuple[Sample, ...]] = {}
    cost = Cost()
    for split in ("train", "valid"):
        chosen = subset(dataset.samples(split), number_annotated(cell, dataset, split), cell.seed)
        given[split], price = annotate(chosen, annotator, allowed, cell.seed)
        cost += price
    return given, cost


def number_annotated(cell: Cell, dataset: Dataset, split: Split) -> int | None:
    """Return how many samples of a split the contender's annotator annotates, drawn by the seed; None: all."""
    wanted = cell.contender.images
    if wanted is None or split == "train":
        return wanted
    share = wanted / max(len(dataset.samples("train")), 1)
    return max(round(share * len(dataset.samples(split))), 1)


def _drawn(total: int, number: int | None, seed: int) -> tuple[int, ...]:
    """Return the places of so many of `total` samples, drawn by the seed, in order; all where None is wanted.

    Fewer of the same total and seed are among more.
    """
    if number is None or number >= total:
        return tuple(range(total))
    return tuple(sorted(np.random.default_rng(seed).permutation(total)[:number].tolist()))


def _images(samples: Iterable[Sample]) -> Iterator[FloatArray]:
    """Return the images and nothing that leads to what else is known: a generator's frame would hold the samples."""
    return iter([sample.image for sample in samples])


def _annotator(choice: Choice) -> Annotator:
    return registry.build("annotator", choice.name, **choice.params)


def _labeller(choice: Choice) -> Annotator:
    """Return who gives image-level labels at the prices of the chosen annotator, where it has such."""
    pricing = dict(_annotator(choice).params).get("cost")
    prices = {"cost": pricing.model_dump()} if isinstance(pricing, Pricing) else {}
    return registry.build("annotator", "micraframe/image-level", **prices)


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
        self._samples: dict[str, list[Sample]] = {}
        # Once: names of methods are made of their whole configuration.
        self._named = (cell.info.name, cell.annotator, cell.method, cell.seed)
        self._classes = cell.info.classes
        self._metrics = metrics

    def measure(self, origin: str, sample: Sample, prediction: Prediction) -> None:
        """Measure one image."""
        for metric in self._metrics:
            for name, values in metric.measure(prediction, sample).items():
                self._add(origin, sample, name, values)
        self.scores.setdefault(origin, []).append(prediction.scores)
        self._samples.setdefault(origin, []).append(sample)

    def rank(self, origin: str) -> None:
        """Measure what depends on all images, when all of them have been measured."""
        scores = self.scores.get(origin, [])
        samples = self._samples.get(origin, [])
        for name, table in ranks(self._metrics, scores, [labels_of(sample) for sample in samples]).items():
            for sample, values in zip(samples, table, strict=True):
                self._add(origin, sample, name, values)

    def _add(self, origin: str, sample: Sample, metric: str, values: FloatArray) -> None:
        named = (*self._named, origin, sample.id, sample.group or sample.id)
        for class_, value in zip(self._classes, values, strict=True):
            self.rows.append(Row(*named, class_, metric, float(value)))


def with_origin(threshold: Threshold, tuned: Tuned, origin: Any) -> Threshold:
    """Return the threshold with where it came from; what is the head's own stays what it was."""
    own = tuned.mask is None if threshold.name == "mask" else tuned.decision is None
    return threshold if own else dataclasses.replace(threshold, origin=origin)


class _Named(Progress):
    """Passes progress on under the name of a cell."""

    def __init__(self, inner: Progress, name: str) -> None:
        self._inner = inner
        self._name = name

    def advance(self, label: str, done: int, total: int, numbers: Mapping[str, float] | None = None) -> None:
        self._inner.advance(f"{self._name}: {label}", done, total, numbers or {})
