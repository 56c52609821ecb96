"""Real images in folders of known layout: their files, settings of the committed studies, licence and citation."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, final

from pydantic import Field

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.folder import Folder
from micraframe.datasets.image_dataset import ImageDataset, ImageDatasetParams
from micraframe.datasets.normalisation import NormalisationParams
from micraframe.datasets.sources import SourceImage
from micraframe.errors import DataError
from micraframe.images import read_size
from micraframe_paper.datasets.defaults import default

BLOOD_CELLS: Final = ("RBC", "WBC", "Platelets")
"""The classes that have boxes in BCCD: red and white blood cells, and platelets."""


class KnownFolderParams(ImageDatasetParams):
    """The parameters of folders whose layout is known; the defaults are those of the committed studies."""

    root: str = Field(description="The dataset's folder; may begin with ~ or $MICRAFRAME_DATA/.")
    crop: int | None = default(ImageDatasetParams, "crop", 64)
    share: float = default(ImageDatasetParams, "share", 0.02)
    normalisation: NormalisationParams = default(
        ImageDatasetParams, "normalisation", NormalisationParams(kind="percentile", low=0.5, high=99.5)
    )


K = TypeVar("K", bound=KnownFolderParams)


class KnownFolder(ImageDataset[K]):
    """A folder whose layout is known, read by core's `folder`."""

    path_params = ("root",)

    @abstractmethod
    def files(self) -> Mapping[str, Any]:
        """Return parameters of `folder`; paths are relative to `root`."""

    @functools.cached_property
    def folder(self) -> Folder:
        """The dataset that reads the files."""
        root = self.params.root
        files = {key: f"{root}/{value}" if key in Folder.path_params else value for key, value in self.files().items()}
        return Folder(Folder.Params(**files))

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        return self.folder.classes()

    def has_instances(self) -> bool:
        """Return whether masks hold numbered objects."""
        return self.folder.has_instances()

    def sources(self) -> list[SourceImage]:
        """Return all images, by name.

        Raises:
            DataError: If a file is missing or broken.
        """
        return self.folder.sources()


@final
class NucleiFluo(KnownFolder["NucleiFluo.Params"]):
    """349 fluorescence images of outlined nuclei, of many sources: the grey, dark images of BBBC038, corrected.

    Images of one size are mostly of one source, so `sizes` can stand for several devices: train on one size and
    fine-tune on another. With `contact_class: contact`, places where nuclei touch are a class, made from the numbered
    nuclei. A split keeps fields together, each of which has images of one size only.
    """

    class Params(KnownFolderParams):
        root: str = default(KnownFolderParams, "root", "$MICRAFRAME_DATA/nuclei_fluo")
        sizes: tuple[str, ...] = Field(
            (), description="Only images of these sizes, WIDTHxHEIGHT, which stand for their sources; empty: all."
        )
        max_crops_per_image: int | None = default(ImageDatasetParams, "max_crops_per_image", 3)
        licence: str = default(ImageDatasetParams, "licence", "CC0 1.0")
        citation: str = default(
            ImageDatasetParams,
            "citation",
            "J. C. Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, Nature "
            "Methods 16, 2019",
        )

    def default_name(self) -> str:
        """Return the dataset's name."""
        return "nuclei-fluo"

    def files(self) -> Mapping[str, Any]:
        """Return where images, instances and fields are."""
        return {
            "images": "images",
            "masks": "masks",
            "mask_kind": "instances",
            "classes": ("nucleus",),
            "index": "index.csv",
            "group": "field_group",
        }

    def sources(self) -> list[SourceImage]:
        """Return all images of the sizes asked for, by name.

        Raises:
            DataError: If a file is missing or broken, or there is no image of one of the sizes.
        """
        sources = super().sources()
        if not self.params.sizes:
            return sources
        found = {source.name: _size(source.files[0]) for source in sources}
        if missing := set(self.params.sizes) - set(found.values()):
            listed = ", ".join(sorted(set(found.values())))
            raise DataError(f"{self.params.root}: expected sizes among {listed}, got {', '.join(sorted(missing))}")
        return [source for source in sources if found[source.name] in self.params.sizes]


