"""What the tests of heads share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from micraframe.registry import build
from micraframe.types import DatasetInfo, Normalisation, Prediction, Scores

Decide = Callable[..., Prediction]


@pytest.fixture
def decide() -> Decide:
    """Return a function that lets a built-in head decide on maps (M, H, W) and presence probabilities (K,)."""

    def decide(
        head: str,
        maps: Any,
        presence: list[float],
        *,
        coarse: Any = None,
        classes: tuple[int, ...] | None = None,
        status: tuple[Any, ...] = (),
        image: Any = None,
        contact: int | None = None,
        scale: float = 1.0,
        **params: Any,
    ) -> Prediction:
        maps = np.array(maps, np.float32)
        scores = Scores(
            np.array(presence, np.float32),
            tuple(range(len(maps))) if classes is None else classes,
            maps,
            status or ("ok",) * len(maps),
            None if coarse is None else np.array(coarse, np.float32),
        )
        names = tuple(f"class {index}" for index in range(len(presence)))
        roles = tuple("contact" if index == contact else "object" for index in range(len(presence)))
        info = DatasetInfo("heads", names, 1, Normalisation(), "0" * 64, roles=roles, scale=scale)
        if image is None:
            image = np.zeros((1, *maps.shape[1:]), np.float32)
        prediction = build("head", f"micraframe/{head}", **params).decide(scores, image, info)
        assert prediction.scores is scores
        return prediction

    return decide
