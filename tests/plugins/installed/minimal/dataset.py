"""A folder of NumPy files, each with an image and its instances."""

from pathlib import Path

import numpy as np
from pydantic import Field

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.image_dataset import ImageDataset, ImageDatasetParams
from micraframe.datasets.sources import SourceImage


class Arrays(ImageDataset["Arrays.Params"]):
    """Cells in `*.npz` files: `image` (C, H, W) and `instances` (1, H, W)."""

    class Params(ImageDatasetParams):
        folder: Path = Field(description="Folder of the files.")

    path_params = ("folder",)

    def classes(self):
        return ("cell",)

    def sources(self):
        return [
            SourceImage(
                path.stem,
                lambda path=path: np.load(path)["image"],
                lambda path=path: ImageAnnotation(instances=np.load(path)["instances"]),
                files=(path,),
            )
            for path in sorted(self.params.folder.glob("*.npz"))
        ]
