"""Simulates bounding boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from pydantic import Field

from micraframe.interfaces import Annotator
from micraframe.objects import boxes_of, fill
from micraframe.parameters import Parameters
from micraframe.types import Annotation, Sample, Work


@final
class Boxes(Annotator["Boxes.Params"]):
    """Draws the bounding box of every object; each box is one decision."""

    class Params(Parameters):
        filled: bool = Field(
            False, description="Also provide the filled boxes as masks, for methods that learn from masks only."
        )

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
        """Return the sample with its labels and boxes.

        Raises:
            DataError: If the sample has no masks, instances or boxes.
        """
        boxes = boxes_of(sample)
        height, width = sample.image.shape[1:]
        masks = fill(boxes, (height, width)) if self.params.filled else None
        drawn = sum(map(len, boxes))
        return (
            replace(sample.keep({Annotation.LABELS}), boxes=boxes, masks=masks),
            Work("box", objects=drawn, decisions=drawn, judgements=len(boxes)),
        )
