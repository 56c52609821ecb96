"""Divides images among training, validation and test without splitting a group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from micraframe.errors import DataError, counted
from micraframe.types import SPLITS, Split

EXCLUDED: Final = "none"
"""What a table holds in place of a split for an image to leave out."""


def random_splits(
    groups: Sequence[str], shares: Mapping[Split, float], seed: int, are_crops: bool = False
) -> list[Split]:
    """Divide images at random, whole groups at a time.

    Groups are taken in random order. Each split first receives one group; each further group goes to the split that is
    furthest below its share.

    Args:
        groups: The group of each image.
        shares: Share of each split, adding up to 1; a split with a share of 0 stays empty.
        seed: Determines the order.
        are_crops: Whether images are crops, and groups the images that they were cut from; for the message of an error.

    Returns:
        The split of each image. It depends on the groups' names and sizes, not on the order of the images.

    Raises:
        DataError: If there are fewer groups than splits.
    """
    sizes = Counter(groups)
    names = sorted(sizes)
    filled = [split for split in SPLITS if shares[split] > 0]
    if len(names) < len(filled) and are_crops:
        enough = len(names) == len(filled) - 1 and "test" in filled
        raise DataError(
            f"expected labelled crops of at least {len(filled)} images to fill {', '.join(filled)}, got "
            f"{counted(len(groups), 'crop')} of {counted(len(names), 'image')}; label crops of other images"
            f"{', or set test: 0' if enough else ''}"
        )
    if len(names) < len(filled):
        raise DataError(
            f"expected at least {len(filled)} groups to fill {', '.join(filled)}, got {len(groups)} images in "
            f"{len(names)} groups, which are never split; add images, or set a share to 0"
        )
    lack = {split: shares[split] * len(groups) for split in filled}
    owner: dict[str, Split] = {}
    for number, index in enumerate(np.random.default_rng(seed).permutation(len(names))):
        name = names[index]
        split = filled[number] if number < len(filled) else max(filled, key=lack.__getitem__)
        owner[name] = split
        lack[split] -= sizes[name]
    return [owner[group] for group in groups]


def check_groups(groups: Sequence[str], splits: Sequence[Split]) -> None:
    """Raise `DataError` if a group is in two splits."""
    owner: dict[str, Split] = {}
    for group, split in zip(groups, splits, strict=True):
        if owner.setdefault(group, split) != split:
            raise DataError(
                f"group {group!r} is in both {owner[group]} and {split}, but splits must not share a group; put all "
                "its images in one split"
            )
