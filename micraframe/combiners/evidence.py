"""Logits as probabilities."""

from __future__ import annotations

from typing import final

from pydantic import Field
from scipy.special import expit

from micraframe.combiners.layers import sign_status
from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.types import FloatArray, Maps, Scores
from micraframe.upsampling import Interpolation, upsample


@final
class EvidenceProbability(Combiner["EvidenceProbability.Params"]):
    """The probability of the class at each pixel: the sigmoid of the last layer's map, which holds logits.

    It suits extractor `evidence`. Nothing is scaled by the image's own range, so that a fixed threshold means the same
    in every image: `mask_threshold: {name: fixed, value: 0.5}` is a logit of 0.
    """

    class Params(Parameters):
        interpolation: Interpolation = Field(
            "bilinear",
            description="From cells to pixels, of logits: bilinear or nearest.",
        )

    def combine(self, maps: Maps, image: FloatArray) -> Scores:
        """Combine. A class is `empty` if its map is 0, `negative` if nothing in it is positive."""
        logits = upsample(maps.maps[-1], maps.size, maps.layers[-1].stride, self.params.interpolation)
        return Scores(maps.presence, maps.classes, expit(logits), tuple(map(sign_status, maps.maps[-1])))
