"""An annotator: it simulates somebody who annotates less than everything."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import numpy as np

from micraframe.annotators.randomness import sample_generator
from micraframe.errors import DataError
from micraframe.interfaces import Annotator
from micraframe.parameters import Parameters
from micraframe.types import Annotation, Sample, Work


@final
class OneClick(Annotator[Parameters]):
    """Clicks on one random pixel of each class that is in the image."""

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
        """Return the sample with its labels and clicks, and the work: one decision per click.

        Raises:
            DataError: If the sample has no masks.
        """
        if sample.masks is None:
            raise DataError(f"sample {sample.id!r}: expected masks, got none; use a dataset that has them")
        generator = sample_generator(seed, sample.id)
        clicks = tuple(generator.permutation(np.argwhere(mask))[:1].astype(np.float32) for mask in sample.masks)
        number = sum(map(len, clicks))
        weaker = replace(sample.keep({Annotation.LABELS}), points=clicks)
        return weaker, Work("point", objects=number, decisions=number, judgements=len(clicks))
