"""What annotation costs, from the literature.

Seconds are an annotator's, for one image or crop and for each object in it. Where a source gives no range, half and
twice its number are taken for one. What a source does not report is taken from `micranet2022`.

- `micranet2022` (Bilodeau et al. 2022, Methods): 2 s to judge a crop; 14 s for the outline of an axon; a point, a box
  and an outline cost as 1 : 2 : 4. A scribble is not reported and taken for as long as a box.
- `coco2014` (Lin et al. 2014): 54 to 79 s for the outline of an object in a natural image.
- `bearman2016` (Bearman et al. 2016): for a whole natural image, 20 s for its labels, 22.1 s with a point for each
  class, 34.9 s with a scribble, 239.7 s for all outlines.
- `papadopoulos2017` (Papadopoulos et al. 2017): 7 s for a box by its extreme points, 35 s by dragging its corners.
- `microsam2024` (Archit et al. 2024): 3.27 s for an organoid's outline by hand, 0.72 s for a corrected proposal.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

from pydantic import Field, model_validator

from micraframe.interfaces import Parameters
from micraframe.types import Cost

Preset = Literal["micranet2022", "coco2014", "bearman2016", "papadopoulos2017", "microsam2024"]
Task = Literal["image_level", "point", "scribble", "box", "outline"]


@dataclass(frozen=True)
class Seconds:
    """A time, and the range that is plausible."""

    value: float
    low: float
    high: float


NOTHING = Seconds(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Price:
    """Seconds for each image, whatever is in it, and for each object."""

    image: Seconds = NOTHING
    object: Seconds = NOTHING


@dataclass(frozen=True)
class Prices:
    """What each task costs."""

    image_level: Price
    point: Price
    scribble: Price
    box: Price
    outline: Price


def _about(value: float) -> Seconds:
    return Seconds(float(value), value / 2, value * 2.0)


_LOOK = _about(2)
"""Whatever is then drawn, somebody must look at the image first."""

_MICRANET = Prices(
    image_level=Price(_LOOK),
    point=Price(_LOOK, _about(14 / 4)),
    scribble=Price(_LOOK, _about(14 / 2)),
    box=Price(_LOOK, _about(14 / 2)),
    outline=Price(_LOOK, _about(14)),
)

PRESETS: Mapping[Preset, Prices] = MappingProxyType(
    {
        "micranet2022": _MICRANET,
        "coco2014": replace(_MICRANET, outline=Price(_LOOK, Seconds(66.5, 54, 79))),
        "bearman2016": Prices(
            image_level=Price(_about(20)),
            point=Price(_about(22.1)),
            scribble=Price(_about(34.9)),
            box=_MICRANET.box,
            outline=Price(_about(239.7)),
        ),
        "papadopoulos2017": replace(_MICRANET, box=Price(_LOOK, Seconds(7, 7, 35))),
        "microsam2024": replace(_MICRANET, outline=Price(_LOOK, Seconds(3.27, 0.72, 3.27))),
    }
)


class Pricing(Parameters):
    """Which prices are reckoned with: a preset's, each of which may be replaced."""

    preset: Preset = Field("micranet2022", description="Whose numbers are taken where none is given here.")
    image: float | None = Field(None, ge=0, description="Seconds for each image or crop.")
    image_low: float | None = Field(None, ge=0, description="The lowest that is plausible.")
    image_high: float | None = Field(None, ge=0, description="The highest that is plausible.")
    object: float | None = Field(None, ge=0, description="Seconds for each object.")
    object_low: float | None = Field(None, ge=0, description="The lowest that is plausible.")
    object_high: float | None = Field(None, ge=0, description="The highest that is plausible.")

    @model_validator(mode="after")
    def _in_order(self) -> Pricing:
        # As they are reckoned with: what is given here, and the preset's beside it.
        for task, what in itertools.product(get_args(Task), ("image", "object")):
            seconds: Seconds = getattr(self.price(task), what)
            if (task, what) == ("image_level", "object") or seconds.low <= seconds.value <= seconds.high:
                continue  # nobody annotates objects at image level
            remedy = f"; the value is that of {self.preset}: give {what} as well" if getattr(self, what) is None else ""
            raise ValueError(
                f"{what}: {seconds.low:g}, {seconds.value:g} and {seconds.high:g} s for {task.replace('_', ' ')} are "
                f"not in the order low, value, high{remedy}"
            )
        return self

    def price(self, task: Task) -> Price:
        """Return what a task costs. A number given without its range has none: low and high are the same."""
        price: Price = getattr(PRESETS[self.preset], task)
        return Price(
            _replaced(price.image, self.image, self.image_low, self.image_high),
            _replaced(price.object, self.object, self.object_low, self.object_high),
        )

    def cost(self, task: Task, decisions: int, objects: int) -> Cost:
        """Return the cost of one image with so many objects to annotate.

        Args:
            task: What is done.
            decisions: Crops judged, points set, or edge pixels drawn.
            objects: How many points, scribbles, boxes or outlines are made.
        """
        price = self.price(task)
        return Cost(
            decisions,
            price.image.value + objects * price.object.value,
            price.image.low + objects * price.object.low,
            price.image.high + objects * price.object.high,
        )


def _replaced(seconds: Seconds, value: float | None, low: float | None, high: float | None) -> Seconds:
    if value is not None:
        seconds = Seconds(value, value, value)
    return Seconds(seconds.value, seconds.low if low is None else low, seconds.high if high is None else high)
