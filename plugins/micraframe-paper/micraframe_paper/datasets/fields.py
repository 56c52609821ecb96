"""Large fields with few marked objects: crops for training, positive and unlabelled, and whole fields for detection."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar, final

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from micraframe.datasets.crops import Window, crop_sample, grid
from micraframe.datasets.sources import LazySamples, SourceImage, fingerprint, read_annotation, read_whole
from micraframe.datasets.splits import check_groups
from micraframe.errors import DataError
from micraframe.interfaces import Dataset
from micraframe.parameters import Parameters
from micraframe.runtime.files import digest
from micraframe.types import DatasetInfo, FloatArray, Normalisation, Sample, Split


class MarkedFieldsParams(Parameters):
    """The parameters of large fields with marked objects."""

    name: str = Field("", description="The dataset's name in tables; empty: the dataset chooses one.")
    root: str = Field(description="The dataset's folder; may begin with ~ or $MICRAFRAME_DATA/.")
    cut: int = Field(
        1024,
        ge=8,
        description="Side in pixels of the crops that are cut out: one centred on each marker, which is positive, and "
        "a grid of crops without overlap, of which those without a marker are unlabelled.",
    )
    crop: int = Field(
        512,
        ge=8,
        description="Side in pixels of the part of such a crop that is used, at a random place with the mark.",
    )
    margin: int = Field(
        0, ge=0, description="Least distance in pixels from an unlabelled crop to a marker: about an object's radius."
    )
    pu_ratio: str | None = Field(
        "1:5",
        pattern=r"^[1-9]\d*:[1-9]\d*$",
        description="Ratio of positive to unlabelled crops in training, 2:1 to 1:16 in the paper; unlabelled ones are "
        "drawn at random, and count as negative. null: all of them.",
    )
    whole_images: tuple[Split, ...] = Field(
        ("test",), description="Splits whose samples are whole fields, not crops: to measure or to tune detection."
    )
    seed: int = Field(0, ge=0, description="Seed of the random choices.")
    licence: str = Field("", description="Licence of the data.")
    citation: str = Field("", description="What to cite for the data.")

    @model_validator(mode="after")
    def _cut_first(self) -> MarkedFieldsParams:
        if self.crop > self.cut:
            raise ValueError(f"expected a crop of at most the {self.cut} px that are cut, got {self.crop}")
        return self


F = TypeVar("F", bound=MarkedFieldsParams)


@dataclass(frozen=True, eq=False)
class FieldCrop:
    """The ingredients of one sample: a field, the window to cut out (None: all), whether an object is marked in it."""

    source: SourceImage
    window: Window | None
    present: bool


class MarkedFields(Dataset[F]):
    """Large fields in which the centres of few objects are marked: one class, positive and unlabelled crops.

    Bilodeau et al. 2022, Methods, "Scanning Electron Microscopy dataset". Validation keeps all crops, so that trainings
    of several ratios are judged by the same ones. Which crops are drawn does not change from epoch to epoch.
    """

    Params: ClassVar[type[MarkedFieldsParams]] = MarkedFieldsParams

    normalisation: ClassVar[Normalisation]

    @abstractmethod
    def class_name(self) -> str:
        """Return the name of the only class."""

    @abstractmethod
    def default_name(self) -> str:
        """Return the dataset's name, which the parameter `name` overrides."""

    @abstractmethod
    def fields(self) -> Sequence[SourceImage]:
        """Return all fields, each with its split, its group and the points that mark objects."""

    def scale(self) -> float:
        """Return the factor by which fields were resized."""
        return 1.0

    @final
    def info(self) -> DatasetInfo:
        """Return the dataset's metadata.

        Raises:
            DataError: If a file is missing or broken; the message names it.
        """
        params, classes = self.params, (self.class_name(),)
        settings = params.model_dump(mode="json", exclude={"name", "root", "licence", "citation"})
        return DatasetInfo(
            name=params.name or self.default_name(),
            classes=classes,
            channels=self._channels,
            normalisation=self.normalisation,
            fingerprint=fingerprint(settings, classes, self._fields),
            licence=params.licence,
            citation=params.citation,
            image_size=(params.crop, params.crop),
            scale=self.scale(),
        )

    @final
    def samples(self, split: Split) -> LazySamples[FieldCrop]:
        """Return the samples of a split, field by field.

        Raises:
            DataError: If a file is missing or broken; the message names it.
        """
        read = functools.lru_cache(1)(self._whole)  # fields are large, and samples usually read field by field

        def make(key: FieldCrop) -> Sample:
            whole = read(key.source)
            sample = crop_sample(whole, key.window) if key.window else whole
            return dataclasses.replace(sample, labels=np.array([key.present]))

        if split not in self._keys:  # all annotation of the split is read for this
            self._keys[split] = self._keys_of(split)
        return LazySamples(self._keys[split], make)

    @functools.cached_property
    def _fields(self) -> Sequence[SourceImage]:
        fields = self.fields()
        check_groups([field.group or field.name for field in fields], [field.split for field in fields if field.split])
        return fields

    @functools.cached_property
    def _keys(self) -> dict[Split, list[FieldCrop]]:
        return {}

    @functools.cached_property
    def _channels(self) -> int:
        return len(self._fields[0].read_image())

    def _whole(self, source: SourceImage) -> Sample:
        whole = read_whole(source, 1, 1.0, self.normalisation, None)
        if len(whole.image) != self._channels:
            raise DataError(
                f"{source.place}: expected {self._channels} channels, as in {self._fields[0].place}, got "
                f"{len(whole.image)}"
            )
        return whole

    def _keys_of(self, split: Split) -> list[FieldCrop]:
        params = self.params
        fields = [field for field in self._fields if field.split == split]
        if split in params.whole_images:
            return [FieldCrop(field, None, len(_marks(field)[0]) > 0) for field in fields]
        keys = [key for field in fields for key in self._crops(field)]
        if split != "train" or params.pu_ratio is None:
            return keys
        kept = draw_unlabelled([key.present for key in keys], params.pu_ratio, params.seed)
        return [key for key, keep in zip(keys, kept, strict=True) if keep]

    def _crops(self, field: SourceImage) -> list[FieldCrop]:
        """Return the used parts of all crops of a field, positive ones first."""
        params, (points, size) = self.params, _marks(field)
        rng = np.random.default_rng([params.seed, int(digest(field.name)[:15], 16)])
        positive = [used_part(centred_window(point, size, params.cut), params.crop, rng, point) for point in points]
        unlabelled = [
            used_part(window, params.crop, rng) for window in unmarked_windows(points, size, params.cut, params.margin)
        ]
        # Where a field is no larger than a crop, several marks share one.
        return [
            FieldCrop(field, window, present)
            for windows, present in ((positive, True), (unlabelled, False))
            for window in dict.fromkeys(windows)
        ]


