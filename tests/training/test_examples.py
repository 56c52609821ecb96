from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from micraframe.errors import DataError
from micraframe.training.examples import Examples, generator, index_batches
from micraframe.types import Sample

SIZES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=40)


def sample(number: int, size: tuple[int, int] = (4, 5)) -> Sample:
    rng = np.random.default_rng(number)
    return Sample(f"s{number}", rng.random((1, *size), dtype=np.float32), labels=rng.random(2) > 0.5)


def labels(one: Sample) -> np.ndarray:
    assert one.labels is not None
    return one.labels


@given(SIZES, st.integers(1, 7), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_example_is_in_one_batch_of_its_size(
    sizes: list[tuple[int, int]], batch_size: int, shuffled: bool
) -> None:
    made = index_batches(sizes, batch_size, generator(0, "test") if shuffled else None)
    assert sorted(index for batch in made for index in batch) == list(range(len(sizes)))
    for batch in made:
        assert len({sizes[index] for index in batch}) == 1
        alone = batch_size > 1 and len(batch) == 1
        assert len(batch) <= batch_size + (batch_size > 1)
        assert not alone or sizes.count(sizes[batch[0]]) == 1
    # As many in every epoch, whatever the order: schedules count steps.
    assert len(made) == len(index_batches(sizes, batch_size))


def test_order_is_a_function_of_seed_and_epoch() -> None:
    sizes = [(4, 4)] * 50
    first = index_batches(sizes, 8, generator(1, "order", 2))
    assert index_batches(sizes, 8, generator(1, "order", 2)) == first
    assert index_batches(sizes, 8, generator(1, "order", 3)) != first
    assert index_batches(sizes, 8, generator(2, "order", 2)) != first


def test_a_batch_is_what_was_asked_for() -> None:
    samples = [sample(number) for number in range(5)]
    images, targets = Examples(samples, labels).batch([3, 1])
    assert images.dtype == torch.float32
    assert np.array_equal(images.numpy(), np.stack([samples[3].image, samples[1].image]))
    assert np.array_equal(targets.numpy(), np.stack([samples[3].labels, samples[1].labels]))


class Counted:
    """A row of samples that counts how often each is read."""

    def __init__(self, count: int) -> None:
        self.reads = [0] * count

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        return sample(index)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def test_what_fits_into_memory_is_read_once() -> None:
    counted = Counted(4)
    examples = Examples(counted, labels)
    for _ in range(3):
        examples.batch(range(4))
    assert counted.reads == [1, 1, 1, 1]


def test_what_does_not_fit_is_read_again_and_is_the_same() -> None:
    counted = Counted(4)
    one = 4 * 5 * 4 + 2
    examples = Examples(counted, labels, in_memory=2 * one)
    whole = Examples(Counted(4), labels)
    for kept, again in zip(whole.batch(range(4)), examples.batch(range(4)), strict=True):
        assert torch.equal(kept, again)
    assert counted.reads == [1, 1, 2, 2]
    assert examples.fingerprint == whole.fingerprint


def test_targets_are_kept_even_of_images_that_do_not_fit() -> None:
    counted = Counted(4)
    examples = Examples(counted, labels, in_memory=4 * 5 * 4 + 4 * 2)
    assert np.array_equal(list(examples.targets()), [labels(sample(number)) for number in range(4)])
    assert counted.reads == [1, 1, 1, 1]
    assert torch.equal(examples.batch([0, 3])[0], Examples(Counted(4), labels).batch([0, 3])[0])
    assert counted.reads == [1, 1, 1, 2]


def test_targets_of_several_shapes_are_stacked_as_told() -> None:
    def longest(targets: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([np.resize(target, max(map(len, targets))) for target in targets])

    examples = Examples([sample(0), sample(1)], lambda one: np.arange(int(one.id[1:]) + 1), stack=longest)
    assert examples.batch([0, 1])[1].tolist() == [[0, 0], [0, 1]]


def test_the_fingerprint_knows_images_and_targets() -> None:
    prints = {
        Examples([sample(0), sample(1)], labels).fingerprint,
        Examples([sample(1), sample(0)], labels).fingerprint,
        Examples([sample(0)], labels).fingerprint,
        Examples([sample(0), sample(1)], lambda one: ~labels(one)).fingerprint,
    }
    assert len(prints) == 4


def test_nothing_to_learn_from() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        Examples([], labels)
