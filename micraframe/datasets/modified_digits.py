"""The embedded dataset: scikit-learn's digits, cluttered as the MICRA-Net paper clutters MNIST."""

from __future__ import annotations

import functools
from typing import final

import numpy as np
from pydantic import Field
from scipy import ndimage
from sklearn.datasets import load_digits

from micraframe.datasets.composer import CLASSES, ComposedSamples, Digits, Recipe, fingerprint
from micraframe.interfaces import Dataset
from micraframe.types import SPLITS, DatasetInfo, Normalisation, Split

GLYPH, BODY = 28, 20
"""Edge of a glyph and of the digit in its middle, in pixels, as in MNIST."""

SHARES: dict[Split, float] = {"train": 0.6, "valid": 0.2, "test": 0.2}
"""Shares of the source's digits that the splits are composed from."""


@functools.cache
def sources() -> dict[Split, range]:
    """Return the indices of scikit-learn's digits that each split is composed from; no digit is in two of them.

    They are cut in the order of the file, which goes by writer, so that few hands are in two splits.
    """
    total = len(load_digits().target)
    ends = np.round(np.cumsum([SHARES[split] for split in SPLITS]) * total).astype(int)
    return {split: range(start, end) for split, start, end in zip(SPLITS, [0, *ends], ends, strict=False)}


@functools.cache
def digits(split: Split) -> Digits:
    """Return a split's digits as MNIST shows them: 28x28 with a digit of 20x20 in the middle.

    scikit-learn's are 8x8 with 17 grey levels. They are interpolated by a cubic spline, and their contrast is doubled
    about one half, for strokes with edges as sharp as MNIST's.
    """
    bunch = load_digits()
    chosen = list(sources()[split])
    small = bunch.images[chosen] / 16
    side = small.shape[1]
    # The position of a glyph's pixel in the small image; beyond its edge everything is black.
    position = (np.arange(GLYPH) + 0.5 - GLYPH / 2) * side / BODY + (side - 1) / 2
    grid = np.stack(np.meshgrid(position, position, indexing="ij"))
    padded = np.pad(small, ((0, 0), (2, 2), (2, 2)))
    large = np.stack([ndimage.map_coordinates(image, grid + 2, order=3) for image in padded])
    glyphs = np.clip((large - 0.5) * 2 + 0.5, 0, 1).astype(np.float32)
    return Digits(glyphs, bunch.target[chosen])


@final
class ModifiedDigits(Dataset):
    """Digits scattered over an image: ten classes, each with masks, objects, points and boxes.

    Bilodeau et al. 2022, Methods, "Modified MNIST", with the 1797 digits that scikit-learn brings in place of MNIST's.
    """

    class Params(Recipe):
        train: int = Field(2000, ge=1, description="Number of training images.")
        valid: int = Field(1000, ge=1, description="Number of validation images.")
        test: int = Field(1000, ge=1, description="Number of test images.")
        seed: int = Field(0, ge=0, description="Fixes every image.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def info(self) -> DatasetInfo:
        """Return what must be known of the dataset besides its samples."""
        counts = [getattr(self.params, split) for split in SPLITS]
        return DatasetInfo(
            name="modified-digits",
            classes=CLASSES,
            channels=1,
            normalisation=Normalisation(),
            fingerprint=fingerprint([digits(split) for split in SPLITS], self.params, counts, self.params.seed),
            licence="CC BY 4.0",
            citation="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
            "Repository, 1998, doi:10.24432/C50P49",
            image_size=(self.params.size, self.params.size),
        )

    def samples(self, split: Split) -> ComposedSamples:
        """Return the samples of a split; each is composed when it is asked for."""
        return ComposedSamples(
            digits(split),
            self.params,
            split,
            getattr(self.params, split),
            self.params.seed,
            f"modified-digits, seed {self.params.seed}",
        )
