"""What the splits of a dataset contain: each sample's labels, and how many samples have each class."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from micraframe.metrics.masks_and_labels import labels_of
from micraframe.runtime.files import atomic
from micraframe.types import Sample


@dataclass(frozen=True)
class SampleLabels:
    """The labels of a sample, without its image.

    Attributes:
        id: The sample's.
        group: The sample's.
        labels: Whether each of the K classes is in the image; None if the annotation does not say.
    """

    id: str
    group: str
    labels: tuple[bool, ...] | None


def sample_labels(samples: Iterable[Sample]) -> tuple[SampleLabels, ...]:
    """Return the labels of samples: their own, or else what masks, boxes or points say."""

    def known(sample: Sample) -> tuple[bool, ...] | None:
        labels = labels_of(sample)
        if labels is not None:
            return tuple(labels.tolist())
        parts = sample.points if sample.boxes is None else sample.boxes
        return None if parts is None else tuple(len(part) > 0 for part in parts)

    return tuple(SampleLabels(sample.id, sample.group or "", known(sample)) for sample in samples)


def class_balance(splits: Mapping[str, Sequence[SampleLabels]], classes: Sequence[str]) -> list[dict[str, str]]:
    """Return a record of each class: in how many samples of each split it is, of those whose labels are known."""
    found = [{"class": name} for name in classes]
    for split, samples in splits.items():
        known = [sample.labels for sample in samples if sample.labels is not None]
        for index, record in enumerate(found if samples else ()):
            record[split] = f"{sum(labels[index] for labels in known)} of {len(known)}"
    return found


def write_splits(path: Path, splits: Mapping[str, Sequence[SampleLabels]], classes: Sequence[str]) -> None:
    """Write a CSV of image, split, group, and 1 or 0 for each class; cells of unknown labels are empty."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "split", "group", *classes])
        for split, samples in splits.items():
            for sample in samples:
                labels = [""] * len(classes) if sample.labels is None else [int(label) for label in sample.labels]
                writer.writerow([sample.id, split, sample.group, *labels])


def trained_on(path: Path) -> frozenset[str]:
    """Return the names of the training and validation samples in a CSV that `write_splits` wrote; none without one."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        return frozenset()
    return frozenset(row["image"] for row in rows if row.get("split") in ("train", "valid") and "image" in row)
