"""The control that always points at the centre of the image."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field

from micraframe.controls.control import Control, ControlParams
from micraframe.types import FloatArray


@final
class CentreBlob(Control["CentreBlob.Params"]):
    """A Gaussian in the middle of the image, stretched to its shape; the same map for all classes."""

    class Params(ControlParams):
        width: float = Field(0.25, gt=0, description="Sigma as a share of the image's height and width.")

    deterministic = True
    inference_params = frozenset({"presence", "width"})

    def draw(self, image: FloatArray, classes: int, seed: int) -> FloatArray:
        """Return the same Gaussian for every class."""
        height, width = image.shape[1:]
        return np.broadcast_to(centre_blob(height, width, self.params.width), (classes, height, width))


def centre_blob(height: int, width: int, share: float) -> FloatArray:
    """Return exp(-(y^2 / H^2 + x^2 / W^2) / (2 share^2)), float32 (H, W), with positions relative to the middle."""
    y, x = ((np.arange(length) - (length - 1) / 2) / (length * share) for length in (height, width))
    return np.exp(-(y[:, None] ** 2 + x**2) / 2).astype(np.float32)
