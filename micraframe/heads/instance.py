"""The head that tells the objects of a class apart."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from pydantic import Field

from micraframe.errors import ConfigError
from micraframe.heads.masks import MaskParams, blank_status, mask_thresholds, place, scale, segment
from micraframe.heads.presence import decide_presence
from micraframe.heads.regions import drop_small, split_touching
from micraframe.interfaces import Head
from micraframe.objects import components
from micraframe.thresholds import Rule
from micraframe.types import FloatArray, Prediction, ScoreMap, Status


@final
class Instance(Head):
    """Objects one by one: object minus contact, as the MICRA-Net paper separates touching cells.

    With S the map of a class and C the map of the class that says where objects touch, objects are the components of
    max(S - C, 0) above a threshold. The contact class itself, where it is in the image, is segmented from its own map.
    """

    class Params(MaskParams):
        threshold: Rule = Field(
            Rule(nonzero=True), description="What cuts the map, after the contact map is taken off."
        )
        contact: int | None = Field(
            None,
            ge=0,
            description="Index of the class that says where objects touch; none where there is no such class.",
        )
        contact_map: Literal["coarse", "values"] = Field(
            "coarse",
            description="Which of its maps is taken off: the deepest layer's (the paper's) or the combined one.",
        )
        split: Literal["components", "watershed"] = Field(
            "components", description="Objects are components, or are cut further where they are narrow (watershed)."
        )
        distance: int = Field(
            5, ge=1, description="Least distance in pixels of the middles that watershed cuts between."
        )

    def __init__(self, params: Params) -> None:
        self.params = params

    def wanted(self, scores: FloatArray) -> tuple[int, ...]:
        """Return the classes that are in the image, the contact class among them.

        Raises:
            ConfigError: If there is no class of the contact class's index.
        """
        if self.params.contact is not None and self.params.contact >= len(scores):
            raise ConfigError(f"contact class {self.params.contact} of {len(scores)} classes; indices count from 0")
        return tuple(int(index) for index in np.flatnonzero(decide_presence(scores, self.params.decision)))

    def decide(self, score_map: ScoreMap, scores: FloatArray, image: FloatArray) -> Prediction:
        """Return objects and masks of all K classes, and why those are blank that are.

        Raises:
            DataError: If the score map lacks a class that is in the image.
        """
        present = decide_presence(scores, self.params.decision)
        rows = place(score_map, present)
        contact = self._contact(score_map, rows, image)
        instances = np.zeros((len(scores), *score_map.values.shape[1:]), np.int32)
        status: list[Status] = ["absent"] * len(scores)
        for index, row in rows.items():
            mask, _, why = segment(
                score_map.values[row],
                score_map.coarse[row],
                score_map.status[row],
                image,
                self.params,
                minus=None if index == self.params.contact else contact,
            )
            if self.params.split == "watershed":
                labels = split_touching(mask, self.params.distance)
            else:
                labels = components(mask[None])[0]
            instances[index] = drop_small(labels, self.params.minimum_size)
            status[index] = blank_status(instances[index] > 0, why)
        return Prediction(
            scores=np.asarray(scores, np.float32),
            present=present,
            masks=instances > 0,
            instances=instances,
            status=tuple(status),
            thresholds=mask_thresholds(self.params),
        )

    def _contact(self, score_map: ScoreMap, rows: dict[int, int], image: FloatArray) -> FloatArray | None:
        """Return what is taken off the other classes' maps; nothing where no contact is in the image."""
        if self.params.contact is None or self.params.contact not in rows:
            return None
        row = rows[self.params.contact]
        coarse: FloatArray = score_map.coarse[row]
        if self.params.contact_map == "coarse":
            return coarse
        return scale(score_map.values[row], coarse, image, self.params)[0]
