"""Where things are in a study's folder, and what is done there already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from micraframe.files import atomic, write_json, write_text
from micraframe.study.plan import Cell
from micraframe.study.tables import Row, read_rows, write_csv
from micraframe.types import BoolArray, Cost, Threshold


@dataclass(frozen=True)
class StudyFolder:
    """The files of a study.

    A trained model is known by the hash of what determines it, a cell's results by theirs, what annotation costs by
    that of its prices besides. `rows.csv` is a cell's last file: where it is, the cell is done.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The study, every default written out."""
        return self.path / "study.yaml"

    def table(self, name: str) -> Path:
        """Return where a table of the whole study is: `rows`, `summary`, `costs` or `statistics`."""
        return self.path / f"{name}.csv"

    def model(self, cell: Cell) -> Path:
        """Return the folder of what the cell has learned."""
        return self.path / "models" / cell.training_key

    def training(self, cell: Cell) -> Path:
        """Return the folder of checkpoints of the cell's training."""
        return self.path / "training" / cell.training_key

    def cell(self, cell: Cell) -> Path:
        """Return the folder of the cell's results."""
        return self.path / "cells" / cell.key

    def is_trained(self, cell: Cell) -> bool:
        """Return whether there is a model for the cell."""
        return self.model(cell).exists()

    def is_done(self, cell: Cell) -> bool:
        """Return whether the cell has its results."""
        return (self.cell(cell) / "rows.csv").exists()

    def error(self, cell: Cell) -> str:
        """Return the traceback that the cell left when it failed last; empty where it did not."""
        path = self.cell(cell) / "error.txt"
        return path.read_text(encoding="utf-8") if path.exists() and not self.is_done(cell) else ""

    def write_error(self, cell: Cell, text: str) -> None:
        """Keep a failed cell's traceback."""
        write_text(self.cell(cell) / "error.txt", text)

    def write_cost(self, cell: Cell, cost: Cost) -> None:
        """Keep what the annotation of the cell's training and validation samples costs, at the cell's prices."""
        write_json(self._beside_model(cell, f"cost-{cell.prices}"), vars(cost))

    def cost(self, cell: Cell) -> Cost | None:
        """Return what `write_cost` kept; None where it was never reckoned at the cell's prices."""
        return _cost(self._beside_model(cell, f"cost-{cell.prices}"))

    def write_training_seconds(self, cell: Cell, seconds: float) -> None:
        """Keep how long the cell's training took, on this machine, from its last start."""
        write_json(self._beside_model(cell, "seconds"), seconds)

    def training_seconds(self, cell: Cell) -> float:
        """Return how long the cell's training took."""
        return float(_read(self._beside_model(cell, "seconds")))

    def clear_training(self, cell: Cell) -> None:
        """Remove what a process that was killed while it wrote has left in the folder of the cell's training."""
        for leftover in self.training(cell).glob(".*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()

    def remove_checkpoints(self, cell: Cell) -> None:
        """Remove the checkpoints of a training that is done; its log and curves stay."""
        shutil.rmtree(self.training(cell) / "checkpoints", ignore_errors=True)

    def write_results(
        self,
        cell: Cell,
        rows: list[Row],
        masks: dict[str, npt.NDArray[np.uint8]],
        thresholds: dict[str, tuple[Threshold, ...]],
        tuning_cost: Cost,
        seconds: float,
    ) -> None:
        """Keep a cell's results; from now on it is done.

        Args:
            cell: The cell.
            rows: All its numbers.
            masks: Of the test images, by their number: those of the fixed thresholds, eight columns to a byte.
            thresholds: What was decided by, by origin.
            tuning_cost: What the labels cost that thresholds were tuned on, at the cell's prices.
            seconds: How long all this took, training not counted.
        """
        folder = self.cell(cell)
        with atomic(folder / "masks.npz") as temporary:
            np.savez_compressed(temporary, **masks)  # type: ignore[arg-type]  # numpy's stub takes no keywords of arrays
        told = {origin: [_threshold(each) for each in used] for origin, used in thresholds.items()}
        write_json(folder / "thresholds.json", {"used": told})
        self.write_tuning_cost(cell, tuning_cost)
        write_json(folder / "seconds.json", seconds)
        write_csv(folder / "rows.csv", rows, Row)
        (folder / "error.txt").unlink(missing_ok=True)

    def rows(self, cell: Cell) -> Iterator[Row]:
        """Yield the numbers of a cell that is done, under the names that it has now.

        Names are no part of what determines a cell: those in its file are of the study that ran it first.
        """
        named = (cell.info.name, cell.annotator, cell.method, cell.seed)
        for row in read_rows(self.cell(cell) / "rows.csv"):
            yield Row(*named, row.thresholds, row.image, row.group, row.class_, row.metric, row.value)

    def masks(self, cell: Cell, number: int, width: int) -> BoolArray | None:
        """Return the masks, bool (K, H, W), that the cell made of a test image; None where the method makes none.

        Args:
            cell: A cell that is done.
            number: The image's place in the test split.
            width: Its width W.
        """
        with np.load(self.cell(cell) / "masks.npz", allow_pickle=False) as saved:
            if str(number) not in saved.files:
                return None
            return np.unpackbits(saved[str(number)], axis=-1, count=width).astype(np.bool_)

    def thresholds(self, cell: Cell) -> dict[str, list[dict[str, Any]]]:
        """Return by origin what a cell that is done has decided by: records of name, value, origin, rule."""
        found: dict[str, list[dict[str, Any]]] = _read(self.cell(cell) / "thresholds.json")["used"]
        return found

    def write_tuning_cost(self, cell: Cell, cost: Cost) -> None:
        """Keep what the labels cost that the cell's thresholds were tuned on, at the cell's prices."""
        write_json(self._tuning_cost(cell), vars(cost))

    def tuning_cost(self, cell: Cell) -> Cost | None:
        """Return what `write_tuning_cost` kept; None where it was never reckoned at the cell's prices."""
        return _cost(self._tuning_cost(cell))

    def seconds(self, cell: Cell) -> float:
        """Return how long a cell that is done took, training not counted."""
        return float(_read(self.cell(cell) / "seconds.json"))

    def _tuning_cost(self, cell: Cell) -> Path:
        return self.cell(cell) / f"tuning_cost-{cell.tuning_prices}.json"

    def _beside_model(self, cell: Cell, what: str) -> Path:
        return self.path / "models" / f"{cell.training_key}.{what}.json"


def _threshold(threshold: Threshold) -> dict[str, Any]:
    told = vars(threshold).copy()
    # JSON has no NaN: where each image has its own threshold, there is no value.
    told["value"] = None if np.isnan(threshold.value) else threshold.value
    return told


def _cost(path: Path) -> Cost | None:
    return Cost(**_read(path)) if path.exists() else None


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
