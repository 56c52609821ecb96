"""Where, when and with what the runs of a study were computed, assembled from what each run recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class MachineUse:
    """One machine and setting that runs of a study were computed with; a report lists all of them.

    Attributes:
        description: Processor, instructions, threads, GPU, device, precision, system and torch, in one line.
        runs: Number of runs that were trained or measured with it.
        first: Day of the first of them.
        last: Day of the last of them.
    """

    description: str
    runs: int
    first: str
    last: str


def machines(computed: Mapping[str, Sequence[ComputedOn]]) -> tuple[MachineUse, ...]:
    """Return the machines and settings that runs were computed with, the most used first.

    Args:
        computed: By run, where it was trained and where it was measured.
    """
    runs: dict[str, set[str]] = {}
    dates: dict[str, list[str]] = {}
    for name, records in computed.items():
        for record in records:
            described = _described(record)
            runs.setdefault(described, set()).add(name)
            dates.setdefault(described, []).append(record.date)
    found = [MachineUse(each, len(runs[each]), min(dates[each]), max(dates[each])) for each in runs]
    return tuple(sorted(found, key=lambda use: (-use.runs, use.description)))


def differences(records: Iterable[ComputedOn]) -> tuple[str, ...]:
    """Return what is not the same in all computations, such as `torch: 2.14.1 (40 times), 2.15.0 (17 times)`."""
    counted: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in {**record.machine, **record.versions, **record.numerics}.items():
            counted.setdefault(name, Counter())[value or "none"] += 1
    return tuple(
        f"{name}: " + ", ".join(f"{value} ({count} times)" for value, count in values.most_common())
        for name, values in sorted(counted.items())
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
        "machines": [asdict(use) for use in machines(computed)],
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
    counted: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in record.items():
            counted.setdefault(name, Counter())[value] += 1
    return {name: " or ".join(value for value, _ in values.most_common()) for name, values in counted.items()}
