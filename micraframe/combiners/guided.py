"""A combiner's map, sharpened by the image that it explains."""

from __future__ import annotations

from typing import Literal, final

import cv2
import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import ndimage

from micraframe import registry
from micraframe.combiners.layers import check_size, stretch
from micraframe.config import Choice, CombinerChoice
from micraframe.interfaces import Combiner, Parameters
from micraframe.types import FloatArray, Maps, ScoreMap, Status

Polarity = Literal["auto", "bright", "dark"]


@final
class Guided(Combiner):
    """Another combiner's score map, made to follow the image: a map knows what is meant, the image where it ends."""

    class Params(Parameters):
        combiner: CombinerChoice = Field(
            Choice(name="pca", params={"weight": "coarse"}),
            description="Whose score map is sharpened; of layer-cam's maps, select or pca as they are do best.",
        )
        mode: Literal["intensity", "filter"] = Field(
            "intensity",
            description="intensity: multiply by the image's brightness or darkness; filter: let the map follow the "
            "image's edges, by the guided filter.",
        )
        polarity: Polarity = Field(
            "auto", description="Are structures bright or dark (intensity); auto asks the map where they are."
        )
        smoothing: NonNegativeFloat | None = Field(
            None,
            description="Sigma in pixels of the Gaussian over the map (intensity); by default half the deepest layer's "
            "stride, within which the map knows no place.",
        )
        exponent: PositiveFloat = Field(
            0.5, description="Of the smoothed map (intensity): below 1, the image decides more and the map less."
        )
        radius: PositiveInt | None = Field(
            None,
            description="Of the guided filter's window, in pixels (filter); by default the deepest layer's stride.",
        )
        epsilon: PositiveFloat = Field(
            1e-3, description="Variance of the image, whose range is 1, below which it guides nothing (filter)."
        )

    def __init__(self, params: Params) -> None:
        self.params = params
        self._combiner = registry.build("combiner", params.combiner.name, **params.combiner.params)

    def combine(self, maps: Maps, image: FloatArray) -> ScoreMap:
        """See `Combiner.combine`.

        Classes that the other combiner could not score keep their status, and are 0. An image without contrast guides
        nothing: the score map is the other combiner's.
        """
        check_size(maps, image)
        params = self.params
        inner = self._combiner.combine(maps, image)
        stride = maps.layers[-1].stride
        sigma = stride / 2 if params.smoothing is None else params.smoothing
        (guide,), (guides,) = stretch(image.mean(0)[None])
        if not guides:
            return inner
        sharpened = np.zeros_like(inner.values)
        notes = []
        for index, values in enumerate(inner.values):
            note = dict(inner.notes[index]) if inner.notes else {}
            if params.mode == "intensity":
                likely, note["dark"] = foreground(guide, values, params.polarity)
                sharpened[index] = ndimage.gaussian_filter(values, sigma) ** params.exponent * likely
            else:
                sharpened[index] = guided_filter(values, guide, params.radius or stride, params.epsilon)
            notes.append(note)
        sharpened, contrast = stretch(sharpened)
        status: list[Status] = [
            "constant" if was == "ok" and not varies else was
            for was, varies in zip(inner.status, contrast, strict=True)
        ]
        return ScoreMap(inner.classes, sharpened, inner.coarse, tuple(status), tuple(notes))


def foreground(guide: FloatArray, values: FloatArray, polarity: Polarity) -> tuple[FloatArray, bool]:
    """Return how much each pixel looks like structure, float32 (H, W) in [0, 1], and whether structures are dark.

    Args:
        guide: float32 (H, W), in [0, 1].
        values: float32 (H, W): the score map; under `auto`, structures are dark if it correlates negatively with the
            image.
        polarity: Of the structures.
    """
    dark = polarity == "dark"
    if polarity == "auto":
        dark = bool(((guide - guide.mean()) * values).sum() < 0)
    return (1 - guide if dark else guide), dark


def guided_filter(values: FloatArray, guide: FloatArray, radius: int, epsilon: float) -> FloatArray:
    """Return values (H, W), smoothed but for the edges of the guide (H, W).

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
