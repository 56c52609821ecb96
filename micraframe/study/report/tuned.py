"""Fixed thresholds beside tuned ones: what tuning gains, what it costs, and the thresholds themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from micraframe.study.folder import StudyFolder
from micraframe.study.report.results import DatasetResults, MethodResult
from micraframe.types import Origin

ORIGINS: tuple[Origin, ...] = get_args(Origin)
"""Where thresholds come from; the last uses test labels: an upper bound, never a result."""


@dataclass(frozen=True)
class MethodThresholds:
    """One method's thresholds.

    Attributes:
        result: The method.
        tuned: Whether thresholds were tuned.
        extra_hours: Annotation time of the tuning images beyond the training annotation; 0 where nothing was tuned.
        texts: By origin, the thresholds, means over seeds.
    """

    result: MethodResult
    tuned: bool
    extra_hours: float
    texts: Mapping[Origin, str]


def method_thresholds(found: DatasetResults, folder: StudyFolder) -> tuple[MethodThresholds, ...]:
    """Return the thresholds of all methods on a dataset."""
    rows = []
    for result in found.results:
        per_seed = [folder.thresholds(run) for run in result.runs]
        texts = {
            origin: thresholds_text([seed[origin] for seed in per_seed if origin in seed])
            for origin in ORIGINS
            if any(origin in seed for seed in per_seed)
        }
        extra = result.tuned_hours.value - result.hours.value if result.tuned_hours else 0.0
        rows.append(MethodThresholds(result, result.tuned_hours is not None, extra, texts))
    return tuple(rows)


def thresholds_text(per_seed: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Return thresholds in words: means over seeds, or the rule's name where each image has its own threshold.

    Args:
        per_seed: For each seed, records with name, value (None where each image has its own) and rule. Presence
            thresholds of several classes are shown as their range; one threshold for all classes counts once for each
            class if other seeds have one per class.
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
    """Return the value of one kind of threshold, given the records of each class, or of all classes together."""
    means = [
        float(np.mean([record["value"] for record in mine if record["value"] is not None]))
        for mine in records
        if any(record["value"] is not None for record in mine)
    ]
    every = [record for mine in records for record in mine]
    rules = dict.fromkeys(record["rule"] or "one per image" for record in every if record["value"] is None)
    if not means:
        return " or ".join(rules)
    low, high = (f"{value:.2f}" for value in (min(means), max(means)))
    text = low if low == high else f"{low} to {high} ({len(records)} classes)"
    count = sum(record["value"] is not None for record in every)
    return text if not rules else f"{text} ({count} of {len(every)} seeds), otherwise {' or '.join(rules)}"
