"""Examples: images and targets, in batches of one image size, in an order determined by the seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from micraframe.errors import DataError
from micraframe.runtime.files import digest
from micraframe.types import FloatArray, Sample

Target = npt.NDArray[Any]

IN_MEMORY = 2 * 2**30
"""Bytes of images and targets that are kept in memory; the others are read again for every use."""


@final
class Examples:
    """Images and a network's targets for them.

    Attributes:
        sizes: (H, W) of each image.
        fingerprint: Hash of all images and targets.

    Args:
        samples: Each read once now, and again later if it does not fit into memory.
        target: Returns a sample's target: (K,), or (K, H, W), which is rotated and mirrored together with the image.
        in_memory: Bytes to keep.
        stack: Joins the targets of a batch, (B, ...); they may be of several shapes.

    Raises:
        DataError: If there are no samples.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        target: Callable[[Sample], Target],
        in_memory: int = IN_MEMORY,
        stack: Callable[[Sequence[Target]], Target] = np.stack,
    ) -> None:
        if not len(samples):
            raise DataError(
                "expected at least one sample to train with, and one to select the best model by, got none; add images"
            )
        self._samples = samples
        self._target = target
        self._stack = stack
        self._images: list[FloatArray | None] = []
        self._targets: list[Target | None] = []
        self.sizes: list[tuple[int, int]] = []
        hashes = []
        for sample in samples:
            pair = sample.image, np.asarray(target(sample))
            # Targets first: most are much smaller, and reading one again reads its image too.
            for kept, array in ((self._targets, pair[1]), (self._images, pair[0])):
                fits = array.nbytes <= in_memory
                in_memory -= array.nbytes if fits else 0
                kept.append(array if fits else None)
            self.sizes.append((pair[0].shape[1], pair[0].shape[2]))
            hashes.append(
                digest(*(part for array in pair for part in (str((array.shape, array.dtype)), array.tobytes())))
            )
        self.fingerprint = digest(*hashes)

    def __len__(self) -> int:
        return len(self.sizes)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) and targets (B, ...) of examples of one size."""
        images, targets = zip(*map(self._pair, indices), strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(self._stack(targets))

    def targets(self) -> Iterator[Target]:
        """Yield the target of every example."""
        for index, kept in enumerate(self._targets):
            yield self._pair(index)[1] if kept is None else kept

    def _pair(self, index: int) -> tuple[FloatArray, Target]:
        image, target = self._images[index], self._targets[index]
        if image is not None and target is not None:
            return image, target
        sample = self._samples[index]
        return sample.image, np.asarray(self._target(sample)) if target is None else target


def index_batches(
    sizes: Sequence[tuple[int, int]], batch_size: int, generator: torch.Generator | None = None
) -> list[list[int]]:
    """Return the examples' indices in batches of one size each; every example is in one batch.

    A last batch of one is merged with the batch before it, as batch normalisation needs more than one example.

    Args:
        sizes: (H, W) of each example.
        batch_size: Maximum number of examples in a batch, except for a merged one.
        generator: Shuffles examples and batches; None keeps their order.
    """
    count = len(sizes)
    order = range(count) if generator is None else torch.randperm(count, generator=generator).tolist()
    by_size: dict[tuple[int, int], list[int]] = {}
    for index in order:
        by_size.setdefault(sizes[index], []).append(index)
    made: list[list[int]] = []
    for members in by_size.values():
        parts = [members[start : start + batch_size] for start in range(0, len(members), batch_size)]
        if len(parts) > 1 and len(parts[-1]) == 1 < batch_size:
            last = parts.pop()
            parts[-1] = parts[-1] + last
        made += parts
    if generator is not None and len(by_size) > 1:
        made = [made[index] for index in torch.randperm(len(made), generator=generator).tolist()]
    return made


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a random generator for one purpose, which depends on the seed and the purpose only."""
    return torch.Generator().manual_seed(seed_for(seed, *purpose))


def seed_for(seed: int, *purpose: str | int) -> int:
    """Return a seed for one purpose."""
    return int(digest(*map(str, (seed, *purpose)))[:15], 16)