@final
class T98gPhase(KnownFolder["T98gPhase.Params"]):
    """32 phase-contrast fields of outlined T98G glioblastoma cells, at half their size."""

    class Params(KnownFolderParams):
        root: str = default(KnownFolderParams, "root", "$MICRAFRAME_DATA/t98g_phase")
        scale: float = default(ImageDatasetParams, "scale", 0.5)
        max_crops_per_image: int | None = default(ImageDatasetParams, "max_crops_per_image", 60)
        valid: float = default(ImageDatasetParams, "valid", 0.15)
        test: float = default(ImageDatasetParams, "test", 0.35)  # of 32 fields: intervals and tests go by fields
        licence: str = default(
            ImageDatasetParams,
            "licence",
            "MIT, (c) 2018 Okinawa Institute of Science & Technology Graduate University",
        )
        citation: str = default(
            ImageDatasetParams,
            "citation",
            "H.-F. Tsai et al., Usiigaci: Instance-aware cell tracking in stain-free phase contrast microscopy enabled "
            "by machine learning, SoftwareX 9, 2019",
        )

    def default_name(self) -> str:
        """Return the dataset's name."""
        return "t98g-phase"

    def files(self) -> Mapping[str, Any]:
        """Return where images and instances are."""
        return {"images": "images", "masks": "masks", "mask_kind": "instances", "classes": ("cell",)}


@final
class PfcNeurons(KnownFolder["PfcNeurons.Params"]):
    """71 bright-field colour images of living neurons, each with the outline of one, at a quarter of their size."""

    class Params(KnownFolderParams):
        root: str = default(KnownFolderParams, "root", "$MICRAFRAME_DATA/pfc_neurons")
        scale: float = default(ImageDatasetParams, "scale", 0.25)
        licence: str = default(ImageDatasetParams, "licence", "CC0 1.0")
        citation: str = default(
            ImageDatasetParams,
            "citation",
            "Images of living pyramidal neurons of the rat prefrontal cortex, public repository "
            "Erendiravp/pfc-pn-microscopy-dataset",
        )

    def default_name(self) -> str:
        """Return the dataset's name."""
        return "pfc-neurons"

    def files(self) -> Mapping[str, Any]:
        """Return where images and masks are."""
        return {"images": "images", "masks": "masks", "classes": ("neuron",)}


@final
class BloodCells(KnownFolder["BloodCells.Params"]):
    """244 colour fields of blood smears with boxes of red and white cells and platelets (BCCD), at half their size.

    Some cells at the borders and some platelets have no box.
    """

    class Params(KnownFolderParams):
        root: str = default(KnownFolderParams, "root", "$MICRAFRAME_DATA/bccd_blood")
        kinds: tuple[Literal["RBC", "WBC", "Platelets"], ...] = Field(
            BLOOD_CELLS, min_length=1, description="The kinds of cell that are classes; boxes of others are left out."
        )
        scale: float = default(ImageDatasetParams, "scale", 0.5)
        crop: int | None = default(ImageDatasetParams, "crop", 80)
        share: float = default(ImageDatasetParams, "share", 0.05)  # the paper's overlap with a box, for P. vivax
        licence: str = default(ImageDatasetParams, "licence", "MIT, (c) 2017 shenggan")
        citation: str = default(
            ImageDatasetParams, "citation", "BCCD: blood cell images and boxes, public repository Shenggan/BCCD_Dataset"
        )

    def default_name(self) -> str:
        """Return the dataset's name."""
        return "blood-cells"

    def files(self) -> Mapping[str, Any]:
        """Return where images and boxes are."""
        return {"images": "images", "boxes": "boxes.csv", "classes": BLOOD_CELLS}

    def classes(self) -> tuple[str, ...]:
        """Return the kinds of cell."""
        return self.params.kinds

    def sources(self) -> list[SourceImage]:
        """Return all images, by name, with the boxes of the classes."""
        kept = [BLOOD_CELLS.index(kind) for kind in self.params.kinds]
        return [
            dataclasses.replace(source, read_annotation=functools.partial(_boxes_of, source.read_annotation, kept))
            for source in super().sources()
            if source.read_annotation
        ]


def _size(path: Path) -> str:
    height, width = read_size(path)
    return f"{width}x{height}"


def _boxes_of(read: Callable[[], ImageAnnotation], classes: list[int]) -> ImageAnnotation:
    annotation = read()
    boxes = annotation.boxes or ()
    return dataclasses.replace(annotation, boxes=tuple(boxes[index] for index in classes))
