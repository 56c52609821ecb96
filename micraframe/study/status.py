"""How far a study has come, and how long the rest will take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from micraframe.study.folder import StudyFolder
from micraframe.study.plan import Cell, jobs

State = Literal["done", "failed", "begun", "waiting"]


@dataclass(frozen=True)
class CellStatus:
    """What is known of a cell.

    Attributes:
        cell: The cell.
        state: `done`; `failed`; `begun`, which is trained or has checkpoints; `waiting`.
        trains: Whether it is the first of the cells that share a training, and this is not done yet.
        seconds: How long what is missing of it will take, judged by cells that are done; NaN where there are none.
        error: The last line of the traceback that it left.
    """

    cell: Cell
    state: State
    trains: bool
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class StudyStatus:
    """What is known of a study.

    Attributes:
        cells: Every cell, in the order of the plan.
        trainings: Number of different trainings.
        saved: Number of trainings that cells do without, because another cell's serves them.
    """

    cells: tuple[CellStatus, ...]
    trainings: int
    saved: int

    @property
    def counts(self) -> dict[State, int]:
        """How many cells are in each state."""
        found = Counter(each.state for each in self.cells)
        states: tuple[State, ...] = ("done", "failed", "begun", "waiting")
        return {state: found[state] for state in states}

    @property
    def seconds(self) -> float:
        """How long the rest will take on one machine; NaN while nothing is done by which to judge."""
        return sum(each.seconds for each in self.cells)


def status(cells: Sequence[Cell], folder: StudyFolder) -> StudyStatus:
    """Return how far the cells have come.

    The time that a cell takes is judged by done cells of the same dataset and method, or else the same method, or else
    by the mean of all.
    """
    known = _Times(cells, folder)
    found = []
    for job in jobs(cells):
        for number, cell in enumerate(job):
            trains = number == 0 and not folder.is_trained(cell)
            error = folder.error(cell).strip()
            if folder.is_done(cell):
                found.append(CellStatus(cell, "done", False, 0.0))
                continue
            begun = folder.is_trained(cell) or folder.training(cell).exists()
            state: State = "failed" if error else "begun" if begun else "waiting"
            seconds = known.measuring(cell) + (known.training(cell) if trains else 0.0)
            found.append(CellStatus(cell, state, trains, seconds, error.splitlines()[-1] if error else ""))
    place = {cell: number for number, cell in enumerate(str(cell) for cell in cells)}
    found.sort(key=lambda each: place[str(each.cell)])
    count = len(jobs(cells))
    return StudyStatus(tuple(found), count, len(cells) - count)


class _Times:
    """What cells have taken."""

    def __init__(self, cells: Sequence[Cell], folder: StudyFolder) -> None:
        done = [cell for cell in cells if folder.is_done(cell)]
        trained = [job[0] for job in jobs(cells) if folder.is_trained(job[0])]
        self._measuring = [(cell, folder.seconds(cell)) for cell in done]
        self._training = [(cell, folder.training_seconds(cell)) for cell in trained]

    def measuring(self, cell: Cell) -> float:
        """Return what a cell takes besides training."""
        return _judge(cell, self._measuring)

    def training(self, cell: Cell) -> float:
        """Return what a training takes."""
        return _judge(cell, self._training)


def _judge(cell: Cell, known: Sequence[tuple[Cell, float]]) -> float:
    def method(other: Cell) -> str:
        return other.contender.method.name

    alike = [
        [seconds for other, seconds in known if method(other) == method(cell) and other.info.name == cell.info.name],
        [seconds for other, seconds in known if method(other) == method(cell)],
        [seconds for _, seconds in known],
    ]
    best = next((seconds for seconds in alike if seconds), [])
    return sum(best) / len(best) if best else math.nan
