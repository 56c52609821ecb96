"""An embedded dataset: scikit-learn's digits, scattered as the MICRA-Net paper scatters MNIST's."""

from __future__ import annotations

import functools
from typing import final

import numpy as np
from pydantic import Field
from scipy import ndimage
from sklearn.datasets import load_digits

from micraframe.datasets.composer import CLASSES, DigitScene, GlyphSet, composed_samples, fingerprint
from micraframe.datasets.sources import LazySamples
from micraframe.interfaces import Dataset
from micraframe.types import SPLITS, DatasetInfo, Normalisation, Split

GLYPH, BODY = 28, 20
"""Height and width of a glyph, and of the digit at its centre, in pixels, as in MNIST."""

SHARES: dict[Split, float] = {"train": 0.6, "valid": 0.2, "test": 0.2}
"""Share of the source's digits that each split is composed from."""


@functools.cache
def sources() -> dict[Split, range]:
    """Return the indices of scikit-learn's digits that each split is composed from; no digit is in two splits.

    They follow the order of the file, which is sorted by writer, so few writers are in two splits.
    """
    total = len(load_digits().target)
    ends = np.round(np.cumsum([SHARES[split] for split in SPLITS]) * total).astype(int)
    return {split: range(start, end) for split, start, end in zip(SPLITS, [0, *ends], ends, strict=False)}


@functools.cache
def digits(split: Split) -> GlyphSet:
    """Return a split's digits as MNIST shows them: 28x28 with a digit of 20x20 at the centre.

    scikit-learn's are 8x8 with 17 grey levels. They are interpolated by a cubic spline, and their contrast is doubled
    about one half, which makes the edges of strokes as sharp as MNIST's.
    """
    bunch = load_digits()
    chosen = list(sources()[split])
    small = bunch.images[chosen] / 16
    side = small.shape[1]
    # Positions of the glyph's pixels in the small image; everything beyond its edge is black.
    position = (np.arange(GLYPH) + 0.5 - GLYPH / 2) * side / BODY + (side - 1) / 2
    grid = np.stack(np.meshgrid(position, position, indexing="ij"))
    padded = np.pad(small, ((0, 0), (2, 2), (2, 2)))
    large = np.stack([ndimage.map_coordinates(image, grid + 2, order=3) for image in padded])
    glyphs = np.clip((large - 0.5) * 2 + 0.5, 0, 1).astype(np.float32)
    return GlyphSet(glyphs, bunch.target[chosen])


@final
class ModifiedDigits(Dataset["ModifiedDigits.Params"]):
    """Digits scattered over an image: ten classes, with masks, instances, points and boxes.

    Bilodeau et al. 2022, Methods, "Modified MNIST", with the 1797 digits that scikit-learn ships instead of MNIST's.
    """

    class Params(DigitScene):
        train: int = Field(2000, ge=1, description="Number of training images.")
        valid: int = Field(1000, ge=1, description="Number of validation images.")
        test: int = Field(1000, ge=1, description="Number of test images.")
        seed: int = Field(0, ge=0, description="Seed of every image.")

    def info(self) -> DatasetInfo:
        """Return the dataset's metadata."""
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

    def samples(self, split: Split) -> LazySamples[int]:
        """Return the samples of a split, each composed on access."""
        params = self.params
        source = f"modified-digits, seed {params.seed}"
        return composed_samples(digits(split), params, split, getattr(params, split), params.seed, source)
