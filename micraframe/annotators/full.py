"""Simulates exact outlines."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from micraframe.interfaces import Annotator
from micraframe.objects import count, edge_pixels, objects_of
from micraframe.parameters import Parameters
from micraframe.types import Annotation, Sample, Work


@final
class Full(Annotator[Parameters]):
    """Outlines every object: masks, and instances if the dataset has them; each edge pixel is one decision."""

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
        """Return the sample with its labels, masks and instances.

        Raises:
            DataError: If the sample has neither masks nor instances.
        """
        objects = objects_of(sample)
        kept = sample.keep({Annotation.LABELS, Annotation.MASKS, Annotation.INSTANCES})
        masks = objects > 0 if sample.masks is None else sample.masks
        work = Work("outline", objects=count(objects), decisions=edge_pixels(objects), judgements=len(objects))
        return replace(kept, masks=masks), work
