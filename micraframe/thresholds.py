"""Thresholds: when a class counts as present, and named rules that cut a map into a mask.

The rules are pure and defined for every input. A pixel is in the mask where its value is *above* the threshold. Values
without contrast, or none at all, give a threshold that nothing exceeds: an empty mask, never an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator
from skimage import filters

from micraframe.errors import ConfigError
from micraframe.objects import components, windows
from micraframe.parameters import Parameters
from micraframe.types import BoolArray, FloatArray, Threshold

RuleName = Literal["otsu", "triangle", "percentile", "fixed", "block-otsu"]
Polarity = Literal["bright", "dark", "auto"]

Probability = Annotated[float, Field(ge=0, le=1)]
PresenceThreshold = Probability | tuple[Probability, ...]
"""The probability at which a class counts as present: one for all classes, or one per class."""


def reaches(presence: FloatArray, threshold: PresenceThreshold) -> BoolArray:
    """Return which classes count as present, bool (K,): those whose probability reaches the threshold.

    Args:
        presence: float32 (K,), in [0, 1].
        threshold: One number, or K of them.

    Raises:
        ConfigError: If there are several numbers, but not K.
    """
    if isinstance(threshold, tuple) and len(threshold) != len(presence):
        raise ConfigError(
            f"presence_threshold: expected one number or {len(presence)}, one per class, got {len(threshold)}"
        )
    # In float32, as probabilities are: 0.7 must reach a threshold of 0.7.
    return np.asarray(presence >= np.asarray(threshold, np.float32))


def presence_records(threshold: PresenceThreshold) -> tuple[Threshold, ...]:
    """Return the record of a presence threshold."""
    if isinstance(threshold, tuple):
        return tuple(Threshold(f"presence of class {index}", value) for index, value in enumerate(threshold))
    return (Threshold("presence", threshold),)


class ThresholdRule(Parameters):
    """How the threshold of a map is found; in a configuration, the name alone is enough where no value is needed.

    `otsu` maximises the variance between the two sides (Otsu 1979), `triangle` is the point of the histogram farthest
    from the line between its peak and its far end (Zack et al. 1977), `percentile` and `fixed` take their value, and
    `block-otsu` finds one in every block (see the function of that name).
    """

    name: RuleName = Field("otsu", description="otsu, triangle, percentile, fixed or block-otsu.")
    value: float | None = Field(
        None, description="The percentile, 0 to 100, or the fixed threshold; null for other rules."
    )
    nonzero: bool = Field(False, description="Ignore pixels that are exactly 0.")
    block: int = Field(8, ge=2, description="Edge of a block in pixels (block-otsu).")
    minimum_coarse: float = Field(
        0.3, ge=0, le=1, description="Skip coarse components whose maximum is below this (block-otsu)."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _value_fits(self) -> ThresholdRule:
        needed = self.name in ("percentile", "fixed")
        if needed != (self.value is not None):
            raise ValueError(f"rule {self.name}: expected {'a' if needed else 'no'} value, got {self.value}")
        if self.name == "percentile" and self.value is not None and not 0 <= self.value <= 100:
            raise ValueError(f"expected a percentile from 0 to 100, got {self.value}")
        return self

    def __str__(self) -> str:
        words = self.name if self.value is None else f"{self.name} {self.value:g}"
        return f"{words} of the non-zero pixels" if self.nonzero else words


def cut(values: FloatArray, coarse: FloatArray, rule: ThresholdRule, where: BoolArray | None = None) -> BoolArray:
    """Return the mask, bool (H, W), that a rule cuts out of a map.

    Args:
        values: float32 (H, W): the map.
        coarse: float32 (H, W): the deepest layer's map, 0 where it holds no evidence for the class (`block-otsu`).
        rule: How to find the threshold.
        where: bool (H, W): the pixels that determine the threshold and can be in the mask; None for all.
    """
    inside = np.ones(values.shape, bool) if where is None else where
    counted = inside & (values != 0) if rule.nonzero else inside
    if rule.name == "block-otsu":
        return block_otsu(values, coarse, counted, rule.block, rule.minimum_coarse)
    return inside & (values > threshold(values[counted], rule))


def threshold(values: FloatArray, rule: ThresholdRule) -> float:
    """Return the threshold of values of any shape under any rule but `block-otsu`, which has no single one."""
    if rule.name == "otsu":
        return otsu(values)
    if rule.name == "triangle":
        return triangle(values)
    if rule.name == "block-otsu" or rule.value is None:
        raise ValueError(f"rule {rule.name} has no single threshold")
    return percentile(values, rule.value) if rule.name == "percentile" else rule.value


def otsu(values: FloatArray) -> float:
    """Return Otsu's threshold: the largest value where there is no contrast, infinity where there are no values.

    It is the value v that maximises the variance between the values above v and the others, w0 w1 (m0 - m1)^2 with
    the shares w and means m of the two sides. It is exact: no histogram is involved.
    """
    if not values.size:
        return np.inf
    ordered = np.sort(values, axis=None)
    # Equal values are on one side: the values may be divided only after the last of them.
    ends = np.flatnonzero(ordered[1:] > ordered[:-1])
    if not ends.size:
        return float(ordered[-1])
    # Relative to the lowest value, so that sums of many nearly equal values stay exact.
    sums = np.cumsum(ordered.astype(np.float64) - ordered[0])
    below = ends + 1.0
    above = ordered.size - below
    means = (sums[-1] - sums[ends]) / above - sums[ends] / below
    return float(ordered[ends[np.argmax(below * above * means**2)]])


def triangle(values: FloatArray) -> float:
    """Return the triangle threshold: the largest value without contrast, infinity where there are no values."""
    if not values.size:
        return np.inf
    low, high = values.min(), values.max()
    # A range of fewer than 256 steps of float32 cannot be divided into the 256 bins of the histogram.
    if high - low <= 256 * np.spacing(max(abs(low), abs(high))):
        return float(high)
    return float(filters.threshold_triangle(values))  # type: ignore[no-untyped-call]


def percentile(values: FloatArray, value: float) -> float:
    """Return the percentile, 0 to 100, of the values; infinity where there are none."""
    return float(np.percentile(values, value)) if values.size else np.inf


def block_otsu(
    values: FloatArray, coarse: FloatArray, where: BoolArray, block: int = 8, minimum_coarse: float = 0.3
) -> BoolArray:
    """Return the mask, bool (H, W), by the MICRA-Net paper's procedure for modified MNIST.

    Each component of `coarse` > 0 whose maximum reaches `minimum_coarse` is divided into blocks. The blocks that hold
    structure are those whose range of values is above Otsu's threshold of the ranges of all blocks of the component;
    each of them is segmented by Otsu's threshold of its own values.

    Args:
        values: float32 (H, W): the map.
        coarse: float32 (H, W): the deepest layer's map.
        where: bool (H, W): the pixels that count and can be in the mask.
        block: Edge of a block in pixels. Blocks begin at the image's corner; the last ones may be smaller.
        minimum_coarse: Lowest maximum of a component that is segmented.
    """
    mask = np.zeros(values.shape, bool)
    (labels,) = components((coarse > 0)[None])
    for label, (rows, columns) in windows(labels):
        component = labels == label
        if coarse[component].max() < minimum_coarse:
            continue
        component &= where
        blocks = [
            (slice(top, top + block), slice(left, left + block))
            for top in range(rows.start - rows.start % block, rows.stop, block)
            for left in range(columns.start - columns.start % block, columns.stop, block)
        ]
        blocks = [here for here in blocks if component[here].any()]
        ranges = np.array([np.ptp(values[here][component[here]]) for here in blocks], np.float32)
        lowest = otsu(ranges)
        for here, spread in zip(blocks, ranges, strict=True):
            if spread > lowest:
                inside = component[here]
                mask[here] |= inside & (values[here] > otsu(values[here][inside]))
    return mask


def foreground(image: FloatArray, polarity: Polarity = "bright") -> BoolArray:
    """Return the foreground of an image, bool (H, W), by Otsu's threshold of its intensities.

    An image without contrast has no foreground.

    Args:
        image: float32 (C, H, W); the intensity is the mean over the channels.
        polarity: Whether the foreground is `bright` or `dark`; `auto` takes the side with fewer pixels.
    """
    intensity = image.mean(axis=0, dtype=np.float32)
    level = otsu(intensity)
    bright: BoolArray = intensity > level
    dark: BoolArray = (intensity <= level) & bright.any()
    if polarity == "auto":
        return dark if np.count_nonzero(dark) < np.count_nonzero(bright) else bright
    return bright if polarity == "bright" else dark
