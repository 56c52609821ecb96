"""The annotator whose outlines are all too wide."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import cv2
import numpy as np
from pydantic import Field

from micraframe.annotators.costs import Pricing
from micraframe.interfaces import Annotator, Parameters
from micraframe.objects import count, edge_pixels, objects_of
from micraframe.types import Annotation, Cost, IntArray, Sample


@final
class Dilated(Annotator):
    """Outlines every object dilated by a square: the paper's coarse masks of MNIST (Bilodeau et al. 2022)."""

    class Params(Parameters):
        size: int = Field(
            5,
            ge=1,
            description="Edge of the square in pixels; the paper's 5, 10, 25.",
            json_schema_extra={"in_label": True},
        )
        cost: Pricing = Field(Pricing(), description="What it costs.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Cost]:
        """Return the sample with its labels and the dilated masks and instances, and what they cost.

        Raises:
            DataError: If the sample has neither masks nor instances.
        """
        objects = objects_of(sample)
        wider = dilate(objects, self.params.size)
        kept = sample.keep({Annotation.LABELS, Annotation.MASKS, Annotation.INSTANCES})
        return (
            replace(kept, masks=wider > 0, instances=wider),
            self.params.cost.cost("outline", edge_pixels(wider), count(objects)),
        )


def dilate(instances: IntArray, size: int) -> IntArray:
    """Dilate each object by a square of `size` pixels.

    Args:
        instances: int32 (K, H, W).
        size: Edge of the square; where it is even, the square reaches one pixel further down and right.

    Returns:
        int32 (K, H, W). An object keeps its own pixels; one that several would gain goes to that with the highest
        number.
    """
    square = np.ones((size, size), np.uint8)
    wider = np.empty_like(instances)
    for labels, output in zip(instances, wider, strict=True):
        # OpenCV takes no int32; a double holds every one of them.
        output[...] = cv2.dilate(labels.astype(np.float64), square)
    return np.where(instances > 0, instances, wider)
