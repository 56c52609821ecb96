"""Modified MNIST: MNIST's digits, scattered over larger images."""

from __future__ import annotations

import functools
import gzip
import math
import zlib
from pathlib import Path
from typing import Final, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from micraframe.datasets.composer import CLASSES, DigitScene, GlyphSet, composed_samples, fingerprint
from micraframe.datasets.sources import LazySamples
from micraframe.errors import DataError, reason_of
from micraframe.interfaces import Dataset
from micraframe.types import SPLITS, DatasetInfo, Normalisation, Split
from micraframe_paper.download import RemoteFile, Terms, fetch, root_of

TERMS: Final = Terms(
    "modified-mnist",
    licence="CC BY-SA 3.0",
    citation="Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits, 1998",
    page="https://github.com/cvdfoundation/mnist",
)

VALIDATION: Final = 1 / 6
"""The last share of the training digits, 10,000 of 60,000, that only validation images are composed from."""


def _remote(name: str, sha256: str) -> RemoteFile:
    plain, raw = name.removesuffix(".gz"), "MNIST/raw"  # torchvision's folder
    address = f"https://storage.googleapis.com/cvdf-datasets/mnist/{name}"
    others = (plain, plain.replace("-idx", ".idx"), f"{raw}/{plain}", f"{raw}/{name}")
    return RemoteFile(name, address, f"sha256:{sha256}", other_names=others)


FILES: Final = {
    "train": (
        _remote(
            "train-images-idx3-ubyte.gz",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        _remote(
            "train-labels-idx1-ubyte.gz",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
    ),
    "test": (
        _remote(
            "t10k-images-idx3-ubyte.gz",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        _remote(
            "t10k-labels-idx1-ubyte.gz",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
}
"""Images and labels of MNIST's two sets of digits."""


def read_idx(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes, compressed with gzip or not.

    The format: two zero bytes, 8 for unsigned bytes, the number of axes; the length of each axis as a big-endian 32-bit
    integer; the values, the last axis fastest.

    Args:
        path: The file.
        axes: Number of axes that it must have: 3 for images (N, H, W), 1 for labels (N,).

    Raises:
        DataError: If it cannot be read, or is not of this form.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from error
    start, header = bytes([0, 0, 8, axes]), 4 + 4 * axes
    if not content.startswith(start) or len(content) < header:
        raise DataError(
            f"{path}: expected an IDX file that begins with {start.hex(' ')}, got {content[:4].hex(' ')}; download it "
            "again"
        )
    shape = [int(length) for length in np.frombuffer(content, ">i4", axes, 4)]
    if len(content) != header + math.prod(shape):
        expected = header + math.prod(shape)
        raise DataError(f"{path}: expected {expected} bytes for shape {shape}, got {len(content)}; download it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


@functools.lru_cache(maxsize=2)
def read_digits(images: Path, labels: Path) -> GlyphSet:
    """Read digits and their labels; the files that were read last are kept in memory.

    Raises:
        DataError: If a file is broken, or the two do not have the same number of digits.
    """
    glyphs, numbers = read_idx(images, 3), read_idx(labels, 1)
    if len(glyphs) != len(numbers):
        raise DataError(f"{labels}: expected labels of the {len(glyphs)} digits of {images}, got {len(numbers)}")
    return GlyphSet((glyphs / np.float32(255)).astype(np.float32, copy=False), numbers)


@final
class ModifiedMnist(Dataset["ModifiedMnist.Params"]):
    """MNIST's digits scattered over an image: ten classes, with masks, instances, points and boxes.

    Bilodeau et al. 2022, Methods, "Modified MNIST": test images are composed from MNIST's test digits; training and
    validation images from its training digits. No digit is in two splits: validation has the last sixth of the training
    digits for itself. The weak outlines of the paper are those of the annotator `dilated` with 5, 10 and 25 px.
    """

    class Params(DigitScene):
        root: str = Field(
            "", description="Folder of MNIST's four IDX files, compressed or not; empty: they are downloaded."
        )
        train: int = Field(2000, ge=1, description="Number of training images.")
        valid: int = Field(1000, ge=1, description="Number of validation images.")
        test: int = Field(1000, ge=1, description="Number of test images.")
        seed: int = Field(0, ge=0, description="Seed of every image.")

    def info(self) -> DatasetInfo:
        """Return the dataset's metadata.

        Raises:
            DataError: If a file is missing or broken, or cannot be downloaded.
        """
        return self._info

    def samples(self, split: Split) -> LazySamples[int]:
        """Return the samples of a split, each composed on access.

        Raises:
            DataError: As `info`.
        """
        params = self.params
        source = f"modified-mnist, seed {params.seed}"
        return composed_samples(self._digits(split), params, split, getattr(params, split), params.seed, source)

    @functools.cached_property
    def _info(self) -> DatasetInfo:
        params = self.params
        counts = [getattr(params, split) for split in SPLITS]
        return DatasetInfo(
            name=TERMS.dataset,
            classes=CLASSES,
            channels=1,
            normalisation=Normalisation(),
            fingerprint=fingerprint([self._digits(split) for split in SPLITS], params, counts, params.seed),
            licence=TERMS.licence,
            citation=TERMS.citation,
            image_size=(params.size, params.size),
        )

    def _digits(self, split: Split) -> GlyphSet:
        """Return the digits that the images of a split are composed from."""
        files = FILES["test" if split == "test" else "train"]
        images, labels = fetch(files, root_of(self.params.root), TERMS)
        digits = read_digits(images, labels)
        if split == "test":
            return digits
        end = len(digits.labels) - round(len(digits.labels) * VALIDATION)
        chosen = slice(end) if split == "train" else slice(end, None)
        return GlyphSet(digits.glyphs[chosen], digits.labels[chosen])