def centred_window(point: FloatArray, size: tuple[int, int], side: int) -> Window:
    """Return the square window centred on a point (y, x), moved inwards where it reaches beyond an image (H, W)."""
    height, width = (min(side, length) for length in size)
    y, x = (
        min(max(round(float(centre)) - edge // 2, 0), length - edge)
        for centre, edge, length in zip(point, (height, width), size, strict=True)
    )
    return Window(y, x, height, width)


def unmarked_windows(points: FloatArray, size: tuple[int, int], side: int, margin: int) -> list[Window]:
    """Return the windows of a grid without overlap that have no point (y, x) in them or within `margin` pixels.

    What remains at the lower and right edges of an image (H, W), smaller than a window, is left out.
    """
    windows = [window for window in grid(size, side, side) if window.y % side == 0 and window.x % side == 0]
    return [
        window
        for window in windows
        if not np.all(
            (points >= np.array(window[:2]) - 0.5 - margin) & (points < np.add(window[:2], window[2:]) - 0.5 + margin),
            axis=1,
        ).any()
    ]


def used_part(window: Window, side: int, rng: np.random.Generator, point: FloatArray | None = None) -> Window:
    """Return a square part of a window at a random place, which holds the pixel of a point (y, x) of the window."""
    marked = (None, None) if point is None else (round(float(point[0])), round(float(point[1])))
    found = []
    for first, length, mark in zip(window[:2], window[2:], marked, strict=True):
        edge = min(side, length)
        low, high = first, first + length - edge
        if mark is not None:
            low, high = max(low, mark - edge + 1), min(high, mark)
        found.append((int(rng.integers(low, high, endpoint=True)), edge))
    (y, height), (x, width) = found
    return Window(y, x, height, width)


def draw_unlabelled(present: Sequence[bool], ratio: str, seed: int) -> npt.NDArray[np.bool_]:
    """Return which samples to keep: all positive ones, and unlabelled ones at random in a ratio to them.

    Args:
        present: For each sample, whether it is positive.
        ratio: `positive:unlabelled`, such as 1:5; if there are fewer unlabelled ones, all are kept.
        seed: Determines the choice.
    """
    kept = np.array(present, np.bool_)
    unlabelled = np.flatnonzero(~kept)
    positive, others = map(int, ratio.split(":"))
    count = min(len(unlabelled), round(int(kept.sum()) * others / positive))
    kept[np.random.default_rng(seed).choice(unlabelled, count, replace=False)] = True
    return kept


def _marks(field: SourceImage) -> tuple[FloatArray, tuple[int, int]]:
    """Return the marks of a field, float32 (N, 2): (y, x), and its size (H, W)."""
    annotation = read_annotation(field, 1)
    assert annotation.size is not None
    # A tile that has masks and no marker has no points either.
    points = np.zeros((0, 2), np.float32) if annotation.points is None else annotation.points[0]
    return points, annotation.size
