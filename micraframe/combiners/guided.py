"""A combiner's map, sharpened by the image that it explains."""

from __future__ import annotations

from typing import Literal, final

import cv2
import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from micraframe import registry
from micraframe.combiners.layers import check_size, stretch
from micraframe.config import Choice, CombinerChoice
from micraframe.interfaces import Combiner, Parameters
from micraframe.types import FloatArray, Maps, ScoreMap

Polarity = Literal["auto", "bright", "dark"]


@final
class Guided(Combiner):
    """Another combiner's score map, made to follow the image: a map knows what is meant, the image where it ends."""

    class Params(Parameters):
        combiner: CombinerChoice = Field(Choice(name="select"), description="Whose score map is sharpened.")
        mode: Literal["intensity", "filter"] = Field(
            "intensity",
            description="intensity: multiply by the image's brightness or darkness; filter: let the map follow the "
            "image's edges, by the guided filter.",
        )
        polarity: Polarity = Field(
            "auto",
            description="Are structures bright or dark (intensity); auto asks the map where they are.",
        )
        radius: PositiveInt = Field(8, description="Of the guided filter's window, in pixels (filter).")
        epsilon: PositiveFloat = Field(
            1e-3, description="Variance of the image, whose range is 1, below which it guides nothing (filter)."
        )

    def __init__(self, params: Params) -> None:
        self.params = params

    def combine(self, maps: Maps, image: FloatArray) -> ScoreMap:
        """See `Combiner.combine`. Classes that the other combiner could not score keep their status, and are 0."""
        check_size(maps, image)
        params = self.params
        inner = registry.build("combiner", params.combiner.name, **params.combiner.params).combine(maps, image)
        guide = stretch(image.mean(0)[None])[0][0]
        sharpened, notes = [], []
        for index, values in enumerate(inner.values):
            note = dict(inner.notes[index]) if inner.notes else {}
            if params.mode == "intensity":
                likely, dark = foreground(guide, values, params.polarity)
                sharpened.append(values * likely)
                note["dark"] = dark
            else:
                sharpened.append(guided_filter(values, guide, params.radius, params.epsilon))
            notes.append(note)
        whole = np.asarray(sharpened, np.float32).reshape(inner.values.shape)
        # Zeros stay zeros: of a class that could not be scored there is nothing to sharpen.
        return ScoreMap(inner.classes, np.clip(whole, 0, 1), inner.coarse, inner.status, tuple(notes))


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
