"""The files of a study: where they are, and which runs are complete."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from micraframe.config import Choice
from micraframe.datasets.paths import file_digest
from micraframe.errors import DataError
from micraframe.interfaces import Thresholds
from micraframe.runtime.files import atomic, digest, write_json, write_text
from micraframe.selection import FILE as CRITERIA
from micraframe.selection import LabelCriteria
from micraframe.study.plan import StudyRun, method_class
from micraframe.study.provenance import ComputedOn
from micraframe.study.tables import ROWS, read_csv, table_of, write_csv
from micraframe.tuning import FILE as THRESHOLDS
from micraframe.types import BoolArray, Origin, Split, Threshold, Work

ROW_NAMES: Final = ("thresholds", "image", "group", "class", "metric", "value")
"""The columns of a run's own rows; the others are the same in all of them."""

SCRATCH: Final = "MICRAFRAME_SCRATCH"
"""Environment variable that names the folder of unfinished trainings."""

_RESULTS: Final = ("rows.csv", "masks.npz", THRESHOLDS)

_ADOPTED: Final = "adopted"
"""Name of the file that marks a run of an earlier study; it contains the key of the run's training."""


@dataclass(frozen=True)
class Step:
    """The last progress that was reported of a run.

    Attributes:
        label: The run's name and what it does.
        done: Number of finished parts.
        total: Number of all parts.
        numbers: Values to display, such as a loss.
    """

    label: str
    done: int
    total: int
    numbers: Mapping[str, float]

    def __str__(self) -> str:
        parts = f" {self.done}/{self.total}" if self.total > 1 else ""
        return ", ".join([self.label + parts, *(f"{name} {value:.3g}" for name, value in self.numbers.items())])


