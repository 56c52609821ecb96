"""Electron micrographs in which few axons are labelled: tiles of 10,240 px with a marker in each labelled axon."""

from __future__ import annotations

from typing import final

from micraframe.datasets.folder import Folder
from micraframe.datasets.paths import resolve
from micraframe.datasets.sources import SourceImage
from micraframe.errors import DataError
from micraframe.types import Normalisation
from micraframe_paper.datasets.defaults import default
from micraframe_paper.datasets.fields import MarkedFields, MarkedFieldsParams


@final
class EmAxon(MarkedFields["EmAxon.Params"]):
    """Scanning electron micrographs of mouse brain with markers of axons labelled by APEX2 and DAB.

    The paper's set, 92, 66 and 44 tiles of 10,240 x 10,240 px at 5 nm, is available from its corresponding author; it
    has no public layout. Expected in `root`: the folder `images` of 8-bit tiles; `markers.csv` with the columns image,
    x and y, in pixels; `index.csv` with the columns image, split (train, valid or test) and, if tiles overlap, group;
    optionally the folder `masks` of outlines, named like the images. As in the paper, tiles are inverted and divided by
    255.
    """

    normalisation = Normalisation("fixed", offset=(255.0,), scale=(-255.0,))

    class Params(MarkedFieldsParams):
        root: str = default(MarkedFieldsParams, "root", "$MICRAFRAME_DATA/em_axon")
        licence: str = default(
            MarkedFieldsParams, "licence", "not public; from the paper's corresponding author, on reasonable request"
        )
        citation: str = default(
            MarkedFieldsParams,
            "citation",
            "A. Bilodeau et al., Microscopy analysis neural network to solve detection, enumeration and segmentation "
            "from image-level annotations, Nature Machine Intelligence 4, 455-466, 2022",
        )

    def class_name(self) -> str:
        """Return the name of the only class."""
        return "axon DAB"

    def default_name(self) -> str:
        """Return the dataset's name."""
        return "em-axon"

    def fields(self) -> list[SourceImage]:
        """Return all tiles, by name; one without a marker has none.

        Raises:
            DataError: If a file is missing or broken, or a tile has no split.
        """
        root = self.params.root
        if not resolve(f"{root}/images").is_dir():
            raise DataError(
                f"em-axon: expected the folder images in {resolve(root)}, got none; set root to the tiles, which are "
                "not public: the paper's corresponding author has them (doi:10.1038/s42256-022-00472-w)"
            )
        return Folder(
            Folder.Params(
                images=f"{root}/images",
                points=f"{root}/markers.csv",
                index=f"{root}/index.csv",
                split="split",
                masks=f"{root}/masks" if resolve(f"{root}/masks").is_dir() else "",
                classes=(self.class_name(),),
                unlabelled="negative",
            )
        ).sources()
