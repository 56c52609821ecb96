"""The annotator who outlines everything exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from pydantic import Field

from micraframe.annotators.costs import Pricing
from micraframe.interfaces import Annotator, Parameters
from micraframe.objects import count, edge_pixels, objects_of
from micraframe.types import Annotation, Cost, Sample


@final
class Full(Annotator):
    """Outlines every object: masks, and instances where the dataset knows them; one decision for each edge pixel."""

    class Params(Parameters):
        cost: Pricing = Field(Pricing(), description="What it costs.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Cost]:
        """Return the sample with its labels, masks and instances, and what they cost.

        Raises:
            DataError: If the sample has neither masks nor instances.
        """
        objects = objects_of(sample)
        kept = sample.keep({Annotation.LABELS, Annotation.MASKS, Annotation.INSTANCES})
        masks = objects > 0 if sample.masks is None else sample.masks
        return replace(kept, masks=masks), self.params.cost.cost("outline", edge_pixels(objects), count(objects))
