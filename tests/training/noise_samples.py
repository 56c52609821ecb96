"""Samples of noise with random labels, also for tests' child processes."""

import numpy as np

from micraframe.types import Sample


def make_samples(count: int, start: int = 0) -> list[Sample]:
    def make(number: int) -> Sample:
        rng = np.random.default_rng(number)
        return Sample(f"s{number}", rng.random((1, 16, 11), dtype=np.float32), labels=rng.random(2) > 0.5)

    return [make(number) for number in range(start, start + count)]
