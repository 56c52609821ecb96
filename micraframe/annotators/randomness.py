"""Chance that depends on a seed and a sample's name only, whatever else was annotated before."""

from __future__ import annotations

import numpy as np

from micraframe.files import digest


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the generator of a sample."""
    return np.random.default_rng([seed, int(digest(name)[:16], 16)])
