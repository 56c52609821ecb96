"""The annotator who answers yes or no for each class."""

from __future__ import annotations

from typing import final

from pydantic import Field

from micraframe.annotators.costs import Pricing
from micraframe.errors import DataError
from micraframe.interfaces import Annotator, Parameters
from micraframe.types import Annotation, Cost, Sample


@final
class ImageLevel(Annotator):
    """Says of each class whether it is in the image: one decision for an image or crop."""

    class Params(Parameters):
        cost: Pricing = Field(Pricing(), description="What it costs.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Cost]:
        """Return the sample with its labels and nothing else, and what they cost.

        Raises:
            DataError: If the sample has no labels.
        """
        if sample.labels is None:
            raise DataError(f"sample {sample.id!r} has no labels, which its dataset must give")
        return sample.keep({Annotation.LABELS}), self.params.cost.cost("image_level", 1, 0)
