"""Simulates outlines that are too wide by the same margin."""

from __future__ import annotations

from typing import final

import cv2
import numpy as np
from pydantic import Field

from micraframe.annotators.annotate import outlined
from micraframe.interfaces import Annotator
from micraframe.objects import edge_pixels, objects_of
from micraframe.parameters import Parameters
from micraframe.types import IntArray, Sample, Work


@final
class Dilated(Annotator["Dilated.Params"]):
    """Outlines every object, dilated by a square: the coarse masks of MNIST in Bilodeau et al. (2022)."""

    class Params(Parameters):
        size: int = Field(
            5,
            ge=1,
            description="Side of the square in pixels; 5, 10 and 25 in the paper.",
            json_schema_extra={"in_label": True},
        )

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
        """Return the sample with its labels and the dilated masks and instances.

        Raises:
            DataError: If the sample has neither masks nor instances.
        """
        objects = objects_of(sample)
        wider = dilate(objects, self.params.size)
        return outlined(sample, objects, wider, edge_pixels(wider))


def dilate(instances: IntArray, size: int) -> IntArray:
    """Dilate each object by a square of `size` pixels.

    Args:
        instances: int32 (K, H, W).
        size: Side of the square; an even one dilates by one pixel more downwards and to the right.

    Returns:
        int32 (K, H, W). An object keeps its own pixels; a pixel that several objects claim goes to the one with
        the highest number.
    """
    square = np.ones((size, size), np.uint8)
    wider = np.empty_like(instances)
    for labels, output in zip(instances, wider, strict=True):
        # OpenCV does not dilate int32; a double represents every one of them.
        output[...] = cv2.dilate(labels.astype(np.float64), square)
    return np.where(instances > 0, instances, wider)
