"""From score maps to one mask per class: what the heads that segment have in common."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field
from scipy import ndimage

from micraframe.errors import DataError
from micraframe.heads.presence import Decision, presence_thresholds
from micraframe.heads.regions import fill_holes, keep_maximum, remove_small
from micraframe.interfaces import Parameters
from micraframe.thresholds import Polarity, Rule, cut, foreground
from micraframe.types import BoolArray, FloatArray, ScoreMap, Status, Threshold

Region = Literal["none", "coarse", "foreground", "coarse-and-foreground"]


class MaskParams(Parameters):
    """The parameters of a head that segments."""

    decision: Decision = Field(0.5, description="Probability from which a class is present; one, or one per class.")
    smoothing: float = Field(0.0, ge=0, description="Sigma in pixels of the Gaussian over the score map; 0 is none.")
    rescale: Region = Field(
        "none",
        description="Bring these pixels' range of the score map to [0, 1] and clip the others: none, coarse (the "
        "deepest layer speaks for the class), foreground (Otsu of the image), coarse-and-foreground.",
    )
    region: Region = Field("none", description="Where a mask can be, and of which pixels its threshold is found.")
    polarity: Polarity = Field("bright", description="Which side of the image's Otsu is foreground; auto: the smaller.")
    threshold: Rule = Field(Rule(), description="What cuts the score map: otsu, triangle, percentile, fixed, ...")
    fill_holes: float = Field(0.0, ge=0, description="Fill holes of at most this many square pixels.")
    components: Literal["all", "maximum"] = Field(
        "all", description="Keep all components, or only the one with the map's maximum."
    )
    minimum_size: float = Field(0.0, ge=0, description="Drop components of fewer square pixels.")


class Segmentation(NamedTuple):
    """What was made of the score map of one class.

    Attributes:
        mask: bool (H, W).
        values: float32 (H, W): the score map after smoothing and rescaling.
        status: `ok`, or why the mask is blank.
    """

    mask: BoolArray
    values: FloatArray
    status: Status


def segment(
    values: FloatArray,
    coarse: FloatArray,
    status: Status,
    image: FloatArray,
    params: MaskParams,
    minus: FloatArray | None = None,
) -> Segmentation:
    """Segment one class: smooth, rescale, cut at a threshold, fill holes, choose components.

    Args:
        values: float32 (H, W), in [0, 1]: the class's score map.
        coarse: float32 (H, W), in [0, 1]: the deepest layer's map.
        status: What the combiner says of the map.
        image: float32 (C, H, W).
        params: How.
        minus: float32 (H, W): taken from the map before it is cut; what falls below 0 is 0.
    """
    values, contrast = scale(values, coarse, image, params)
    if minus is not None:
        values = np.maximum(values - minus, 0)
    mask = cut(values, coarse, params.threshold, _region(params.region, coarse, image, params.polarity))
    if params.fill_holes:
        mask = fill_holes(mask, params.fill_holes)
    if params.components == "maximum":
        mask = keep_maximum(mask, values)
    if params.minimum_size:
        mask = remove_small(mask, params.minimum_size)
    return Segmentation(mask, values, blank_status(mask, status if contrast else "constant"))


def scale(values: FloatArray, coarse: FloatArray, image: FloatArray, params: MaskParams) -> tuple[FloatArray, bool]:
    """Return a score map (H, W), smoothed and rescaled, and whether there was contrast to rescale by."""
    if params.smoothing:
        values = ndimage.gaussian_filter(values, params.smoothing)
    return _rescale(values, _region(params.rescale, coarse, image, params.polarity))


def blank_status(mask: BoolArray, status: Status) -> Status:
    """Return `ok` for a mask with pixels, else the map's status where that is the reason, else `empty`."""
    if mask.any():
        return "ok"
    return "empty" if status == "ok" else status


def place(score_map: ScoreMap, present: BoolArray) -> dict[int, int]:
    """Return for each present class the row of the score map that holds it.

    Raises:
        DataError: If the score map lacks a class that is present.
    """
    rows = {index: row for row, index in enumerate(score_map.classes)}
    missing = [int(index) for index in np.flatnonzero(present) if int(index) not in rows]
    if missing:
        raise DataError(
            f"classes {missing} are in the image, but the score map holds only {list(score_map.classes)}; "
            "ask for the classes that the head wants"
        )
    return {int(index): rows[int(index)] for index in np.flatnonzero(present)}


def mask_thresholds(params: MaskParams) -> tuple[Threshold, ...]:
    """Return the record of the thresholds that a head with these parameters uses."""
    rule = params.threshold
    value = rule.value if rule.name == "fixed" and rule.value is not None else np.nan
    return (*presence_thresholds(params.decision), Threshold("mask", value, rule=str(rule)))


def _region(region: Region, coarse: FloatArray, image: FloatArray, polarity: Polarity) -> BoolArray | None:
    if region == "none":
        return None
    if region == "coarse":
        return coarse > 0
    bright = foreground(image, polarity)
    return bright if region == "foreground" else bright & (coarse > 0)


def _rescale(values: FloatArray, where: BoolArray | None) -> tuple[FloatArray, bool]:
    """Bring the range of the values at `where` to [0, 1]; without contrast there, all become 0 and False is told."""
    if where is None:
        return values, True
    inside = values[where]
    low, high = (inside.min(), inside.max()) if inside.size else (0, 0)
    if not high > low:
        return np.zeros_like(values), False
    return np.clip((values - low) / (high - low), 0, 1), True
