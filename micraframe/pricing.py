"""Prices of annotation: seconds of an annotator's time, from published timings.

Seconds are per image or crop, per class judged present or absent, per object drawn, and per whole image, which its
crops share. If a source gives no range, half and twice its number are used. What a source does not report is taken from
`micranet2022`.

- `micranet2022` (Bilodeau et al. 2022, Methods): 2 s to judge a crop, however many classes there are; 14 s for the
  outline of an axon; a point, a box and an outline cost as 1 : 2 : 4. A scribble is not reported; it is assumed to take
  as long as a box.
- `per-class`: as `micranet2022`, but 2 s for *each* class of a crop, no matter what is drawn in it. This is an
  assumption: the paper's 2 s are for one answer, positive or negative. The lowest value, 1 s, comes from Bearman et al.
  (2016), whose 20 s for an image are 1 s for each of 20 classes; the highest is 4 s. With one class, the presets agree.
- `coco2014` (Lin et al. 2014): 54 to 79 s for the outline of an object in a natural image.
- `bearman2016` (Bearman et al. 2016): for a whole natural image, 20 s for its labels, 22.1 s with a point for each
  class, 34.9 s with a scribble, 239.7 s for all outlines.
- `papadopoulos2017` (Papadopoulos et al. 2017): 7 s for a box by its extreme points, 35 s by dragging its corners.
- `microsam2024` (Archit et al. 2024): 3.27 s for an organoid's outline by hand, 0.72 s for a corrected proposal.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeVar

from pydantic import Field, model_validator

from micraframe.builtin import MICRA_NET
from micraframe.parameters import Parameters
from micraframe.types import Task, Work

Preset = Literal[
    "micranet2022",
    "micranet2022-ctc",
    "micranet2022-p-vivax",
    "micranet2022-f-actin",
    "micranet2022-em",
    "per-class",
    "coco2014",
    "bearman2016",
    "papadopoulos2017",
    "microsam2024",
]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Cost:
    """Time in seconds.

    Attributes:
        seconds: Expected.
        low: Lowest plausible value.
        high: Highest plausible value.
    """

    seconds: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.low + other.low, self.high + other.high)

    def __mul__(self, times: float) -> Cost:
        return Cost(times * self.seconds, times * self.low, times * self.high)


@dataclass(frozen=True)
class UnitPrice:
    """The cost of a task: per image or crop, per object, per class judged, and per whole image, which crops share."""

    image: Cost = Cost()
    object: Cost = Cost()
    judgement: Cost = Cost()
    whole_image: Cost = Cost()


def _about(value: float) -> Cost:
    return Cost(float(value), value / 2, value * 2.0)


_LOOK = _about(2)
"""Fixed time to inspect an image before drawing."""

_MICRANET: Mapping[Task, UnitPrice] = {
    "image-level": UnitPrice(_LOOK),
    "point": UnitPrice(_LOOK, _about(14 / 4)),
    "scribble": UnitPrice(_LOOK, _about(14 / 2)),
    "box": UnitPrice(_LOOK, _about(14 / 2)),
    "outline": UnitPrice(_LOOK, _about(14)),
}


def _by_image(outlines: float) -> Mapping[Task, UnitPrice]:
    """Return prices where all outlines of a whole image take so many seconds: points, boxes, outlines as 1 : 2 : 4."""
    shares: Mapping[Task, float] = {"point": 1 / 4, "scribble": 1 / 2, "box": 1 / 2, "outline": 1}
    return {**_MICRANET, **{task: UnitPrice(whole_image=_about(outlines * share)) for task, share in shares.items()}}


_MARKERS = _about(1800)
"""Markers of all axons in a tile of 10,240 px."""

_JUDGEMENT = Cost(2, 1, 4)
"""One class of a crop: the paper's 2 s for a crop, with 1 s from Bearman et al. (2016) as the lowest value."""

PRESETS: Mapping[Preset, Mapping[Task, UnitPrice]] = MappingProxyType(
    {
        "micranet2022": _MICRANET,
        "micranet2022-ctc": _by_image(900),
        "micranet2022-p-vivax": _by_image(120),
        "micranet2022-f-actin": _by_image(2 * 48),
        "micranet2022-em": {
            task: UnitPrice(object=unit.object if task == "outline" else Cost(), whole_image=_MARKERS)
            for task, unit in _MICRANET.items()
        },
        "per-class": {task: UnitPrice(object=unit.object, judgement=_JUDGEMENT) for task, unit in _MICRANET.items()},
        "coco2014": {**_MICRANET, "outline": UnitPrice(_LOOK, Cost(66.5, 54, 79))},
        "bearman2016": {
            **_MICRANET,
            "image-level": UnitPrice(_about(20)),
            "point": UnitPrice(_about(22.1)),
            "scribble": UnitPrice(_about(34.9)),
            "outline": UnitPrice(_about(239.7)),
        },
        "papadopoulos2017": {**_MICRANET, "box": UnitPrice(_LOOK, Cost(7, 7, 35))},
        "microsam2024": {**_MICRANET, "outline": UnitPrice(_LOOK, Cost(3.27, 0.72, 3.27))},
    }
)

