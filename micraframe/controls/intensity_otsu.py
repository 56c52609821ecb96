"""The control that thresholds the image itself."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field

from micraframe.controls.guess import Guess, GuessParams
from micraframe.thresholds import Polarity, Rule, foreground
from micraframe.types import FloatArray


@final
class IntensityOtsu(Guess):
    """Otsu's threshold of the image's own intensities (mean over the channels); one mask for all classes claimed."""

    name = "intensity-otsu"
    decided_after = frozenset({"presence", "polarity"})

    class Params(GuessParams):
        polarity: Polarity = Field(
            "auto", description="Are structures bright or dark; auto: what covers less of each image."
        )

    def __init__(self, params: Params) -> None:
        self.params: IntensityOtsu.Params = params

    def draw(self, image: FloatArray, classes: int, seed: int) -> FloatArray:
        """Return the intensity, brought to [0, 1] so that structures are high, for every class."""
        values = intensity_map(image, self.params.polarity)
        return np.broadcast_to(values, (classes, *values.shape))

    def rule(self) -> Rule:
        """Return Otsu's rule."""
        return Rule(name="otsu")


def intensity_map(image: FloatArray, polarity: Polarity) -> FloatArray:
    """Return the intensity of an image (C, H, W), float32 (H, W), from 0 to 1, structures high; 0 without contrast."""
    intensity = image.mean(axis=0, dtype=np.float32)
    low, high = intensity.min(), intensity.max()
    if not high > low:
        return np.zeros_like(intensity)
    values = np.clip((intensity - low) / (high - low), 0, 1)
    if polarity == "auto":
        polarity = "bright" if foreground(image, "auto")[intensity == high].any() else "dark"
    return np.asarray(values if polarity == "bright" else 1 - values)
