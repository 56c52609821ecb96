"""F-actin nanostructures in STED images of neurons: HDF5 files with rings, fibers and dendrites."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.crops import POSITIVE, Cropping, LabelRule, Window, crop_sample, judge_windows
from micraframe.datasets.paths import file_digest
from micraframe.datasets.sources import LazySamples
from micraframe.errors import DataError
from micraframe.interfaces import Dataset
from micraframe.objects import components
from micraframe.parameters import Parameters
from micraframe.runtime.files import digest, digest_json
from micraframe.types import SPLITS, BoolArray, DatasetInfo, FloatArray, IntArray, Normalisation, Sample, Split
from micraframe_paper.download import RemoteFile, Terms, fetch, root_of
from micraframe_paper.hdf5 import opened

TERMS: Final = Terms(
    "f-actin",
    licence="none is stated for the data; that of MICRA-Net, non-commercial",
    citation="Bilodeau, A. et al. Microscopy analysis neural network to solve detection, enumeration and segmentation "
    "from image-level annotations. Nature Machine Intelligence 4, 455-466 (2022).",
    page="https://s3.valeria.science/flclab-micranet/index.html",
)

_ARCHIVE: Final = "https://s3.valeria.science/flclab-micranet/MICRA-Net.tar.gz"


def _remote(name: str) -> RemoteFile:
    dated = f"{name}_01-04-19.hdf5"
    return RemoteFile(f"datasets/{dated}", _ARCHIVE, archive=True, other_names=(dated, f"{name}.hdf5"))


FILES: Final[dict[Split, RemoteFile]] = {
    "train": _remote("training"),
    "valid": _remote("validation"),
    "test": _remote("testing"),
}
"""The file of each split; the publisher gives no checksum of the archive, which also holds the official models."""

CLASSES: Final = ("rings", "fibers")
DENDRITE: Final = len(CLASSES)
"""The plane of the labels that follows those of the classes: where the dendrite is."""

PIXEL_SIZE_UM: Final = 0.02

HEADROOM: Final = 0.8
"""Share of the range of intensities that the paper maps to [0, 1]."""

_opened = functools.partial(
    opened,
    failure=DataError,
    expected="an HDF5 file of groups with data, label and label's attribute 'shapes'",
    remedy=f"download it again from {TERMS.page}",
)


@dataclass(frozen=True)
class StackImage:
    """One image of a file.

    Attributes:
        file: The HDF5 file.
        group: The group that holds the stacks `data` (N, H, W) and `label` (N, 3, H, W).
        index: Its position in them.
        size: Its true (H, W); the stacks are padded to the largest image.
    """

    file: Path
    group: str
    index: int
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """Its name, unique within the file."""
        return f"{self.group}-{self.index:03d}"

    def read_image(self) -> FloatArray:
        """Return the image, float32 (1, H, W), in the units of the file."""
        return self._read("data").astype(np.float32)[None]

    def read_labels(self) -> BoolArray:
        """Return where rings, fibers and dendrite are, bool (3, H, W)."""
        return np.asarray(self._read("label") > 0)

    def _read(self, name: str) -> npt.NDArray[Any]:
        height, width = self.size
        with _opened(self.file) as file:
            return np.asarray(file[self.group][name][self.index, ..., :height, :width])


def stack_images(path: Path) -> list[StackImage]:
    """Return the images of a file, group by group.

    Raises:
        DataError: If it cannot be read, or its groups do not hold stacks of one length with the images' true sizes.
    """
    images = []
    with _opened(path) as file:
        for name, group in sorted(file.items()):
            data, label = group["data"].shape, group["label"].shape
            sizes = np.asarray(group["label"].attrs["shapes"])
            if (len(data), len(label)) != (3, 4) or label != (data[0], DENDRITE + 1, *data[1:]):
                raise DataError(
                    f"{path}: group {name!r}: expected data (N, H, W) and label (N, {DENDRITE + 1}, H, W), got {data} "
                    f"and {label}"
                )
            if sizes.shape != (data[0], 2) or (sizes < 1).any() or (sizes > data[1:]).any():
                raise DataError(
                    f"{path}: group {name!r}: expected a height and width of each of {data[0]} images, at most "
                    f"{data[1:]}, in the attribute 'shapes' of label, got an array of shape {sizes.shape}"
                )
            images += [StackImage(path, name, index, (int(h), int(w))) for index, (h, w) in enumerate(sizes)]
    return images


def intensity_scaling(minima: Sequence[float], maxima: Sequence[float], factor: float) -> Normalisation:
    """Return the paper's scaling: (x - min) / (factor (max - min)) (Bilodeau et al. 2022, Methods, equation 3).

    Args:
        minima: The smallest value of each training image; min is their median.
        maxima: The largest value of each; max is their median plus three times their standard deviation.
        factor: The share of the range that is mapped to [0, 1]; `HEADROOM` in the paper.

    Raises:
        DataError: If there are no images, or all are constant and equal.
    """
    if not len(minima):
        raise DataError("f-actin: expected training images to measure intensities of, got none")
    low = float(np.median(minima))
    high = float(np.median(maxima) + 3 * np.std(maxima))
    if not high > low:
        raise DataError(f"f-actin: expected training images with contrast, got intensities from {low} to {high}")
    return Normalisation("fixed", offset=(low,), scale=(factor * (high - low),))


def windows_in_dendrite(dendrite: BoolArray, windows: Sequence[Window], share: float) -> list[Window]:
    """Return the windows of which at least `share` of the pixels are dendrite, bool (H, W)."""
    return [window for window in windows if dendrite[window.place].mean() >= share]


@dataclass(frozen=True)
class FActinCrop:
    """The ingredients of one sample: a window of an image, and which classes it shows."""

    image: StackImage
    window: Window
    labels: tuple[bool, ...]


@final
class FActin(Dataset["FActin.Params"]):
    """STED images of F-actin in neurons, cut into crops along dendrites; classes: periodic rings, and fibers.

    Bilodeau et al. 2022, Methods, "F-actin dataset": crops of 256 px every 192 px that are at least 10 % dendrite; a
    class is present if more than 5 % of the crop is annotated. The splits are those of the three files.
    """

    class Params(Parameters):
        root: str = Field(
            "",
            description="Folder of training_01-04-19.hdf5, validation_01-04-19.hdf5 and testing_01-04-19.hdf5; empty: "
            "the paper's data is downloaded.",
        )
        crop: int | None = Field(256, ge=8, description="Height and width of crops in pixels; null keeps images whole.")
        stride: int = Field(192, ge=1, description="Distance from one crop to the next in pixels.")
        share: float = Field(0.05, ge=0, le=1, description="Smallest annotated share of a crop that has the class.")
        dendrite_share: float = Field(
            0.1, ge=0, le=1, description="Smallest share of dendrite in a crop; crops with less are left out."
        )
        dendrite_only: bool = Field(
            True,
            description="Leave pixels outside the dendrite out of training with masks, and out of evaluation.",
        )
        headroom: float = Field(
            HEADROOM, gt=0, description="Share of the measured range of intensities that is mapped to [0, 1]."
        )

        @model_validator(mode="after")
        def _consistent(self) -> FActin.Params:
            if self.crop and self.stride > self.crop:
                raise ValueError(f"stride {self.stride} would skip pixels between crops of {self.crop} px")
            return self

    def info(self) -> DatasetInfo:
        """Return the dataset's metadata.

        Raises:
            DataError: If a file is missing or broken, or cannot be downloaded.
        """
        params = self.params
        settings = digest_json(params.model_dump(mode="json", exclude={"root"}))
        return DatasetInfo(
            name=TERMS.dataset,
            classes=CLASSES,
            channels=1,
            normalisation=self._normalisation,
            fingerprint=digest(settings, *(file_digest(self._paths[split]) for split in SPLITS)),
            pixel_size_um=PIXEL_SIZE_UM,
            licence=TERMS.licence,
            citation=TERMS.citation,
            image_size=(params.crop, params.crop) if params.crop else None,
        )

    def samples(self, split: Split) -> LazySamples[FActinCrop]:
        """Return the samples of a split, image by image.

        Raises:
            DataError: As `info`.
        """
        if split not in self._crops:  # all annotation of the split is read for this
            self._crops[split] = [crop for image in stack_images(self._paths[split]) for crop in self._crops_of(image)]
        read = functools.lru_cache(4)(functools.partial(self._whole, split))

        def make(crop: FActinCrop) -> Sample:
            whole, numbered = read(crop.image)
            sample = crop_sample(whole, crop.window, numbered) if self.params.crop else whole
            return dataclasses.replace(sample, labels=np.array(crop.labels, np.bool_))

        return LazySamples(self._crops[split], make)

    @functools.cached_property
    def _crops(self) -> dict[Split, list[FActinCrop]]:
        return {}

    @functools.cached_property
    def _paths(self) -> dict[Split, Path]:
        paths = fetch([FILES[split] for split in SPLITS], root_of(self.params.root), TERMS)
        return dict(zip(SPLITS, paths, strict=True))

    @functools.cached_property
    def _normalisation(self) -> Normalisation:
        images = (image.read_image() for image in stack_images(self._paths["train"]))
        minima, maxima = np.array([(image.min(), image.max()) for image in images]).reshape(-1, 2).T.tolist()
        return intensity_scaling(minima, maxima, self.params.headroom)

    def _crops_of(self, image: StackImage) -> Iterator[FActinCrop]:
        """Yield the crops of an image with enough dendrite, and which classes each shows."""
        params, labels = self.params, image.read_labels()
        windows = Cropping(params.crop, params.stride).windows(image.size)
        kept = windows_in_dendrite(labels[DENDRITE], windows, params.dendrite_share)
        rule = LabelRule("share", params.share)
        answers = judge_windows(ImageAnnotation(masks=labels[:DENDRITE]), image.size, kept, rule) if kept else ()
        for window, answer in zip(kept, answers, strict=True):
            yield FActinCrop(image, window, tuple((answer == POSITIVE).tolist()))

    def _whole(self, split: Split, image: StackImage) -> tuple[Sample, IntArray]:
        labels, name = image.read_labels(), f"{split}-{image.name}"
        masks = labels[:DENDRITE]
        whole = Sample(
            id=name,
            image=self._normalisation.apply(image.read_image()),
            masks=masks,
            ignore=~labels[DENDRITE] if self.params.dendrite_only else None,
            pixel_size_um=PIXEL_SIZE_UM,
            group=name,
            source=f"{image.file}: {image.name}",
            normalisation=self._normalisation,
        )
        return whole, components(masks)
