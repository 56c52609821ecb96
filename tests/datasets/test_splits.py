from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.datasets.splits import check_groups, random_splits
from micraframe.errors import DataError

SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}


@given(
    groups=st.lists(st.sampled_from([f"group {n}" for n in range(12)]), min_size=3),
    seed=st.integers(0, 1000),
)
def test_no_group_is_cut_and_no_split_empty(groups: list[str], seed: int) -> None:
    if len(set(groups)) < 3:
        with pytest.raises(DataError, match="never split"):
            random_splits(groups, SHARES, seed)
        return
    splits = random_splits(groups, SHARES, seed)
    check_groups(groups, splits)
    assert set(splits) == set(SHARES)
    # The order in which images come does not matter.
    assert sorted(zip(groups, splits, strict=True)) == sorted(
        zip(groups[::-1], random_splits(groups[::-1], SHARES, seed), strict=True)
    )


@given(seed=st.integers(0, 1000), count=st.integers(3, 60))
def test_single_images_are_divided_by_the_shares(seed: int, count: int) -> None:
    counts = Counter(random_splits([f"{n:03}" for n in range(count)], SHARES, seed))
    for split, share in SHARES.items():
        assert abs(counts[split] - share * count) <= 1


def test_a_split_without_a_share_stays_empty() -> None:
    assert set(random_splits(list("abcde"), {"train": 0.5, "valid": 0, "test": 0.5}, 0)) == {"train", "test"}


def test_another_seed_divides_otherwise() -> None:
    names = [f"{n}" for n in range(20)]
    assert random_splits(names, SHARES, 0) == random_splits(names, SHARES, 0) != random_splits(names, SHARES, 1)


def test_a_group_in_two_splits_is_refused() -> None:
    with pytest.raises(DataError, match="'slide 1' is in both train and test"):
        check_groups(["slide 1", "slide 2", "slide 1"], ["train", "test", "test"])
