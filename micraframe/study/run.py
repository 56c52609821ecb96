"""Runs a study cell by cell. What is done is on the disk, and is not done again."""

from __future__ import annotations

import json
import platform
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from micraframe import config, registry
from micraframe.config import Study
from micraframe.files import atomic, write_json, write_text
from micraframe.interfaces import Annotator, Dataset, Fitted, Metric
from micraframe.micranet import FittedMicraNet
from micraframe.modelfile import provenance
from micraframe.study.pictures import draw_comparison, draw_steps
from micraframe.study.plan import Cell, plan
from micraframe.study.tables import Row, Summary, read_rows, summarise, write_csv
from micraframe.types import Annotation, BoolArray, Cost, Progress, Run, Sample, Split


@dataclass(frozen=True)
class CostRow:
    """What the annotation of one cell costs: of its training and validation samples together."""

    dataset: str
    annotator: str
    method: str
    seed: int
    decisions: int
    seconds: float
    seconds_low: float
    seconds_high: float


@dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes:
        summary: The table.
        failures: Traceback of each cell that failed, by the cell's name.
        pictures: The pictures that were drawn.
    """

    summary: tuple[Summary, ...]
    failures: dict[str, str]
    pictures: tuple[Path, ...]


def run_study(study: Study, output: Path, progress: Progress | None = None) -> Outcome:
    """Run every cell that is not done yet, and write the tables and pictures.

    A cell that fails leaves its traceback in `cells/KEY/error.txt`, and the rest goes on. Trained models are kept in
    `models/`, by the hash of what determines them: cells that differ only in what comes after training share one.

    Args:
        study: What to run.
        output: The folder to write to; an earlier run of the same or a similar study there is continued.
        progress: Whom to tell.
    """
    progress = progress or Progress()
    study = config.resolve(study)
    cells = plan(study)
    failures: dict[str, str] = {}
    for number, cell in enumerate(cells):
        progress.advance("study", number, len(cells))
        folder = output / "cells" / cell.key
        if (folder / "rows.csv").exists():
            continue
        try:
            _run_cell(cell, study, output, progress)
        except Exception:  # one failed cell must not end the study; its traceback is kept and reported
            failures[str(cell)] = traceback.format_exc()
            write_text(folder / "error.txt", failures[str(cell)])
        else:
            (folder / "error.txt").unlink(missing_ok=True)
    progress.advance("study", len(cells), len(cells))

    done = [cell for cell in cells if (output / "cells" / cell.key / "rows.csv").exists()]
    rows = [row for cell in done for row in read_rows(output / "cells" / cell.key / "rows.csv")]
    summary = tuple(summarise(rows))
    write_csv(output / "rows.csv", rows, Row)
    write_csv(output / "summary.csv", summary, Summary)
    write_csv(output / "costs.csv", [_read_cost(output, cell) for cell in done], CostRow)
    write_text(output / "study.yaml", config.to_yaml(study))
    write_json(
        output / "provenance.json",
        {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {
                "system": platform.system(),
                "processor": platform.machine(),
                "python": platform.python_version(),
            },
            "datasets": {
                cell.info.name: provenance(0, cell.info.fingerprint)
                | {"licence": cell.info.licence, "citation": cell.info.citation}
                for cell in cells
            },
            "cells": {str(cell): cell.key for cell in cells},
            "failures": sorted(failures),
        },
    )
    pictures = _draw(done, study, output)
    return Outcome(summary, failures, pictures)


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


def _run_cell(cell: Cell, study: Study, output: Path, progress: Progress) -> None:
    dataset = registry.build("dataset", cell.dataset.name, **cell.dataset.params)
    fitted = _fitted(cell, study, dataset, output, progress)
    metrics = [registry.build("metric", metric.name, **metric.params) for metric in study.metrics]
    test = dataset.samples("test")
    drawn = _drawn(test, study.pictures)
    rows: list[Row] = []
    masks: dict[str, BoolArray] = {}
    predictions = fitted.predict(sample.image for sample in test)
    for number, (sample, prediction) in enumerate(zip(test, predictions, strict=True)):
        rows += _measure(cell, metrics, sample, prediction)
        if number in drawn and prediction.masks is not None:
            masks[str(number)] = prediction.masks
        if number % 20 == 0 or number + 1 == len(test):
            progress.advance(f"{cell}: predict", number + 1, len(test))
    folder = output / "cells" / cell.key
    with atomic(folder / "masks.npz") as temporary:
        np.savez_compressed(temporary, **masks)  # type: ignore[arg-type]  # numpy's stub takes no keywords of arrays
    # Last, for this file says that the cell is done.
    write_csv(folder / "rows.csv", rows, Row)


def _fitted(cell: Cell, study: Study, dataset: Dataset, output: Path, progress: Progress) -> Fitted:
    """Load what was learned, or learn it."""
    choice = cell.contender.method
    method = registry.build("method", choice.name, **choice.params)
    model = output / "models" / cell.training_key
    if not model.exists():
        annotator = registry.build("annotator", cell.contender.annotator.name, **cell.contender.annotator.params)
        given: dict[Split, tuple[Sample, ...]] = {}
        cost = Cost()
        for split in ("train", "valid"):
            given[split], price = annotate(dataset.samples(split), annotator, method.learns_from, cell.seed)
            cost += price
        run = Run(
            cell.seed,
            output / "training" / cell.training_key,
            study.device,
            study.precision,
            _Named(progress, str(cell)),
        )
        write_json(_cost_path(output, cell), vars(cost))
        method.fit(given["train"], given["valid"], cell.info, run).save(model)
    return method.load(model, study.device)


def _measure(cell: Cell, metrics: Sequence[Metric], sample: Sample, prediction: Any) -> list[Row]:
    return [
        Row(cell.info.name, cell.annotator, cell.method, cell.seed, sample.id, class_, name, float(value))
        for metric in metrics
        for name, values in metric.measure(prediction, sample).items()
        for class_, value in zip(cell.info.classes, values, strict=True)
    ]


def _draw(cells: Sequence[Cell], study: Study, output: Path) -> tuple[Path, ...]:
    """Draw test images with the truth and every method's masks of the first seed, and how MICRA-Net came to its own."""
    pictures: list[Path] = []
    if not study.pictures:
        return ()
    for name in dict.fromkeys(cell.info.name for cell in cells):
        mine = [cell for cell in cells if cell.info.name == name and cell.seed == study.seeds[0]]
        if not mine:
            continue
        dataset = registry.build("dataset", mine[0].dataset.name, **mine[0].dataset.params)
        test = dataset.samples("test")
        chosen = {number: test[number] for number in sorted(_drawn(test, study.pictures))}
        masks = {}
        for cell in mine:
            with np.load(output / "cells" / cell.key / "masks.npz") as saved:
                masks[f"{cell.method}\n({cell.annotator})"] = {int(number): saved[number] for number in saved.files}
        path = output / "pictures" / f"{name}.png"
        draw_comparison(path, chosen, masks, mine[0].info.classes)
        pictures.append(path)
        for cell in mine:
            if registry.catalog().find("method", cell.contender.method.name).qualified != "micraframe/micra-net":
                continue
            fitted = registry.build("method", cell.contender.method.name, **cell.contender.method.params).load(
                output / "models" / cell.training_key, study.device
            )
            assert isinstance(fitted, FittedMicraNet)
            slug = re.sub(r"[^a-z0-9]+", "-", cell.method.lower()).strip("-")
            path = output / "pictures" / f"{name}-{slug}-steps.png"
            draw_steps(path, chosen.values(), fitted.steps(s.image for s in chosen.values()), cell.info.classes)
            pictures.append(path)
    return tuple(pictures)


def _drawn(test: Sequence[Sample], wanted: int) -> set[int]:
    """Return the numbers of the test images to draw: evenly spaced among those that hold any class.

    They are chosen before any method has seen them; where no image holds a class, among all.
    """
    if not wanted:
        return set()
    holding = [number for number, sample in enumerate(test) if sample.labels is not None and sample.labels.any()]
    numbers = holding or range(len(test))
    return {numbers[round(place)] for place in np.linspace(0, len(numbers) - 1, min(wanted, len(numbers)))}


def _cost_path(output: Path, cell: Cell) -> Path:
    return output / "models" / f"{cell.training_key}.cost.json"


def _read_cost(output: Path, cell: Cell) -> CostRow:
    cost = Cost(**json.loads(_cost_path(output, cell).read_text(encoding="utf-8")))
    return CostRow(cell.info.name, cell.annotator, cell.method, cell.seed, **vars(cost))


class _Named(Progress):
    """Passes progress on under the name of a cell."""

    def __init__(self, inner: Progress, name: str) -> None:
        self._inner = inner
        self._name = name

    def advance(self, label: str, done: int, total: int, numbers: Any = None) -> None:
        self._inner.advance(f"{self._name}: {label}", done, total, numbers or {})
