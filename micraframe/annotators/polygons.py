"""Simulates outlines drawn as polygons with few corners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from micraframe.annotators.annotate import outlined
from micraframe.interfaces import Annotator
from micraframe.objects import objects_of, windows
from micraframe.parameters import Parameters
from micraframe.types import IntArray, Sample, Work


@final
class Polygons(Annotator["Polygons.Params"]):
    """Outlines every object and its holes with polygons; each corner is one decision."""

    class Params(Parameters):
        tolerance: float = Field(
            2.0,
            ge=0,
            description="Largest distance of a polygon from the outline in pixels.",
            json_schema_extra={"in_label": True},
        )

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
        """Return the sample with its labels and the polygons' masks and instances.

        Raises:
            DataError: If the sample has neither masks nor instances.
        """
        objects = objects_of(sample)
        drawn, corners = polygons(objects, self.params.tolerance)
        return outlined(sample, objects, drawn, corners)


def polygons(instances: IntArray, tolerance: float) -> tuple[IntArray, int]:
    """Replace every object with its outlines, simplified (Douglas and Peucker 1973) and filled.

    Args:
        instances: int32 (K, H, W).
        tolerance: Largest distance of a polygon from the outline in pixels.

    Returns:
        int32 (K, H, W), with the same numbers, and the number of corners. Where polygons overlap, a pixel goes to its
        true object, or else to the object with the lowest number.
    """
    drawn = np.zeros_like(instances)
    corners = 0
    for labels, canvas in zip(instances, drawn, strict=True):
        for number, window in windows(labels):
            own, mine = labels[window] == number, canvas[window]
            outlines, _ = cv2.findContours(own.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            simple: Sequence[npt.NDArray[Any]] = [cv2.approxPolyDP(line, tolerance, closed=True) for line in outlines]
            # All at once, so that what lies inside two outlines is a hole.
            filled = cv2.fillPoly(np.zeros(own.shape, np.uint8), simple, 1) > 0
            mine[filled & (own | (mine == 0))] = number
            corners += sum(map(len, simple))
    return drawn, corners
