"""A combiner's map, refined against the image."""

from __future__ import annotations

import dataclasses
from typing import Literal, final

import cv2
import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import ndimage

from micraframe import registry
from micraframe.combiners.layers import refined_status, stretch
from micraframe.config import Choice, CombinerChoice
from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.thresholds import Polarity
from micraframe.types import FloatArray, Maps, Scores


@final
class Guided(Combiner["Guided.Params"]):
    """Another combiner's map, refined by the image: the map shows where a structure is, the image where it ends."""

    class Params(Parameters):
        combiner: CombinerChoice = Field(
            Choice(name="micraframe/pca", params={"weight": "coarse"}),
            description="The combiner whose map is refined; use plain select or pca with layer-cam.",
        )
        mode: Literal["intensity", "filter"] = Field(
            "intensity",
            description="intensity: multiply by the image's brightness or darkness; filter: align the map with the "
            "image's edges by the guided filter.",
        )
        polarity: Polarity = Field(
            "auto", description="Whether structures are bright or dark (intensity); auto decides by the map."
        )
        smoothing: NonNegativeFloat | None = Field(
            None,
            description="Sigma in pixels of the Gaussian over the map (intensity); by default half the deepest layer's "
            "stride, which is the map's resolution.",
        )
        exponent: PositiveFloat = Field(
            0.5, description="Exponent of the smoothed map (intensity); values below 1 give the image more weight."
        )
        radius: PositiveInt | None = Field(
            None,
            description="Radius of the guided filter in pixels (filter); by default the deepest layer's stride.",
        )
        epsilon: PositiveFloat = Field(
            1e-3, description="Variance below which the image, scaled to [0, 1], counts as flat (filter)."
        )

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self._combiner = registry.build("combiner", params.combiner.name, **params.combiner.params)

    def combine(self, maps: Maps, image: FloatArray) -> Scores:
        """Combine.

        Classes without a map keep the status from the other combiner. If the image has no contrast, the other
        combiner's result is returned.
        """
        params = self.params
        inner = self._combiner.combine(maps, image)
        stride = maps.layers[-1].stride
        sigma = stride / 2 if params.smoothing is None else params.smoothing
        (guide,), (varies,) = stretch(image.mean(0)[None])
        if not varies:
            return inner
        refined = np.zeros_like(inner.maps)
        notes = []
        for index, values in enumerate(inner.maps):
            note = dict(inner.notes[index]) if inner.notes else {}
            if params.mode == "intensity":
                likely, note["dark"] = likely_foreground(guide, values, params.polarity)
                refined[index] = ndimage.gaussian_filter(values, sigma) ** params.exponent * likely
            else:
                refined[index] = guided_filter(values, guide, params.radius or stride, params.epsilon)
            notes.append(note)
        refined, contrast = stretch(refined)
        status = refined_status(inner.status, contrast)
        return dataclasses.replace(inner, maps=refined, status=status, notes=tuple(notes))


def likely_foreground(guide: FloatArray, values: FloatArray, polarity: Polarity) -> tuple[FloatArray, bool]:
    """Return how much each pixel looks like structure, float32 (H, W) in [0, 1], and whether structures are dark.

    Args:
        guide: float32 (H, W), in [0, 1].
        values: float32 (H, W): the map; under `auto`, structures are dark if it correlates negatively with the image.
        polarity: Polarity of the structures.
    """
    dark = polarity == "dark"
    if polarity == "auto":
        dark = bool(((guide - guide.mean()) * values).sum() < 0)
    return (1 - guide if dark else guide), dark


def guided_filter(values: FloatArray, guide: FloatArray, radius: int, epsilon: float) -> FloatArray:
    """Return values (H, W), smoothed except across the edges of the guide (H, W).

    In each window w of (2 radius + 1)^2 pixels, values p become linear in the guide I, and windows are averaged:

        q_i = mean_w(a) I_i + mean_w(b),  a = cov_w(I, p) / (var_w(I) + epsilon),  b = mean_w(p) - a mean_w(I)

    He, K., Sun, J. and Tang, X. "Guided image filtering". IEEE Transactions on Pattern Analysis and Machine
    Intelligence 35 (2013).
    """

    def mean(x: FloatArray) -> FloatArray:
        window = cv2.boxFilter(x, -1, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)
        return np.asarray(window, np.float32)

    mean_guide, mean_values = mean(guide), mean(values)
    slope = (mean(guide * values) - mean_guide * mean_values) / (mean(guide * guide) - mean_guide**2 + epsilon)
    offset = mean_values - slope * mean_guide
    filtered: FloatArray = mean(slope) * guide + mean(offset)
    return filtered
