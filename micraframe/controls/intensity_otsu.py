"""The control that thresholds the image itself."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field

from micraframe.controls.control import Control, ControlParams
from micraframe.thresholds import Polarity, foreground
from micraframe.types import FloatArray


@final
class IntensityOtsu(Control["IntensityOtsu.Params"]):
    """The image's intensities (mean over channels) as the map of every class, for the head's Otsu threshold."""

    class Params(ControlParams):
        polarity: Polarity = Field(
            "auto", description="Whether structures are bright or dark; auto: the one that covers less of each image."
        )

    deterministic = True
    inference_params = frozenset({"presence", "polarity"})

    def draw(self, image: FloatArray, classes: int, seed: int) -> FloatArray:
        """Return the intensity, scaled to [0, 1] so that structures are high, for every class."""
        values = intensity_map(image, self.params.polarity)
        return np.broadcast_to(values, (classes, *values.shape))


def intensity_map(image: FloatArray, polarity: Polarity) -> FloatArray:
    """Return the intensity of an image (C, H, W), float32 (H, W), in [0, 1], structures high; 0 without contrast."""
    intensity = image.mean(axis=0, dtype=np.float32)
    low, high = intensity.min(), intensity.max()
    if not high > low:
        return np.zeros_like(intensity)
    values = np.clip((intensity - low) / (high - low), 0, 1)
    if polarity == "auto":
        polarity = "bright" if foreground(image, "auto")[intensity == high].any() else "dark"
    return np.asarray(values if polarity == "bright" else 1 - values)
