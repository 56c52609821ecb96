'''The built-in datasets, and the parts for a plugin's dataset.

A dataset with its own file format lists its classes and images and reads one image; `ImageDataset` does the rest.
Its parameters include crops, labelling rules, random or given splits that keep groups together, pixel size,
resizing and normalisation, and its samples are read on access:

    from functools import partial
    from pathlib import Path

    import numpy as np
    from pydantic import Field

    from micraframe.datasets.annotation import ImageAnnotation
    from micraframe.datasets.image_dataset import ImageDataset, ImageDatasetParams
    from micraframe.datasets.paths import resolve
    from micraframe.datasets.sources import SourceImage

    def read_image(path: Path) -> np.ndarray:
        return np.load(path)["image"].astype(np.float32)             # (C, H, W)

    def read_annotation(path: Path) -> ImageAnnotation:
        return ImageAnnotation(instances=np.load(path)["nuclei"].astype(np.int32))        # (K, H, W)

    class Wells(ImageDataset["Wells.Params"]):
        """Wells of a plate, one NumPy archive each, named PLATE-WELL.npz."""

        path_params = ("folder",)

        class Params(ImageDatasetParams):
            folder: str = Field(description="Folder of the archives.")

        def classes(self) -> tuple[str, ...]:
            return ("nucleus",)

        def sources(self) -> list[SourceImage]:
            return [
                SourceImage(
                    name=path.stem,
                    read_image=partial(read_image, path),
                    read_annotation=partial(read_annotation, path),
                    group=path.stem.partition("-")[0],
                    files=(path,),
                )
                for path in sorted(resolve(self.params.folder).glob("*.npz"))
            ]

The parts also work by themselves:

- `sources`: `SourceImage` (an image with its readers), `LazySamples` (samples made on access), `fingerprint`
- `annotation`: `ImageAnnotation` (masks, instances, boxes and points of a whole image)
- `crops`: `grid`, `crop_sample`, and `judge_windows`, which derives a crop's labels by a `LabelRule`
- `splits`: `random_splits`, `check_groups`
- `normalisation`: `NormalisationParams`, `fit_normalisation`
- `tables`: CSV tables of labels, boxes and points, with errors that name file and line
- `paths`: `resolve` (`$MICRAFRAME_DATA`), `images_in`, `find`
'''
