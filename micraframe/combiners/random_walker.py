"""Another combiner's map, continued from its confident pixels by a random walker on the image."""

from __future__ import annotations

import dataclasses
import warnings
from typing import final

import numpy as np
from pydantic import Field, NonNegativeFloat, model_validator
from skimage import segmentation

from micraframe import registry
from micraframe.combiners.layers import stretch
from micraframe.config import Choice, CombinerChoice
from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.thresholds import Probability
from micraframe.types import FloatArray, IntArray, Maps, Scores


@final
class RandomWalker(Combiner["RandomWalker.Params"]):
    """The probability that a random walker, which avoids edges of the image, reaches structure before background.

    Pixels where another combiner's map is confident are the seeds; between them, the image decides. It suits maps whose
    values mean the same in every image, such as those of combiner `evidence`.
    """

    class Params(Parameters):
        combiner: CombinerChoice = Field(
            Choice(name="micraframe/evidence"), description="The combiner whose map has the confident pixels."
        )
        beta: NonNegativeFloat = Field(90.0, description="How much the walker avoids edges; 0: the image is ignored.")
        high: Probability = Field(0.8, description="Pixels of the map from this value on are structure.")
        low: Probability = Field(0.2, description="Pixels of the map up to this value are background.")

        @model_validator(mode="after")
        def _low_is_below_high(self) -> RandomWalker.Params:
            if self.low >= self.high:
                raise ValueError(f"expected low below high, got low {self.low:g} and high {self.high:g}")
            return self

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self._combiner = registry.build("combiner", params.combiner.name, **params.combiner.params)

    def combine(self, maps: Maps, image: FloatArray) -> Scores:
        """Combine.

        A class without seeds of both kinds keeps the other combiner's map, as do all classes if the image has no
        contrast; `seeds` in the notes are the numbers of background and structure pixels. Statuses are the other
        combiner's.
        """
        inner = self._combiner.combine(maps, image)
        (flat,), (varies,) = stretch(image.reshape(1, 1, -1))
        if not varies:
            return inner
        refined, notes = inner.maps.copy(), []
        for index, values in enumerate(inner.maps):
            seeds = np.where(values >= self.params.high, 2, values <= self.params.low).astype(np.int32)
            counts = [int(np.count_nonzero(seeds == kind)) for kind in (1, 2)]
            if all(counts):
                refined[index] = random_walk(seeds, flat.reshape(image.shape), self.params.beta)
            notes.append({**(inner.notes[index] if inner.notes else {}), "seeds": counts})
        return dataclasses.replace(inner, maps=refined, notes=tuple(notes))


def random_walk(seeds: IntArray, image: FloatArray, beta: float) -> FloatArray:
    """Return the probability, float32 (H, W), that a walker from each pixel meets a seed of structure first.

    It moves between neighbours i and j with the weight

        w_ij = exp(-beta / (10 sigma sqrt(C)) sum_c (I_ci - I_cj)^2)

    where sigma is the standard deviation of the image. Grady, L. "Random walks for image segmentation". IEEE
    Transactions on Pattern Analysis and Machine Intelligence 28 (2006).

    Args:
        seeds: int32 (H, W): 1 is background, 2 structure, 0 neither; there is at least one of both.
        image: float32 (C, H, W), in [0, 1], with contrast.
        beta: Factor of the squared differences.
    """
    if seeds.all():
        return np.asarray(seeds == 2, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of probabilities just outside [0, 1], which are clipped
        reached = segmentation.random_walker(
            image.astype(np.float64), seeds, beta, return_full_prob=True, channel_axis=0
        )[1]
    return np.asarray(reached, np.float32).clip(0, 1)
