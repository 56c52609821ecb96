"""Rules that cut a score map into a mask: named, pure, and defined for every input.

A pixel is in the mask where its value is *above* the threshold. Values without contrast, or none at all, give a
threshold that nothing is above: an empty mask, never an error.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy import ndimage
from skimage import filters

from micraframe.interfaces import Parameters
from micraframe.types import BoolArray, FloatArray

Name = Literal["otsu", "triangle", "percentile", "fixed", "block-otsu"]
Polarity = Literal["bright", "dark", "auto"]

EIGHT = np.ones((3, 3), bool)
"""Objects hang together over corners too; their background does not."""


class Rule(Parameters):
    """How a threshold is found; in a configuration, its name alone is enough where it needs no value.

    `otsu` maximises the variance between the two sides (Otsu 1979), `triangle` is the point of the histogram farthest
    from the line between its peak and its far end (Zack et al. 1977), `percentile` and `fixed` take their value, and
    `block-otsu` is found anew in every block (see the function of that name).
    """

    name: Name = Field("otsu", description="otsu, triangle, percentile, fixed or block-otsu.")
    value: float | None = Field(
        None, description="The percentile, 0 to 100, or the fixed threshold; none for the others."
    )
    nonzero: bool = Field(False, description="Find the threshold of the pixels that are not zero.")
    block: int = Field(8, ge=2, description="Edge of a block in pixels (block-otsu).")
    minimum_coarse: float = Field(
        0.3, ge=0, le=1, description="Skip a coarse component whose maximum is below this (block-otsu)."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _value_fits(self) -> Rule:
        needed = self.name in ("percentile", "fixed")
        if needed != (self.value is not None):
            raise ValueError(f"rule {self.name} {'needs a value' if needed else f'takes no value, not {self.value}'}")
        if self.name == "percentile" and self.value is not None and not 0 <= self.value <= 100:
            raise ValueError(f"percentile {self.value} is not in 0 to 100")
        return self

    def __str__(self) -> str:
        words = self.name if self.value is None else f"{self.name} {self.value:g}"
        return f"{words} of the non-zero pixels" if self.nonzero else words


def cut(values: FloatArray, coarse: FloatArray, rule: Rule, where: BoolArray | None = None) -> BoolArray:
    """Return the mask, bool (H, W), that a rule cuts out of a score map.

    Args:
        values: float32 (H, W): the score map.
        coarse: float32 (H, W): the deepest layer's map, 0 where it does not speak for the class (`block-otsu`).
        rule: How to find the threshold.
        where: bool (H, W): the pixels that the threshold is found of and that can be in the mask; None is all.
    """
    inside = np.ones(values.shape, bool) if where is None else where
    counted = inside & (values != 0) if rule.nonzero else inside
    if rule.name == "block-otsu":
        return block_otsu(values, coarse, counted, rule.block, rule.minimum_coarse)
    return inside & (values > threshold(values[counted], rule))


def threshold(values: FloatArray, rule: Rule) -> float:
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

    It is the value v for which "above v" and "not above v" have the largest variance between them, w0 w1 (m0 - m1)^2
    with the sides' shares w and means m. Exact, where a histogram would split the values of a bin at its middle.
    """
    if not values.size:
        return np.inf
    ordered = np.sort(values, axis=None)
    # After the last of equal values only, for they are all on one side.
    ends = np.flatnonzero(ordered[1:] > ordered[:-1])
    if not ends.size:
        return float(ordered[-1])
    # About the lowest value, so that sums of many nearly equal ones lose nothing.
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
    # Of less than the histogram's 256 steps of float32, bins would have no width.
    if high - low <= 256 * np.spacing(max(abs(low), abs(high))):
        return float(high)
    return float(filters.threshold_triangle(values))  # type: ignore[no-untyped-call]


def percentile(values: FloatArray, value: float) -> float:
    """Return the percentile, 0 to 100, of the values; infinity where there are none."""
    return float(np.percentile(values, value)) if values.size else np.inf


def block_otsu(
    values: FloatArray, coarse: FloatArray, where: BoolArray, block: int = 8, minimum_coarse: float = 0.3
) -> BoolArray:
    """Return the mask of the MICRA-Net paper's procedure for modified MNIST.

    Of each component of `coarse` > 0 whose maximum reaches `minimum_coarse`, the blocks with structure are those
    whose range of values is above Otsu's threshold of all its blocks' ranges; in each, Otsu's threshold of its values
    makes the mask.

    Args:
        values: float32 (H, W): the score map.
        coarse: float32 (H, W): where to look.
        where: bool (H, W): no other pixel counts.
        block: Edge of a block in pixels; blocks begin at the image's corner, and the last ones may be smaller.
        minimum_coarse: What the maximum of a component must reach.
    """
    mask = np.zeros(values.shape, bool)
    components, _ = ndimage.label(coarse > 0, EIGHT)
    for label, (rows, columns) in enumerate(ndimage.find_objects(components), start=1):
        component = components == label
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
    """Return the pixels, bool (H, W), on the structures' side of Otsu's threshold of the image's intensities.

    Args:
        image: float32 (C, H, W); the intensity is the mean over the channels.
        polarity: `bright` and `dark` name the structures' side; `auto` takes the side with fewer pixels. Without
            contrast, there is no foreground.
    """
    intensity = image.mean(axis=0, dtype=np.float32)
    level = otsu(intensity)
    bright: BoolArray = intensity > level
    dark: BoolArray = (intensity <= level) & bright.any()
    if polarity == "auto":
        return dark if np.count_nonzero(dark) < np.count_nonzero(bright) else bright
    return bright if polarity == "bright" else dark
