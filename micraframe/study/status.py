"""The progress of a study, and how long the rest will take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from micraframe.runtime.locks import is_held
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import StudyRun, jobs

State = Literal["done", "failed", "running", "started", "waiting"]


@dataclass(frozen=True)
class RunStatus:
    """The status of a run.

    Attributes:
        run: The run.
        state: `done`; `failed`; `running`: a process works on it, or on another run of the same training; `started`: it
            is trained or has checkpoints, but no process works on it; `waiting`.
        trains: Whether it is the first of the runs that share a training, and this is not completed.
        seconds: How long its remainder will take, judged by completed runs; NaN where there are none.
        error: The last line of the traceback that it left.
    """

    run: StudyRun
    state: State
    trains: bool
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class StudyStatus:
    """The status of a study.

    Attributes:
        runs: Every run, in the order of the plan.
        trainings: Number of different trainings.
        shared: Number of runs that use the training of another run.
    """

    runs: tuple[RunStatus, ...]
    trainings: int
    shared: int

    @property
    def counts(self) -> dict[State, int]:
        """The number of runs in each state."""
        found = Counter(each.state for each in self.runs)
        return {state: found[state] for state in get_args(State)}

    @property
    def seconds(self) -> float:
        """How long the rest will take on one machine; NaN while no run is completed to judge by."""
        return sum(each.seconds for each in self.runs)


def status(runs: Sequence[StudyRun], folder: StudyFolder) -> StudyStatus:
    """Return the status of a study.

    The time of a run is judged by completed runs of the same dataset and method, or else the same method, or else by
    the mean of all.
    """
    measuring = [(run, folder.seconds(run)) for run in runs if folder.is_done(run)]
    grouped = jobs(runs)
    training = [(job[0], folder.training_seconds(job[0])) for job in grouped if folder.is_trained(job[0])]
    found: dict[str, RunStatus] = {}
    for job in grouped:
        trained = folder.is_trained(job[0])
        # Whoever executes a job holds its lock; if it was killed, nobody does.
        running = not all(map(folder.is_done, job)) and is_held(folder.lock(job[0]))
        for number, run in enumerate(job):
            if folder.is_done(run):
                found[str(run)] = RunStatus(run, "done", False, 0.0)
                continue
            error = folder.error(run).strip()
            started = trained or folder.scratch(run).exists()
            state: State = "running" if running else "failed" if error else "started" if started else "waiting"
            trains = number == 0 and not trained and run.kind == "method"
            seconds = _expected(run, measuring) + (_expected(run, training) if trains else 0.0)
            found[str(run)] = RunStatus(run, state, trains, seconds, error.splitlines()[-1] if error else "")
    methods = [run for run in runs if run.kind == "method"]
    trainings = len({run.training_key for run in methods})
    return StudyStatus(tuple(found[str(run)] for run in runs), trainings, len(methods) - trainings)


def _expected(run: StudyRun, known: Sequence[tuple[StudyRun, float]]) -> float:
    """Return the mean seconds of the runs that are most like this one."""
    method = run.compared.method.name
    alike = [
        [
            seconds
            for other, seconds in known
            if (other.compared.method.name, other.info.name) == (method, run.info.name)
        ],
        [seconds for other, seconds in known if other.compared.method.name == method],
        [seconds for _, seconds in known],
    ]
    best = next((seconds for seconds in alike if seconds), [])
    return sum(best) / len(best) if best else math.nan
