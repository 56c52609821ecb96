"""Simulates image-level labels."""

from __future__ import annotations

from typing import final

from micraframe.errors import DataError
from micraframe.interfaces import Annotator
from micraframe.parameters import Parameters
from micraframe.types import Annotation, Sample, Work


@final
class ImageLevel(Annotator[Parameters]):
    """Records whether each class is present; each image or crop is one decision."""

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
        """Return the sample with its labels and nothing else.

        Raises:
            DataError: If the sample has no labels.
        """
        if sample.labels is None:
            raise DataError(f"sample {sample.id!r}: expected labels, got none; its dataset must provide them")
        return sample.keep({Annotation.LABELS}), Work("image-level", decisions=1, judgements=len(sample.labels))
