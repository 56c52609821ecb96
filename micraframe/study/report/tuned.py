"""Fixed thresholds beside tuned ones: what tuning gives, what it costs, and what the thresholds are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from micraframe.study.folder import StudyFolder
from micraframe.study.report.results import DatasetResults, Result

ORIGINS = ("fixed", "validation", "oracle")
"""Where thresholds come from; the last has seen the test labels and is no result."""


@dataclass(frozen=True)
class Tuning:
    """One contender's thresholds.

    Attributes:
        result: The contender.
        tuned: Whether it has thresholds that were tuned.
        extra_hours: What labels to tune on cost, besides those that it learned from; 0 where nothing is tuned.
        texts: By origin, what the thresholds are, means over seeds.
    """

    result: Result
    tuned: bool
    extra_hours: float
    texts: Mapping[str, str]


def tunings(found: DatasetResults, folder: StudyFolder) -> tuple[Tuning, ...]:
    """Return the thresholds of all contenders of a dataset."""
    told = []
    for result in found.results:
        per_seed = [folder.thresholds(cell) for cell in result.cells]
        texts = {
            origin: thresholds_text([seed[origin] for seed in per_seed if origin in seed])
            for origin in ORIGINS
            if any(origin in seed for seed in per_seed)
        }
        extra = result.tuned_hours.value - result.hours.value if result.tuned_hours else 0.0
        told.append(Tuning(result, result.tuned_hours is not None, extra, texts))
    return tuple(told)


def thresholds_text(per_seed: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Return what thresholds are: means over seeds, a rule's name where each image has its own.

    Args:
        per_seed: For each seed the records of name, value (None where each image has its own) and rule. Those of the
            presence of several classes are told as their range; one for all classes counts for each of them where
            other seeds have one for each.
    """
    named: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for records in per_seed:
        for record in records:
            kind = re.sub(r" of class \d+$", "", record["name"])
            named.setdefault(kind, {}).setdefault(record["name"], []).append(record)
    for kind, by_name in named.items():
        if len(by_name) > 1:
            for record in by_name.pop(kind, []):
                for mine in by_name.values():
                    mine.append(record)
    return "; ".join(f"{kind} {_values(list(by_name.values()))}" for kind, by_name in named.items())


def _values(records: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Return the value of one kind of threshold, of which there is one for each class, or for all."""
    means = [
        float(np.mean([record["value"] for record in mine if record["value"] is not None]))
        for mine in records
        if any(record["value"] is not None for record in mine)
    ]
    every = [record for mine in records for record in mine]
    rules = dict.fromkeys(record["rule"] or "its own in each image" for record in every if record["value"] is None)
    if not means:
        return " or ".join(rules)
    low, high = (f"{value:.2f}" for value in (min(means), max(means)))
    text = low if low == high else f"{low} to {high} ({len(records)} classes)"
    count = sum(record["value"] is not None for record in every)
    return text if not rules else f"{text} ({count} of {len(every)} times), else {' or '.join(rules)}"