SOURCES: Mapping[Preset, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("micranet2022", "micranet2022-ctc", "micranet2022-p-vivax", "micranet2022-f-actin", "micranet2022-em"),
            MICRA_NET,
        ),
        "per-class": f"{MICRA_NET} With its 2 s for each class of a crop, which is an assumption.",
        "coco2014": "Lin, T.-Y. et al. Microsoft COCO: common objects in context. ECCV, 740-755 (2014).",
        "bearman2016": "Bearman, A., Russakovsky, O., Ferrari, V. and Fei-Fei, L. What's the point: semantic "
        "segmentation with point supervision. ECCV, 549-565 (2016).",
        "papadopoulos2017": "Papadopoulos, D. P., Uijlings, J. R. R., Keller, F. and Ferrari, V. Extreme clicking for "
        "efficient object annotation. ICCV, 4930-4939 (2017).",
        "microsam2024": "Archit, A. et al. Segment Anything for Microscopy. bioRxiv (2024).",
    }
)
"""What to cite for each preset."""


class TaskPrices(Parameters):
    """Prices of one task, in seconds; the preset supplies others. A value without a range gets a zero-width range."""

    image: float | None = Field(None, ge=0, description="Seconds per image or crop.")
    image_low: float | None = Field(None, ge=0, description="Lowest plausible seconds per image.")
    image_high: float | None = Field(None, ge=0, description="Highest plausible seconds per image.")
    object: float | None = Field(None, ge=0, description="Seconds per object.")
    object_low: float | None = Field(None, ge=0, description="Lowest plausible seconds per object.")
    object_high: float | None = Field(None, ge=0, description="Highest plausible seconds per object.")
    judgement: float | None = Field(None, ge=0, description="Seconds per class judged present or absent.")
    judgement_low: float | None = Field(None, ge=0, description="Lowest plausible seconds per class judged.")
    judgement_high: float | None = Field(None, ge=0, description="Highest plausible seconds per class judged.")
    whole_image: float | None = Field(None, ge=0, description="Seconds per whole image, which its crops share.")
    whole_image_low: float | None = Field(None, ge=0, description="Lowest plausible seconds per whole image.")
    whole_image_high: float | None = Field(None, ge=0, description="Highest plausible seconds per whole image.")


class Prices(Parameters):
    """The prices of a study: a preset, with changes for single tasks."""

    preset: Preset = Field(
        "micranet2022",
        description="Published timings: micranet2022, or micranet2022-ctc, -p-vivax, -f-actin or -em for these "
        "datasets; coco2014, bearman2016, papadopoulos2017 or microsam2024; or per-class, which charges labels for "
        "each class.",
    )
    tasks: dict[Task, TaskPrices] = Field(
        {}, description="Other prices by task: image-level, point, scribble, box or outline."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Prices:
        for task, given in self.tasks.items():
            found = unit_price(task, self)
            for unit in ("image", "object", "judgement", "whole_image"):
                cost = getattr(found, unit)
                if cost.low <= cost.seconds <= cost.high:
                    continue
                remedy = "" if getattr(given, unit) is not None else f"; {self.preset} gives the value: give {unit} too"
                raise ValueError(
                    f"{task}: expected seconds per {unit} in the order low <= value <= high, got {cost.low:g}, "
                    f"{cost.seconds:g} and {cost.high:g}{remedy}"
                )
        return self


def unit_price(task: Task, prices: Prices) -> UnitPrice:
    """Return what a task costs per image, per object, per class judged and per whole image."""
    preset, given = PRESETS[prices.preset][task], prices.tasks.get(task, TaskPrices())
    return UnitPrice(
        _replaced(preset.image, given.image, given.image_low, given.image_high),
        _replaced(preset.object, given.object, given.object_low, given.object_high),
        _replaced(preset.judgement, given.judgement, given.judgement_low, given.judgement_high),
        _replaced(preset.whole_image, given.whole_image, given.whole_image_low, given.whole_image_high),
    )


def price(work: Work, prices: Prices) -> Cost:
    """Return what annotation work costs.

    Args:
        work: The work for one image, or the sum over many.
        prices: The prices of a study.
    """
    unit = unit_price(work.task, prices)
    by_image = unit.image * work.images + unit.whole_image * work.whole_images
    return by_image + unit.object * work.objects + unit.judgement * work.judgements


def crossed(costs: Mapping[Key, Cost], weak: Collection[Key]) -> tuple[dict[Key, float], dict[Key, float]]:
    """Return costs in seconds with weak annotation at its dearest and all other annotation at its cheapest; vice versa.

    If all prices rise and fall together, the order of costs hardly changes. These are the two extremes at which it can:
    an order that does not depend on prices is the same at both.

    Args:
        costs: The cost of each method.
        weak: The methods whose annotation is weak: labels, points, scribbles and boxes, but no outlines.
    """
    dear = {key: cost.high if key in weak else cost.low for key, cost in costs.items()}
    cheap = {key: cost.low if key in weak else cost.high for key, cost in costs.items()}
    return dear, cheap


def is_weak(works: Iterable[Work]) -> bool:
    """Return whether annotation work includes no outlines, so that its price can err independently of theirs."""
    return all(work.task != "outline" for work in works)


def _replaced(cost: Cost, value: float | None, low: float | None, high: float | None) -> Cost:
    if value is not None:
        cost = Cost(value, value, value)
    return Cost(cost.seconds, cost.low if low is None else low, cost.high if high is None else high)
