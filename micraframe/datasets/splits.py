"""Divides images among training, validation and test without cutting a group in two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from micraframe.errors import DataError
from micraframe.types import SPLITS, Split


def random_splits(groups: Sequence[str], shares: Mapping[Split, float], seed: int) -> list[Split]:
    """Divide images at random, whole groups at a time.

    Groups come in random order. Each split is first given one, then each group goes to the split that lacks most of
    its share.

    Args:
        groups: The group of each image.
        shares: Of each split, adding up to 1; a split with none stays empty.
        seed: Fixes the order.

    Returns:
        The split of each image. It depends on the groups' names and sizes, not on the order of the images.

    Raises:
        DataError: If there are fewer groups than splits.
    """
    sizes = Counter(groups)
    names = sorted(sizes)
    wanting = [split for split in SPLITS if shares[split] > 0]
    if len(names) < len(wanting):
        raise DataError(
            f"{len(groups)} images in {len(names)} groups cannot fill {', '.join(wanting)}: a group is never cut "
            "in two; more images are wanted, or a share of 0"
        )
    lack = {split: shares[split] * len(groups) for split in wanting}
    owner: dict[str, Split] = {}
    for number, index in enumerate(np.random.default_rng(seed).permutation(len(names))):
        name = names[index]
        split = wanting[number] if number < len(wanting) else max(wanting, key=lack.__getitem__)
        owner[name] = split
        lack[split] -= sizes[name]
    return [owner[group] for group in groups]


def check_groups(groups: Sequence[str], splits: Sequence[Split]) -> None:
    """Raise `DataError` if a group is in two splits."""
    owner: dict[str, Split] = {}
    for group, split in zip(groups, splits, strict=True):
        if owner.setdefault(group, split) != split:
            raise DataError(
                f"the group {group!r} is in {owner[group]} and in {split}; a group shares what is learned "
                "and what is tested: put it in one split"
            )
