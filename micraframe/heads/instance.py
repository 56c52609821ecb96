"""The head that separates the objects of a class."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from pydantic import Field

from micraframe.heads.masks import (
    MaskParams,
    coarse_or_combined,
    mask_status,
    minimum_area,
    predict_masks,
    scale,
    segment,
)
from micraframe.heads.regions import drop_small, split_touching
from micraframe.interfaces import Head
from micraframe.objects import components
from micraframe.thresholds import ThresholdRule
from micraframe.types import DatasetInfo, FloatArray, IntArray, Prediction, Scores


@final
class InstanceHead(Head["InstanceHead.Params"]):
    """Separate objects: object minus contact, as the MICRA-Net paper separates touching cells.

    With S the map of a class and C the map of the dataset's contact class, the objects are the connected components of
    max(S - C, 0) above a threshold. The contact class itself, where it is in the image, is segmented from its own map.
    """

    class Params(MaskParams):
        mask_threshold: ThresholdRule = Field(
            ThresholdRule(nonzero=True), description="Threshold of the map, after the contact map is subtracted."
        )
        contact_map: Literal["coarse", "combined", "none"] = Field(
            "coarse",
            description="Which map of the contact class is subtracted: the deepest layer's (the paper's; of a model "
            "without layers, the combined one); the combined one, smoothed and rescaled as all are; or none.",
        )
        split: Literal["components", "watershed"] = Field(
            "components", description="Objects are connected components, or these cut at their necks (watershed)."
        )
        distance: int = Field(
            5, ge=1, description="Minimum distance in pixels between the centres that watershed starts from."
        )

    def decide(self, scores: Scores, image: FloatArray, info: DatasetInfo) -> Prediction:
        """Return the objects and the mask of every class, with the reason where there are none.

        Raises:
            DataError: If the scores have no map of a class that is in the image.
        """
        present = self.present(scores.presence)
        subtracts = "contact" in info.roles and self.params.contact_map != "none"
        contact = info.roles.index("contact") if subtracts else None
        minus = None if contact is None or not present[contact] else self._contact(scores, contact, image)
        least = minimum_area(self.params, info)
        instances = np.zeros((len(present), *scores.size), np.int32)
        found = {}
        for index in np.flatnonzero(present).tolist():
            whole = segment(scores, index, image, self.params, least, None if index == contact else minus)
            if self.params.split == "watershed":
                labels: IntArray = split_touching(whole.mask, self.params.distance)
            else:
                labels = components(whole.mask[None])[0]
            instances[index] = drop_small(labels, least)
            mask = instances[index] > 0
            found[index] = whole._replace(mask=mask, status=mask_status(mask, whole.status))
        return predict_masks(scores, present, found, self.params, instances=instances)

    def _contact(self, scores: Scores, index: int, image: FloatArray) -> FloatArray:
        """Return the map that is subtracted from those of the other classes, float32 (H, W)."""
        if self.params.contact_map == "coarse":
            return coarse_or_combined(scores, index)
        return scale(scores, index, image, self.params)[0]
