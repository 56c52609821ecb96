"""What the kit checks of a dataset."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final

import numpy as np

from micraframe import registry
from micraframe.errors import counted
from micraframe.interfaces import Dataset
from micraframe.parameters import Parameters
from micraframe.runtime.files import digest
from micraframe.testing.observed import content
from micraframe.testing.report import Check, Trial, basis, raised, require, require_type
from micraframe.types import SPLITS, Annotation, DatasetInfo, Sample, Split

READ: Final = 1000
"""Number of samples of a split that are read; of a larger one, they are spread evenly."""

TWICE: Final = 20
"""Number of samples of a split that are read twice."""


@dataclass(frozen=True)
class ReadSample:
    """What is kept of a `Sample` that was read.

    Attributes:
        image: Digest of its image; empty: all pixels are equal.
        size: (H, W).
        classes: Number of classes of each annotation.
        content: Digest of everything.
        lasting: Whether it stayed as it was when others were read.
        again: The digest of a second reading; None: it was read once.
    """

    split: Split
    id: str
    group: str | None
    image: str
    channels: int
    size: tuple[int, int]
    pixel_size_um: float | None
    classes: dict[str, int]
    content: str
    lasting: bool = True
    again: str | None = None


class DatasetTrial(Trial):
    """Reads all samples of a dataset, or many of a large one."""

    component: Dataset[Parameters]
    kind: ClassVar[str] = "dataset"

    @cached_property
    def info(self) -> DatasetInfo:
        """The dataset's metadata."""
        return self.component.info()

    @cached_property
    def splits(self) -> dict[Split, Sequence[Sample]]:
        """The samples of each split."""
        return {split: self.component.samples(split) for split in SPLITS}

    @cached_property
    def read(self) -> list[ReadSample]:
        """What was read."""
        return [each for split, samples in self.splits.items() for each in _read(split, samples)]

    @basis
    def returns_info(self) -> None:
        """`info` returns a `DatasetInfo`, the same each time and from a second dataset with the same parameters."""
        require_type(self.info, DatasetInfo, "info()", "return DatasetInfo(...)")
        other = registry.build("dataset", self.choice.name, **self.choice.params)
        for info in (self.component.info(), other.info()):
            require(
                info == self.info,
                f"expected the same info() each time, got {info} after {self.info}; derive it from parameters and "
                "files alone",
            )

    @basis
    def returns_samples(self) -> None:
        """`samples` returns a sequence of `Sample`s for each split; reading beyond its end raises `IndexError`."""
        for split, samples in self.splits.items():
            what = f"samples({split!r})"
            require(
                hasattr(samples, "__len__") and hasattr(samples, "__getitem__"),
                f"expected {what} to be a sequence, got a {type(samples).__name__}; return a list, or a lazy sequence",
            )
            try:
                samples[len(samples)]
            except IndexError:
                continue
            except Exception as error:
                message = raised(f"{what}[{len(samples)}] to raise IndexError, not", error)
                raise AssertionError(message) from error
            require(False, f"expected {what}[{len(samples)}] to raise IndexError, got a sample; a loop would never end")
        require(self.read, "expected samples, got none in any split; correct the parameters")

    @Check
    def trains(self) -> None:
        """There are training samples."""
        require(any(each.split == "train" for each in self.read), "expected training samples, got none")

    @Check
    def distinct_ids(self) -> None:
        """No two samples have the same id."""
        twice = [name for name, count in Counter(each.id for each in self.read).items() if count > 1]
        require(not twice, f"expected distinct ids, got {twice[:1]} more than once; make ids from file names")

    @Check
    def same_bytes(self) -> None:
        """Reading a sample twice gives the same bytes."""
        for each in self.read:
            require(
                each.again in (None, each.content),
                f"expected the same bytes of {each.id!r} each time, got others; draw random numbers from a generator "
                "that is seeded by the sample",
            )

    @Check
    def fresh_results(self) -> None:
        """A sample stays as it was when others are read: no buffer is used again."""
        for each in self.read:
            require(
                each.lasting, f"expected {each.id!r} to last, got another content after reading others; return a copy"
            )

    @Check
    def channels_as_in_info(self) -> None:
        """Images have the channels that `info` names."""
        for each in self.read:
            require(
                each.channels == self.info.channels,
                f"expected {counted(self.info.channels, 'channel')} in {each.id!r}, as in info(), got {each.channels}; "
                "correct one of them",
            )

    @Check
    def classes_as_in_info(self) -> None:
        """Annotation has an entry for each class that `info` names."""
        count = len(self.info.classes)
        for each in self.read:
            for annotation, got in each.classes.items():
                require(
                    got == count,
                    f"expected {annotation} of {counted(count, 'class', 'classes')} in {each.id!r}, as in info(), got "
                    f"{got}; add empty entries for absent classes",
                )

    @Check
    def sizes_as_in_info(self) -> None:
        """Images have the size and the pixel size that `info` names, if it names them."""
        for each in self.read:
            for name, expected, got in (
                ("image_size", self.info.image_size, each.size),
                ("pixel_size_um", self.info.pixel_size_um, each.pixel_size_um),
            ):
                require(
                    expected is None or got in (None, expected),
                    f"expected {name} {expected} of {each.id!r}, as in info(), got {got}; set it to None in info() if "
                    "images differ",
                )

    @Check
    def groups_apart(self) -> str:
        """No group - a patient, a slide, a field - is in two splits."""
        self._apart("group", [(each.group, each) for each in self.read], "divide groups, not samples")
        return self._coverage()

    @Check
    def images_apart(self) -> str:
        """No image is in two splits; constant images, which hold nothing, do not count."""
        self._apart("image", [(each.image, each) for each in self.read], "remove the copy, or keep both in one split")
        return self._coverage()

    def _apart(self, what: str, keys: list[tuple[str | None, ReadSample]], remedy: str) -> None:
        first: dict[str, ReadSample] = {}
        for key, each in keys:
            if key:
                other = first.setdefault(key, each)
                require(
                    other.split == each.split,
                    f"expected each {what} in one split, got that of {other.id!r} ({other.split}) and {each.id!r} "
                    f"({each.split}) in two; {remedy}",
                )

    def _coverage(self) -> str:
        total = sum(map(len, self.splits.values()))
        return "" if len(self.read) == total else f"{len(self.read)} of {total} samples were read, spread evenly"


