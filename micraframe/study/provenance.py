"""Where, when and with what the runs of a study were computed, assembled from what each run recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from micraframe.modelfile import versions
from micraframe.runtime.numerics import machine, numerics

if TYPE_CHECKING:
    from micraframe.study.folder import StudyFolder
    from micraframe.study.plan import StudyRun


@dataclass(frozen=True)
class ComputedOn:
    """The circumstances of one computation. It is recorded by the process that computes, and never written again.

    Attributes:
        date: The day, ISO 8601, UTC.
        machine: System, architecture, processor, cores, GPU, Python.
        numerics: What changes bytes: device and precision as they were resolved, the processor's instructions, threads
            and the versions of the libraries that compute.
        versions: Of micraframe, its plugins and libraries.
    """

    date: str
    machine: Mapping[str, str]
    numerics: Mapping[str, str]
    versions: Mapping[str, str]

    @classmethod
    def here(cls, device: str, precision: str) -> ComputedOn:
        """Return the circumstances of a computation by this process, now."""
        return cls(datetime.now(UTC).date().isoformat(), machine(), numerics(device, precision), versions())


def machines(computed: Mapping[str, Sequence[ComputedOn]]) -> list[dict[str, Any]]:
    """Return the machines and settings that runs were computed with, the most used first.

    Each has a `description`; the number of `runs` that were trained or measured with it; and the day of the `first` and
    of the `last` of them.

    Args:
        computed: By run, where it was trained and where it was measured.
    """
    uses: dict[str, list[tuple[str, str]]] = {}
    for name, records in computed.items():
        for record in records:
            uses.setdefault(_described(record), []).append((record.date, name))
    found = [
        {"description": each, "runs": len({name for _, name in use}), "first": min(use)[0], "last": max(use)[0]}
        for each, use in uses.items()
    ]
    return sorted(found, key=lambda use: (-use["runs"], use["description"]))


def differences(records: Iterable[ComputedOn]) -> tuple[str, ...]:
    """Return what is not the same in all computations, such as `torch: 2.14.1 (40 times), 2.15.0 (17 times)`."""
    everything = _counted({**record.machine, **record.versions, **record.numerics} for record in records)
    return tuple(
        f"{name}: " + ", ".join(f"{value or 'none'} ({count} times)" for value, count in values.most_common())
        for name, values in sorted(everything.items())
        if len(values) > 1
    )


def assemble(runs: Sequence[StudyRun], folder: StudyFolder, failures: Iterable[str]) -> dict[str, Any]:
    """Return the content of `provenance.json`: what the completed runs recorded when they were computed.

    Nothing of it describes the process that assembles it.
    """
    computed = {str(run): folder.computed(run) for run in runs if folder.is_done(run)}
    records = [record for each in computed.values() for record in each]
    return {
        "date": max((record.date for record in records), default=""),
        "machine": _joined(record.machine for record in records),
        "machines": machines(computed),
        "numerics": _joined(record.numerics for record in records),
        "versions": _joined(record.versions for record in records),
        "differences": list(differences(records)),
        "datasets": {
            run.info.name: {
                "data": run.info.fingerprint,
                "licence": run.info.licence,
                "citation": run.info.citation,
            }
            for run in runs
        },
        "seeds": sorted({run.seed for run in runs}),
        "runs": {str(run): run.key for run in runs},
        "failures": sorted(failures),
    }


def _described(record: ComputedOn) -> str:
    known = {**record.machine, **record.numerics}
    parts = [
        known.get("processor", ""),
        f"{known['instructions']} instructions" if known.get("instructions") else "",
        f"{known['threads']} thread{'' if known['threads'] == '1' else 's'}" if known.get("threads") else "",
        f"computed on {known['device']} in {known['precision']}" if known.get("device") else "",
        known.get("system", ""),
        f"Python {known['python']}" if known.get("python") else "",
        f"torch {known['torch']}" if known.get("torch") else "",
    ]
    return ", ".join(part for part in parts if part)


def _joined(records: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return one record; a value that is not the same in all of them lists all, the most frequent first."""
    return {name: " or ".join(value for value, _ in each.most_common()) for name, each in _counted(records).items()}


def _counted(records: Iterable[Mapping[str, str]]) -> dict[str, Counter[str]]:
    """Return how often each name has each value."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in record.items():
            counts.setdefault(name, Counter())[value] += 1
    return counts
