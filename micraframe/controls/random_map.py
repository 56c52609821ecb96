"""The control that points at random places."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field
from scipy import ndimage

from micraframe.controls.control import Control, ControlParams
from micraframe.runtime.files import digest
from micraframe.types import FloatArray


@final
class RandomMap(Control["RandomMap.Params"]):
    """Smooth noise, different for every image and class, determined by the seed and the image."""

    class Params(ControlParams):
        smoothing: float = Field(8.0, ge=0, description="Sigma in pixels of the Gaussian that smooths the noise.")

    inference_params = frozenset({"presence", "smoothing"})

    def draw(self, image: FloatArray, classes: int, seed: int) -> FloatArray:
        """Return a random map for each class."""
        return random_maps(image, classes, seed, self.params.smoothing)


def random_maps(image: FloatArray, classes: int, seed: int, smoothing: float) -> FloatArray:
    """Return smooth noise, float32 (K, H, W), each map from 0 to 1, determined by the seed and the image's content."""
    # By content and not by position in a batch: an image's maps do not depend on the other images.
    key = digest(str(seed), str(image.shape), np.ascontiguousarray(image).tobytes())
    noise = np.random.default_rng(int(key, 16)).standard_normal((classes, *image.shape[1:]), dtype=np.float32)
    if smoothing:
        noise = ndimage.gaussian_filter(noise, smoothing, axes=(1, 2))
    noise -= noise.min(axis=(1, 2), keepdims=True)
    top = noise.max(axis=(1, 2), keepdims=True)
    return np.asarray(noise / np.where(top > 0, top, 1))
