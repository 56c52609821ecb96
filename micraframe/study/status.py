"""The progress of a study, and how long the rest will take."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from micraframe.controls.control import Control
from micraframe.runtime.locks import is_held
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import StudyRun, jobs, method_class

State = Literal["done", "failed", "running", "interrupted", "started", "waiting"]


@dataclass(frozen=True)
class RunStatus:
    """The status of a run.

    Attributes:
        run: The run.
        state: `done`; `failed`; `running`: a process works on it, or on another run of the same training;
            `interrupted`: the process that worked on it has ended or was killed; `started`: it is trained or has
            checkpoints, but no process works on it; `waiting`.
        trains: Whether it is the first of the runs that share a training, and this is not completed.
        seconds: How long its remainder will take, judged by completed runs; NaN where there are none.
        error: The last line of the traceback that it left.
        step: What it is doing, or was doing when it was interrupted.
    """

    run: StudyRun
    state: State
    trains: bool
    seconds: float
    error: str = ""
    step: str = ""


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
    the mean of all. Controls that only count labels say nothing about the time of trainings, and need none themselves.
    """
    done = {run.key for run in runs if folder.is_done(run)}
    measuring = _means((run, folder.seconds(run)) for run in runs if run.key in done)
    grouped = jobs(runs)
    training = _means(
        (job[0], folder.training_seconds(job[0])) for job in grouped if _learns(job[0]) and folder.is_trained(job[0])
    )
    found: dict[str, RunStatus] = {}
    for job in grouped:
        trained = folder.is_trained(job[0])
        # Whoever executes a job holds its lock; if it was killed, nobody does.
        running = not all(run.key in done for run in job) and is_held(folder.lock(job[0]))
        step = folder.step(job[0])
        for number, run in enumerate(job):
            if run.key in done:
                found[str(run)] = RunStatus(run, "done", False, 0.0)
                continue
            error = folder.error(run).strip()
            doing = str(step).removeprefix(f"{run}: ") if step and step.label.startswith(f"{run}: ") else ""
            state: State = "waiting"
            if running:
                state = "running"
            elif doing:
                state = "interrupted"
            elif error:
                state = "failed"
            elif trained or folder.scratch(run).exists():
                state = "started"
            trains = number == 0 and not trained and run.kind == "method"
            seconds = _expected(run, measuring) + (_expected(run, training) if trains and _learns(run) else 0.0)
            found[str(run)] = RunStatus(run, state, trains, seconds, error.splitlines()[-1] if error else "", doing)
    methods = [run for run in runs if run.kind == "method"]
    trainings = len({run.training_key for run in methods})
    return StudyStatus(tuple(found[str(run)] for run in runs), trainings, len(methods) - trainings)


def _learns(run: StudyRun) -> bool:
    """Return whether the run needs a training that takes time: neither a ceiling nor a control that counts labels."""
    return run.kind == "method" and not issubclass(method_class(run.compared.method), Control)


def _means(known: Iterable[tuple[StudyRun, float]]) -> Mapping[tuple[str, ...], float]:
    """Return the mean seconds of all runs that are alike, for each way of being `_alike`."""
    seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for run, each in known:
        for key in _alike(run):
            seconds[key].append(each)
    return {key: sum(some) / len(some) for key, some in seconds.items()}


def _expected(run: StudyRun, means: Mapping[tuple[str, ...], float]) -> float:
    """Return the mean seconds of the runs that are most like this one."""
    return next((means[key] for key in _alike(run) if key in means), math.nan)


def _alike(run: StudyRun) -> tuple[tuple[str, ...], ...]:
    """Return what runs have in common, the closest first: method and dataset, or the method, or nothing."""
    names = run.compared.method.name, run.info.name
    return names, names[:1], ()
