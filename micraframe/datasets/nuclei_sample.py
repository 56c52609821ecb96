"""An embedded dataset of real images: fluorescent nuclei of BBBC038."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final, cast, final

from pydantic import Field

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.image_dataset import ImageDataset, ImageDatasetParams
from micraframe.datasets.normalisation import NormalisationParams
from micraframe.datasets.sources import SourceImage
from micraframe.datasets.tables import read_table
from micraframe.images import read_image, read_labels
from micraframe.types import Split

FOLDER: Final = Path(__file__).with_name("nuclei")
"""The embedded images, masks, index of splits and fields, and licence; `benchmarks/nuclei_sample.py` makes them."""


def _annotation(masks: Path) -> ImageAnnotation:
    return ImageAnnotation(instances=read_labels(masks)[None])


@final
class NucleiSample(ImageDataset["NucleiSample.Params"]):
    """60 images of 60 fields of view with outlined nuclei, at most 256 x 256, of many sources; cut into crops.

    They were drawn at random from the fluorescence images of BBBC038, one per field of view, taking turns among the
    sizes of images, which stand for their sources; larger images were cut to a random window that shows a nucleus.
    Splits are fixed: of each size, a quarter of the images is for testing and 15 % for validation; `seed`, `valid` and
    `test` do not matter.
    """

    class Params(ImageDatasetParams):
        crop: int | None = Field(64, ge=8, description="Height and width of crops in pixels; null keeps images whole.")
        share: float = Field(0.02, ge=0, le=1, description=ImageDatasetParams.model_fields["share"].description)
        normalisation: NormalisationParams = Field(
            NormalisationParams(kind="percentile", low=0.5, high=99.5),
            description=ImageDatasetParams.model_fields["normalisation"].description,
        )
        licence: str = Field("CC0 1.0", description="Licence of the data.")
        citation: str = Field(
            "J. C. Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, "
            "Nature Methods 16, 2019",
            description="What to cite for the data.",
        )

    def default_name(self) -> str:
        """Return the dataset's name."""
        return "nuclei-sample"

    def classes(self) -> tuple[str, ...]:
        """Return the name of the only class."""
        return ("nucleus",)

    def has_instances(self) -> bool:
        """Return True: nuclei are numbered."""
        return True

    def sources(self) -> list[SourceImage]:
        """Return all images, by name."""
        sources = []
        for name, (row,) in read_table(FOLDER / "index.csv").items():
            image, masks = (FOLDER / kind / f"{name}.png" for kind in ("images", "masks"))
            read = functools.partial(read_image, image), functools.partial(_annotation, masks)
            group, split = row.cells["group"], cast(Split, row.cells["split"])
            sources.append(SourceImage(name, *read, group=group, split=split, files=(image, masks)))
        return sources
