"""Random numbers that depend on a seed and a sample's id only, not on the order of annotation."""

from __future__ import annotations

import numpy as np

from micraframe.runtime.files import digest


def sample_generator(seed: int, name: str) -> np.random.Generator:
    """Return the random generator of a sample."""
    return np.random.default_rng([seed, int(digest(name)[:16], 16)])
