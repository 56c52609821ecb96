"""Simulates scribbles in objects and in the background."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

import cv2
import numpy as np
from pydantic import Field

from micraframe.annotators.randomness import sample_generator
from micraframe.interfaces import Annotator
from micraframe.objects import objects_of
from micraframe.parameters import Parameters
from micraframe.types import Annotation, BoolArray, Sample, Work


@final
class Scribbles(Annotator["Scribbles.Params"]):
    """Draws strokes inside objects and in the background; all other pixels stay unannotated (`Sample.ignore`).

    Each stroke is one decision. A class that is present gets at least one stroke. An image without objects gets no
    strokes; it is judged empty, and all of its pixels are background.
    """

    class Params(Parameters):
        share: float = Field(0.5, gt=0, le=1, description="Share of each class's objects that get a stroke.")
        background: int = Field(3, ge=0, description="Number of strokes in the background of an image.")
        length: int = Field(20, ge=1, description="Length of a stroke in pixels, if there is room.")
        width: int = Field(2, ge=1, description="Width of a stroke in pixels.")

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
        """Return the sample with its labels and the strokes, as masks and `ignore`.

        Raises:
            DataError: If the sample has neither masks nor instances.
        """
        params = self.params
        rng = sample_generator(seed, sample.id)
        objects = objects_of(sample)
        masks = objects > 0
        allowed = sample.counted
        regions = []
        for labels in objects:
            numbers = np.unique(labels[labels > 0])
            chosen = rng.permutation(numbers)[: math.ceil(params.share * len(numbers))]
            regions += [(labels == number) & allowed for number in np.sort(chosen)]
        regions = [region for region in regions if region.any()]
        if regions:
            background = ~masks.any(axis=0) & allowed
            regions += [background] * params.background if background.any() else []
            drawn = np.zeros(masks.shape[1:], np.bool_)
        else:
            drawn = allowed
        for region in regions:
            drawn |= stroke(region, params.length, params.width, rng)
        kept = sample.keep({Annotation.LABELS})
        return (
            replace(kept, masks=masks & drawn, ignore=~drawn),
            Work("scribble", objects=len(regions), decisions=len(regions), judgements=len(masks)),
        )


def stroke(region: BoolArray, length: int, width: int, rng: np.random.Generator) -> BoolArray:
    """Draw a random stroke within a region.

    It begins at a random pixel, away from the region's edge if there is room, and ends early if it is stuck.

    Args:
        region: bool (H, W), not empty.
        length: Largest number of steps of one pixel.
        width: Width of the stroke in pixels.
        rng: Random generator.

    Returns:
        bool (H, W), at least one pixel.
    """
    depth = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    # At least half the stroke's width from the edge, or as far as the region allows.
    deep = np.flatnonzero(depth >= min(float(depth.max()), max(1.0, width / 2)))
    position = np.array(np.unravel_index(rng.choice(deep), region.shape), float)
    angle = rng.uniform(0, 2 * math.pi)
    path = [position]
    for _ in range(length):
        for turn in (0.2, 0.5, 1.0, 2.0):
            turned = angle + rng.normal(0, turn)
            ahead = position + np.array([math.sin(turned), math.cos(turned)])
            y, x = np.rint(ahead).astype(int)
            if 0 <= y < region.shape[0] and 0 <= x < region.shape[1] and region[y, x]:
                break
        else:
            break
        position, angle = ahead, turned
        path.append(position)
    line = np.rint(np.array(path)).astype(np.int32)
    drawn = np.zeros(region.shape, np.uint8)
    cv2.polylines(drawn, [line[:, None, ::-1]], isClosed=False, color=1, thickness=width)
    # OpenCV does not draw a line of a single point.
    drawn[tuple(line.T)] = 1
    return (drawn > 0) & region
