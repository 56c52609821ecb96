"""From scores to one mask per class: what the heads that segment share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field
from scipy import ndimage

from micraframe.errors import ConfigError
from micraframe.heads.regions import fill_holes, keep_maximum, remove_small
from micraframe.interfaces import MaskHeadParams
from micraframe.thresholds import Polarity, cut, foreground, presence_records
from micraframe.types import BoolArray, DatasetInfo, FloatArray, IntArray, Prediction, Scores, Status, Threshold

Region = Literal["none", "coarse", "foreground", "coarse-and-foreground"]

Size = Annotated[float, Field(ge=0)] | Literal["auto"]
"""A number, or `auto`, for which training and `tune` find one: see `micraframe.heads.sizes`."""


class MaskParams(MaskHeadParams):
    """The parameters of a head that segments maps."""

    smoothing: Size = Field(
        0.0,
        description="Sigma of a Gaussian filter over the map, in pixels of the map; 0 for none. auto: a tenth of the "
        "diameter of the median object, as training or tune finds it.",
    )
    rescale: Region = Field(
        "none",
        description="Map the range of the values in this region to [0, 1] and clip the others: none, coarse (where the "
        "deepest layer's map is above 0; of a model without layers, the map itself), foreground (Otsu of the image), "
        "coarse-and-foreground.",
    )
    smoothing_after: float = Field(
        0.0, ge=0, description="Sigma in pixels of another Gaussian filter, after rescaling; 0 for none."
    )
    region: Region = Field(
        "none", description="Region whose pixels determine the threshold; the mask is confined to it."
    )
    polarity: Polarity = Field(
        "bright",
        description="Side of the image's Otsu threshold that is foreground: bright, dark, or auto (the smaller).",
    )
    fill_holes: float = Field(0.0, ge=0, description="Fill holes of at most this many square pixels.")
    components: Literal["all", "maximum"] = Field(
        "all", description="Keep all connected components, or only the one that holds the map's maximum."
    )
    minimum_size: Size = Field(
        0.0,
        description="Remove components of fewer square pixels, counted in the image file, before the dataset's "
        "`scale`. auto: a quarter of the median object, as training or tune finds it.",
    )


class Segmentation(NamedTuple):
    """What was made of the map of one class.

    Attributes:
        mask: bool (H, W).
        values: float32 (H, W): the map after smoothing and rescaling.
        status: `ok`, or why the mask is empty.
    """

    mask: BoolArray
    values: FloatArray
    status: Status


def segment(
    scores: Scores,
    index: int,
    image: FloatArray,
    params: MaskParams,
    least: float = 0,
    minus: FloatArray | None = None,
) -> Segmentation:
    """Segment one class: smooth, rescale, smooth again, threshold, fill holes, choose components.

    Args:
        scores: Of the image.
        index: The class.
        image: float32 (C, H, W).
        params: How.
        least: Remove components of fewer pixels: `minimum_area`.
        minus: float32 (H, W): subtracted from the map before it is thresholded; negative differences become 0.

    Raises:
        DataError: If the scores have no map of the class.
    """
    coarse = coarse_or_combined(scores, index)
    values, contrast = scale(scores, index, image, params)
    if minus is not None:
        values = np.maximum(values - minus, 0)
    mask = cut(values, coarse, params.mask_threshold, _region(params.region, coarse, image, params.polarity))
    if params.fill_holes:
        mask = fill_holes(mask, params.fill_holes)
    if params.components == "maximum":
        mask = keep_maximum(mask, values)
    if least:
        mask = remove_small(mask, least)
    return Segmentation(mask, values, mask_status(mask, scores.status[scores.row(index)] if contrast else "constant"))


def scale(scores: Scores, index: int, image: FloatArray, params: MaskParams) -> tuple[FloatArray, bool]:
    """Return the map of a class, float32 (H, W), smoothed and rescaled, and whether it had contrast to rescale."""
    values: FloatArray = scores.maps[scores.row(index)]
    if sigma := _number(params.smoothing, "smoothing"):
        values = ndimage.gaussian_filter(values, sigma)
    values, contrast = _rescale(
        values, _region(params.rescale, coarse_or_combined(scores, index), image, params.polarity)
    )
    if params.smoothing_after:
        values = ndimage.gaussian_filter(values, params.smoothing_after)
    return values, contrast


def minimum_area(params: MaskParams, info: DatasetInfo) -> float:
    """Return the minimum size in square pixels of the image that is decided on, which was resized by `info.scale`.

    Raises:
        ConfigError: If it is `auto`.
    """
    return _number(params.minimum_size, "minimum_size") * info.scale**2


def coarse_or_combined(scores: Scores, index: int) -> FloatArray:
    """Return the coarse map of a class, float32 (H, W), or its map where the model has no layers."""
    coarse: FloatArray = (scores.maps if scores.coarse is None else scores.coarse)[scores.row(index)]
    return coarse


def mask_status(mask: BoolArray, status: Status) -> Status:
    """Return `ok` for a mask with pixels, else the map's status where that is the reason, else `empty`."""
    if mask.any():
        return "ok"
    return "empty" if status == "ok" else status


def predict_masks(
    scores: Scores,
    present: BoolArray,
    found: Mapping[int, Segmentation],
    params: MaskParams,
    instances: IntArray | None = None,
    points: tuple[FloatArray, ...] | None = None,
) -> Prediction:
    """Return the prediction with the masks of the classes that were found; those of the others are empty.

    Args:
        scores: Of the image.
        present: bool (K,).
        found: By class.
        params: Whose thresholds are recorded.
        instances: int32 (K, H, W), where the head separates objects.
        points: Per class, float32 (N, 3): (y, x, score), where the head locates objects.
    """
    masks = np.zeros((len(present), *scores.size), bool)
    status: list[Status] = ["absent"] * len(present)
    for index, segmentation in found.items():
        masks[index], status[index] = segmentation.mask, segmentation.status
    rule = params.mask_threshold
    value = rule.value if rule.name == "fixed" and rule.value is not None else np.nan
    records = (*presence_records(params.presence_threshold), Threshold("mask", value, rule=str(rule)))
    return Prediction(scores, present, masks, instances, points, tuple(status), records)


def _number(size: Size, name: str) -> float:
    if size == "auto":
        raise ConfigError(f"{name}: expected a number, got auto, which only train and tune --sizes can find; give one")
    return size


def _region(region: Region, coarse: FloatArray, image: FloatArray, polarity: Polarity) -> BoolArray | None:
    if region == "none":
        return None
    if region == "coarse":
        return coarse > 0
    structures = foreground(image, polarity)
    return structures if region == "foreground" else structures & (coarse > 0)


def _rescale(values: FloatArray, where: BoolArray | None) -> tuple[FloatArray, bool]:
    """Map the range of the values at `where` to [0, 1]; return zeros and False where they have no contrast."""
    if where is None:
        return values, True
    inside = values[where]
    low, high = (inside.min(), inside.max()) if inside.size else (0, 0)
    if not high > low:
        return np.zeros_like(values), False
    return np.clip((values - low) / (high - low), 0, 1), True