@dataclass(frozen=True)
class StudyFolder:
    """The files of a study.

    A trained model is found by the hash of everything that determines it, and a run's results by theirs. A run's
    `done.json` is written last, with the sizes and hashes of its results: it says whether they are complete.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The study, with every default written out."""
        return self.path / "study.yaml"

    def table(self, name: str) -> Path:
        """Return the path of a table of the whole study: `rows`, `summary`, `costs`, `statistics` or `criteria`."""
        return self.path / f"{name}.csv"

    def model(self, run: StudyRun) -> Path:
        """Return the folder of the model that the run uses; runs that differ only after training share it."""
        return self.path / "models" / run.training_key

    def training(self, run: StudyRun) -> Path:
        """Return the folder of a completed training's log."""
        return self.path / "training" / run.training_key

    def lock(self, run: StudyRun) -> Path:
        """Return the file that whoever executes the runs of this training holds."""
        return self.path / "training" / f"{run.training_key}.lock"

    def write_step(self, run: StudyRun, step: Step) -> None:
        """Keep the step that the runs of this training are at."""
        numbers = {name: value for name, value in step.numbers.items() if math.isfinite(value)}
        write_json(self._step(run), {**asdict(step), "numbers": numbers})

    def step(self, run: StudyRun) -> Step | None:
        """Return the step that the runs of this training are at, or were at when they were interrupted; else None."""
        try:
            return Step(**_read(self._step(run)))
        except (OSError, ValueError, TypeError):
            return None

    def clear_step(self, run: StudyRun) -> None:
        """Remove the step of the runs of this training: none is being executed."""
        self._step(run).unlink(missing_ok=True)

    def _step(self, run: StudyRun) -> Path:
        return self.path / "training" / f"{run.training_key}.step.json"

    def scratch(self, run: StudyRun) -> Path:
        """Return the folder that a training is given for its checkpoints and log while it lasts.

        It is not in the study's folder, so that a method that looks around finds no configuration, data or results.
        Every process that uses the study's folder finds the same one, if they share the parent folder: the
        environment variable MICRAFRAME_SCRATCH, or else the user's cache.
        """
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        parent = Path(os.environ.get(SCRATCH) or cache / "micraframe" / "training")
        return parent.absolute() / digest(str(self.path.resolve()), run.training_key)[:24]

    def write_sample_names(self, run: StudyRun, names: Mapping[str, str]) -> None:
        """Keep the names that a training's samples and groups have in the dataset, by those that the method sees."""
        write_json(self.path / "samples" / f"{run.training_key}.json", dict(names))

    def read_sample_names(self, run: StudyRun) -> dict[str, str]:
        """Return what `write_sample_names` wrote; empty where nothing was."""
        try:
            found: dict[str, str] = _read(self.path / "samples" / f"{run.training_key}.json")
        except (OSError, ValueError):
            return {}
        return found

    def write_numerics(self, computed_with: Mapping[str, str]) -> None:
        """Keep what the keys of the study's runs were made with."""
        write_json(self.path / "numerics.json", dict(computed_with))

    def numerics(self) -> dict[str, str] | None:
        """Return what the keys of the study's runs were made with, perhaps on another machine; None: no run yet."""
        try:
            found: dict[str, str] = _read(self.path / "numerics.json")
        except OSError:
            return None
        return found

    def run(self, run: StudyRun) -> Path:
        """Return the folder of the run's results."""
        return self.path / "runs" / run.key

    def is_trained(self, run: StudyRun) -> bool:
        """Return whether the run's model exists."""
        return self.model(run).exists()

    def is_done(self, run: StudyRun) -> bool:
        """Return whether the run's results are complete and intact."""
        folder = self.run(run)
        try:
            hashes = _read(folder / "done.json")["files"]
            return all(hashes[name] == file_digest(folder / name) for name in _RESULTS)
        except (OSError, DataError, ValueError, KeyError, TypeError):
            return False

    def error(self, run: StudyRun) -> str:
        """Return the traceback of the run's last failure; empty where it did not fail."""
        path = self.run(run) / "error.txt"
        return path.read_text(encoding="utf-8") if path.exists() and not self.is_done(run) else ""

    def write_error(self, run: StudyRun, text: str) -> None:
        """Keep a failed run's traceback."""
        write_text(self.run(run) / "error.txt", text)

    def write_training(
        self, run: StudyRun, work: Mapping[Split, Iterable[Work]], seconds: float, computed: ComputedOn
    ) -> None:
        """Keep how long a training took, the work of annotating each split, and where it was computed."""
        record = {
            "seconds": seconds,
            "work": {split: [asdict(each) for each in works] for split, works in work.items()},
            "computed": asdict(computed),
        }
        write_json(self.path / "models" / f"{run.training_key}.json", record)

    def training_work(self, run: StudyRun) -> tuple[Work, ...]:
        """Return the work of annotating the training samples and, where the method uses them, the validation samples.

        There is one for each split and task.
        """
        work = self._training_record(run)["work"]
        used = run.kind == "ceiling" or method_class(run.compared.method).uses_validation
        return tuple(each for split, works in work.items() if used or split == "train" for each in _work(works))

    def training_seconds(self, run: StudyRun) -> float:
        """Return how long the training took since it was last started."""
        return float(self._training_record(run)["seconds"])

    def computed(self, run: StudyRun) -> tuple[ComputedOn, ...]:
        """Return where a completed run was trained, and where it was measured."""
        records = (self._training_record(run), _read(self.run(run) / "done.json"))
        return tuple(ComputedOn(**record["computed"]) for record in records)

    def clear_training(self, run: StudyRun) -> None:
        """Remove what a killed process has left half written in the folder of the training."""
        for leftover in self.scratch(run).glob(".*"):
            _remove(leftover)

    def clear_results(self, run: StudyRun) -> None:
        """Remove everything that an earlier attempt at the run has left; its last error stays until the run is done."""
        for leftover in self.run(run).glob("*"):
            if leftover.name != "error.txt":
                leftover.unlink()

    def finish_training(self, run: StudyRun) -> None:
        """Bring what a completed training leaves, its log and curves, into the study's folder; remove the rest."""
        scratch = self.scratch(run)
        for left in sorted(scratch.glob("[!.]*")):
            target = self.training(run) / left.name
            if left.is_dir() and left.name != "checkpoints":  # a training of several networks has a folder of each
                shutil.copytree(left, target, ignore=shutil.ignore_patterns("checkpoints", ".*"), dirs_exist_ok=True)
            elif left.is_file():
                with atomic(target) as temporary:
                    shutil.copyfile(left, temporary)
        shutil.rmtree(scratch, ignore_errors=True)

    def write_results(
        self,
        run: StudyRun,
        head: Choice | None,
        rows: pl.DataFrame,
        masks: Mapping[str, npt.NDArray[np.uint8]],
        used: Mapping[str, tuple[Threshold, ...]],
        tuned: Mapping[Origin, Thresholds],
        tuning_work: Iterable[Work],
        seconds: float,
        computed: ComputedOn,
    ) -> None:
        """Keep a run's results; from now on it is done.

        Args:
            run: The run.
            head: The run's head, with numbers in place of `auto`.
            rows: All its statistics, with the columns `ROW_NAMES`.
            masks: Of the test images with fixed thresholds, by the image's number; eight columns to a byte.
            used: The thresholds that were applied, by origin.
            tuned: The thresholds that were tuned, by origin.
            tuning_work: The work of annotating the tuning images.
            seconds: How long all this took, without training.
            computed: Where it was computed.
        """
        folder = self.run(run)
        write_csv(folder / "rows.csv", rows)
        with atomic(folder / "masks.npz") as temporary:
            np.savez_compressed(temporary, **masks)  # type: ignore[arg-type]  # numpy's stub takes no keywords of arrays
        thresholds = {
            "run": str(run),
            "model": run.training_key,
            "method": run.compared.method.model_dump(mode="json"),
            "head": head.model_dump(mode="json") if head else None,
            "used": {origin: [_threshold(each) for each in records] for origin, records in used.items()},
            "tuned": {origin: asdict(each) for origin, each in tuned.items()},
        }
        write_json(folder / THRESHOLDS, thresholds)
        record = {
            "rows": len(rows),
            "files": {name: file_digest(folder / name) for name in _RESULTS},
            "tuning_work": [asdict(each) for each in tuning_work],
            "seconds": seconds,
            "computed": asdict(computed),
        }
        write_json(folder / "done.json", record)
        (folder / "error.txt").unlink(missing_ok=True)

    def mark_adopted(self, run: StudyRun) -> None:
        """Say of a completed run that its results are those of an earlier study: it has neither model nor masks."""
        write_text(self.run(run) / _ADOPTED, run.training_key)

    def drop_adopted(self) -> None:
        """Remove the runs of earlier studies; what was run here stays."""
        for mark in self.path.glob(f"runs/*/{_ADOPTED}"):
            key = mark.read_text(encoding="utf-8")
            if not (self.path / "models" / key).exists():
                (self.path / "models" / f"{key}.json").unlink(missing_ok=True)
            shutil.rmtree(mark.parent)

    def rows(self, run: StudyRun) -> pl.DataFrame:
        """Return the statistics of a completed run, with the columns `ROWS`.

        Names are not part of what determines a run, so its file has none: they are those that the study gives it now.
        """
        return _with_names(run, read_csv(self.run(run) / "rows.csv", ROW_NAMES))

    def write_criteria(self, run: StudyRun, criteria: Mapping[str, LabelCriteria]) -> None:
        """Keep what labels alone say of a run, by the origin of the thresholds."""
        table = table_of(criteria.values(), LabelCriteria)
        write_csv(self.run(run) / CRITERIA, table.select(pl.Series("thresholds", list(criteria), pl.String), pl.all()))

    def criteria(self, run: StudyRun) -> pl.DataFrame:
        """Return what labels alone say of a completed run: names, `thresholds`, and the fields of `LabelCriteria`.

        There is a row for each origin of thresholds that needs no mask; none where the study did not ask for them.
        """
        return _with_names(run, self._criteria(run))

    def _criteria(self, run: StudyRun) -> pl.DataFrame:
        table, path = table_of((), LabelCriteria), self.run(run) / CRITERIA
        table = table.select(pl.Series("thresholds", (), pl.String), pl.all())
        if path.exists():
            table = pl.read_csv(path, schema=table.schema).with_columns(pl.col(pl.Float64).fill_null(math.nan))
        return table

    def masks(self, run: StudyRun, number: int, width: int) -> BoolArray | None:
        """Return a completed run's masks of a test image, bool (K, H, W); None where the head makes none.

        Args:
            run: The run.
            number: The image's position in the test split.
            width: Its width W.
        """
        with np.load(self.run(run) / "masks.npz", allow_pickle=False) as saved:
            if str(number) not in saved.files:
                return None
            return np.unpackbits(saved[str(number)], axis=-1, count=width).astype(np.bool_)

    def thresholds(self, run: StudyRun) -> dict[str, list[dict[str, Any]]]:
        """Return the thresholds that a completed run applied: by origin, records of name, value, origin and rule."""
        found: dict[str, list[dict[str, Any]]] = _read(self.run(run) / THRESHOLDS)["used"]
        return found

    def head(self, run: StudyRun) -> Choice:
        """Return the head of a completed run, with numbers in place of `auto`."""
        return Choice.model_validate(_read(self.run(run) / THRESHOLDS)["head"])

    def tuning_work(self, run: StudyRun) -> tuple[Work, ...]:
        """Return the work of annotating a completed run's tuning images, one for each task."""
        return _work(_read(self.run(run) / "done.json")["tuning_work"])

    def seconds(self, run: StudyRun) -> float:
        """Return how long a completed run took, without training."""
        return float(_read(self.run(run) / "done.json")["seconds"])

    def record(self, run: StudyRun) -> dict[str, Any]:
        """Return what is kept of a completed run besides its model, rows and masks, as JSON has it."""
        training, done, thresholds = (
            self._training_record(run),
            _read(self.run(run) / "done.json"),
            _read(self.run(run) / THRESHOLDS),
        )
        return {
            "work": training["work"],
            "training_seconds": training["seconds"],
            "tuning_work": done["tuning_work"],
            "seconds": done["seconds"],
            "used": thresholds["used"],
            "tuned": thresholds["tuned"],
            "criteria": {
                row.pop("thresholds"): {name: None if math.isnan(value) else value for name, value in row.items()}
                for row in self._criteria(run).to_dicts()
            },
        }

    def _training_record(self, run: StudyRun) -> Any:
        return _read(self.path / "models" / f"{run.training_key}.json")


def _with_names(run: StudyRun, table: pl.DataFrame) -> pl.DataFrame:
    """Return a run's table with the columns that say of which run it is."""
    names = {"dataset": run.info.name, "annotator": run.annotator, "method": run.method, "seed": run.seed}
    return table.select(*(pl.lit(names[name], ROWS[name]).alias(name) for name in names), pl.all())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _threshold(threshold: Threshold) -> dict[str, Any]:
    # JSON has no NaN: where each image has its own threshold, there is no value.
    return {**asdict(threshold), "value": None if np.isnan(threshold.value) else threshold.value}


def _work(records: Iterable[Mapping[str, Any]]) -> tuple[Work, ...]:
    return tuple(Work(**record) for record in records)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