def _read(split: Split, samples: Sequence[Sample]) -> list[ReadSample]:
    """Read the samples of a split; then look at the first ones again, and read them again."""
    numbers = np.unique(np.linspace(0, len(samples) - 1, min(READ, len(samples))).astype(int)).tolist()
    first = [_read_one(split, samples, number) for number in numbers[:TWICE]]
    others = [_read_one(split, samples, number)[1] for number in numbers[TWICE:]]
    lasting = [_digest(sample) == found.content for sample, found in first]
    again = [_read_one(split, samples, number)[1].content for number in numbers[:TWICE]]
    return [
        *(
            dataclasses.replace(found, lasting=lasts, again=content_)
            for (_, found), lasts, content_ in zip(first, lasting, again, strict=True)
        ),
        *others,
    ]


def _read_one(split: Split, samples: Sequence[Sample], number: int) -> tuple[Sample, ReadSample]:
    what = f"samples({split!r})[{number}]"
    try:
        sample = samples[number]
    except Exception as error:  # a dataset may raise anything
        raise AssertionError(raised(what, error)) from error
    require_type(sample, Sample, what, "return Sample(id, image, ...)")
    annotation = {kind.value: getattr(sample, kind.value) for kind in Annotation}
    found = ReadSample(
        split,
        sample.id,
        sample.group,
        _digest((sample.image,)) if np.ptp(sample.image) else "",
        len(sample.image),
        (sample.image.shape[1], sample.image.shape[2]),
        sample.pixel_size_um,
        {name: len(value) for name, value in annotation.items() if value is not None},
        _digest(sample),
    )
    return sample, found


def _digest(value: object) -> str:
    return digest(repr(content(value)))
