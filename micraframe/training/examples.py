"""What a network is shown: images and targets, in batches of one size, in an order that the seed fixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from micraframe.errors import DataError
from micraframe.files import digest
from micraframe.types import FloatArray, Sample

Target = npt.NDArray[Any]

IN_MEMORY = 2 * 2**30
"""Bytes of images and targets that are kept; what is beyond is read anew whenever it is shown."""


@final
class Examples:
    """Images and what a network is to say of them.

    Attributes:
        channels: Number of channels C of the images.
        sizes: (H, W) of each image.
        fingerprint: Hash of all images and targets.

    Args:
        samples: Each read once now, and again later where it does not fit into memory.
        target: Makes of a sample what the network is to say of it: (K,), or (K, H, W), which then follows the image
            when that is turned or mirrored.
        in_memory: Bytes to keep.

    Raises:
        DataError: If there is no sample, or they differ in their number of channels or classes.
    """

    def __init__(
        self, samples: Sequence[Sample], target: Callable[[Sample], Target], in_memory: int = IN_MEMORY
    ) -> None:
        if not len(samples):
            raise DataError("there is no sample to learn from or to choose the best model by; at least one is wanted")
        self._samples = samples
        self._target = target
        self._kept: list[tuple[FloatArray, Target] | None] = []
        self.sizes: list[tuple[int, int]] = []
        first: tuple[int, ...] = ()
        hashes = []
        for sample in samples:
            pair = (sample.image, np.asarray(target(sample)))
            shape = (len(pair[0]), len(pair[1]))
            first = first or shape
            if shape != first:
                raise DataError(
                    f"sample {sample.id!r} has {shape[0]} channels and {shape[1]} classes; the first sample has "
                    f"{first[0]} and {first[1]}, and all must be alike"
                )
            in_memory -= sum(array.nbytes for array in pair)
            self._kept.append(pair if in_memory >= 0 else None)
            self.sizes.append((pair[0].shape[1], pair[0].shape[2]))
            hashes.append(
                digest(*(part for array in pair for part in (str((array.shape, array.dtype)), array.tobytes())))
            )
        self.channels = first[0]
        self.fingerprint = digest(*hashes)

    def __len__(self) -> int:
        return len(self.sizes)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) and targets (B, ...) of examples of one size."""
        pairs = [self._pair(index) for index in indices]
        images, targets = (np.stack([pair[part] for pair in pairs]) for part in (0, 1))
        return torch.from_numpy(images), torch.from_numpy(targets)

    def targets(self) -> Sequence[Target]:
        """Return the target of every example."""
        return [self._pair(index)[1] for index in range(len(self))]

    def _pair(self, index: int) -> tuple[FloatArray, Target]:
        kept = self._kept[index]
        if kept is not None:
            return kept
        sample = self._samples[index]
        return sample.image, np.asarray(self._target(sample))


def batches(
    sizes: Sequence[tuple[int, int]], batch_size: int, generator: torch.Generator | None = None
) -> list[list[int]]:
    """Return the examples' numbers in batches of one size each; every example is in one of them.

    A last batch of one joins the batch before it, for there is nothing to normalise a single example by.

    Args:
        sizes: (H, W) of each example.
        batch_size: The most examples of a batch, but for the one that is joined.
        generator: Shuffles examples and batches; none leaves their order.
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


def generator(seed: int, *what: str | int) -> torch.Generator:
    """Return a random generator for one purpose: it depends on the seed and on what it is for, and on nothing else."""
    return torch.Generator().manual_seed(seed_for(seed, *what))


def seed_for(seed: int, *what: str | int) -> int:
    """Return a seed for one purpose."""
    return int(digest(*map(str, (seed, *what)))[:15], 16)
