"""The files of a study: where they are, and which runs are complete."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from micraframe.interfaces import Thresholds
from micraframe.runtime.files import atomic, write_json, write_text
from micraframe.study.plan import StudyRun
from micraframe.study.tables import ROWS, read_csv, write_csv
from micraframe.tuning import FILE as THRESHOLDS
from micraframe.types import BoolArray, Origin, Threshold, Work

ROW_NAMES: Final = ("thresholds", "image", "group", "class", "metric", "value")
"""The columns of a run's own rows; the others are the same in all of them."""

_RESULTS: Final = ("rows.csv", "masks.npz", THRESHOLDS)


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
        """Return the path of a table of the whole study: `rows`, `summary`, `costs` or `statistics`."""
        return self.path / f"{name}.csv"

    def model(self, run: StudyRun) -> Path:
        """Return the folder of the model that the run uses; runs that differ only after training share it."""
        return self.path / "models" / run.training_key

    def training(self, run: StudyRun) -> Path:
        """Return the folder of the training's log, and of its checkpoints while it lasts."""
        return self.path / "training" / run.training_key

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
            return all(hashes[name] == _hash(*_identity(folder / name)) for name in _RESULTS)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def error(self, run: StudyRun) -> str:
        """Return the traceback of the run's last failure; empty where it did not fail."""
        path = self.run(run) / "error.txt"
        return path.read_text(encoding="utf-8") if path.exists() and not self.is_done(run) else ""

    def write_error(self, run: StudyRun, text: str) -> None:
        """Keep a failed run's traceback."""
        write_text(self.run(run) / "error.txt", text)

    def write_training(self, run: StudyRun, work: Iterable[Work], seconds: float) -> None:
        """Keep how long a training took on this machine, and the work of annotating its samples."""
        record = {"seconds": seconds, "work": [asdict(each) for each in work]}
        write_json(self.path / "models" / f"{run.training_key}.json", record)

    def training_work(self, run: StudyRun) -> tuple[Work, ...]:
        """Return the work of annotating the training and validation samples, one for each task."""
        return _work(self._training_record(run)["work"])

    def training_seconds(self, run: StudyRun) -> float:
        """Return how long the training took since it was last started."""
        return float(self._training_record(run)["seconds"])

    def clear_training(self, run: StudyRun) -> None:
        """Remove what a killed process has left half written in the folder of the training."""
        for leftover in self.training(run).glob(".*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()

    def clear_results(self, run: StudyRun) -> None:
        """Remove everything that an earlier attempt at the run has left; its last error stays until the run is done."""
        for leftover in self.run(run).glob("*"):
            if leftover.name != "error.txt":
                leftover.unlink()

    def remove_checkpoints(self, run: StudyRun) -> None:
        """Remove the checkpoints of a completed training; its log and curves stay."""
        shutil.rmtree(self.training(run) / "checkpoints", ignore_errors=True)

    def write_results(
        self,
        run: StudyRun,
        rows: pl.DataFrame,
        masks: Mapping[str, npt.NDArray[np.uint8]],
        used: Mapping[str, tuple[Threshold, ...]],
        tuned: Mapping[Origin, Thresholds],
        tuning_work: Iterable[Work],
        seconds: float,
    ) -> None:
        """Keep a run's results; from now on it is done.

        Args:
            run: The run.
            rows: All its statistics, with the columns `ROW_NAMES`.
            masks: Of the test images with fixed thresholds, by the image's number; eight columns to a byte.
            used: The thresholds that were applied, by origin.
            tuned: The thresholds that were tuned, by origin.
            tuning_work: The work of annotating the tuning images.
            seconds: How long all this took, without training.
        """
        folder = self.run(run)
        write_csv(folder / "rows.csv", rows)
        with atomic(folder / "masks.npz") as temporary:
            np.savez_compressed(temporary, **masks)  # type: ignore[arg-type]  # numpy's stub takes no keywords of arrays
        thresholds = {
            "run": str(run),
            "model": run.training_key,
            "method": run.compared.method.model_dump(mode="json"),
            "head": run.compared.head.model_dump(mode="json") if run.compared.head else None,
            "used": {origin: [_threshold(each) for each in records] for origin, records in used.items()},
            "tuned": {origin: asdict(each) for origin, each in tuned.items()},
        }
        write_json(folder / THRESHOLDS, thresholds)
        record = {
            "rows": len(rows),
            "files": {name: _hash(*_identity(folder / name)) for name in _RESULTS},
            "tuning_work": [asdict(each) for each in tuning_work],
            "seconds": seconds,
        }
        write_json(folder / "done.json", record)
        (folder / "error.txt").unlink(missing_ok=True)

    def rows(self, run: StudyRun) -> pl.DataFrame:
        """Return the statistics of a completed run, with the columns `ROWS`.

        Names are not part of what determines a run, so its file has none: they are those that the study gives it now.
        """
        names = {"dataset": run.info.name, "annotator": run.annotator, "method": run.method, "seed": run.seed}
        rows = read_csv(self.run(run) / "rows.csv", ROW_NAMES)
        return rows.select(*(pl.lit(names[name], ROWS[name]).alias(name) for name in names), *ROW_NAMES)

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

    def tuning_work(self, run: StudyRun) -> tuple[Work, ...]:
        """Return the work of annotating a completed run's tuning images, one for each task."""
        return _work(_read(self.run(run) / "done.json")["tuning_work"])

    def seconds(self, run: StudyRun) -> float:
        """Return how long a completed run took, without training."""
        return float(_read(self.run(run) / "done.json")["seconds"])

    def _training_record(self, run: StudyRun) -> Any:
        return _read(self.path / "models" / f"{run.training_key}.json")


def _threshold(threshold: Threshold) -> dict[str, Any]:
    # JSON has no NaN: where each image has its own threshold, there is no value.
    return {**asdict(threshold), "value": None if np.isnan(threshold.value) else threshold.value}


def _work(records: Iterable[Mapping[str, Any]]) -> tuple[Work, ...]:
    return tuple(Work(**record) for record in records)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _identity(path: Path) -> tuple[Path, int, int]:
    """Return what changes when a file changes."""
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=4096)
def _hash(path: Path, size: int, modified: int) -> str:
    """Return a file's SHA-256; size and time of the last change tell whether it must be read again."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
