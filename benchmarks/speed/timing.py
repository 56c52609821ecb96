"""Routes take turns, so that a busy machine slows all of them; what counts is the ratio of their times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

Unit = Literal["ratio", "seconds", "MiB", "IOU", "accuracy", "share", "correlation"]
Route = Callable[[], object]
Times = npt.NDArray[np.float64]


class Unavailable(Exception):
    """Raised when a group's requirements are missing, so that it is skipped; says what, and how to get it."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        repeats: Turns of each route.
        quick: So small that it shows no more than that everything runs.
        device: A torch device.
    """

    repeats: int = 5
    quick: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Record:
    """A measured number.

    Attributes:
        name: What was measured.
        compared: What is set against what.
        median: Over the repeats, or over images and classes.
        minimum: The lowest.
        maximum: The highest.
        unit: Of the three numbers.
        target: What the median (of IOUs: the minimum) should be, as `>= 5` or `<= 1.5`; None where there is no target.
        met: Is it; None where there is no target.
    """

    name: str
    compared: str
    median: float
    minimum: float
    maximum: float
    unit: Unit
    target: str | None = None
    met: bool | None = None


def record(
    name: str, compared: str, values: Iterable[float], unit: Unit = "ratio", target: str | None = None
) -> Record:
    """Summarise values; a target is `>=` or `<=`, a space, and a number."""
    array = np.asarray(list(values), np.float64)
    median = float(np.median(array))
    met = None
    if target is not None:
        side, number = target.split()
        judged = float(array.min()) if unit == "IOU" else median
        met = judged >= float(number) if side == ">=" else judged <= float(number)
    return Record(name, compared, median, float(array.min()), float(array.max()), unit, target, met)


def take_turns(routes: Mapping[str, Route], settings: Settings, warm_up: bool = True) -> dict[str, Times]:
    """Return the seconds of every turn of each route, (repeats,).

    Every second round goes backwards, so that none always comes after the same one.
    """
    if warm_up:
        for route in routes.values():
            route()
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for repeat in range(settings.repeats):
        for name in list(routes)[:: -1 if repeat % 2 else 1]:
            seconds[name].append(time_once(routes[name], settings.device))
    return {name: np.array(times) for name, times in seconds.items()}


def time_once(route: Route, device: str = "cpu") -> float:
    """Return the seconds that a route takes, work that it left to a GPU included."""
    start = time.perf_counter()
    route()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start
