"""Another extractor's maps, averaged over views of the image: flipped, turned, shifted and scaled."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.config import Choice, ExtractorChoice
from micraframe.extractors.evidence import Evidence
from micraframe.extractors.frozen import choose_classes
from micraframe.images import resize, scaled_size
from micraframe.interfaces import ClassRule, Explain, Extractor, every_class
from micraframe.parameters import Parameters
from micraframe.types import FloatArray, Layer, Maps

Array = npt.NDArray[Any]


class Place(NamedTuple):
    """Where a view shows the image, before it is flipped and turned.

    Attributes:
        shift: Pixels by which it is moved down and to the right.
        scale: Its size in the view, relative to its own, before it is moved.
    """

    shift: int = 0
    scale: float = 1.0

    def put(self, images: FloatArray, step: int) -> FloatArray:
        """Return images (B, C, H, W), resized, then extended by reflection.

        They are extended by `shift` rows and columns at the top and left, and at the bottom and right to a multiple of
        `step`, so that the cells of layers cover the same pixels in all flips and turns.
        """
        if self.scale != 1:
            size = scaled_size(images.shape[2:], self.scale)
            images = np.stack([resize(image, size) for image in images])
        edges = [(self.shift, -(side + self.shift) % step) for side in images.shape[2:]]
        return np.pad(images, ((0, 0), (0, 0), *edges), mode="symmetric")

    def take(self, values: FloatArray, stride: int, size: tuple[int, int]) -> FloatArray:
        """Return the maps of the original image (H, W), given those (K, h, w) of the image from `put`.

        Cell i of the image, along either axis, has its centre at cell s (i + 1/2) - 1/2 + shift / stride of the view, s
        being the scale and `stride` the layer's; between cells, maps are interpolated linearly.
        """
        for axis, side in zip((-2, -1), size, strict=True):
            scale = scaled_size((side, side), self.scale)[0] / side
            places = scale * (np.arange(-(-side // stride)) + 0.5) - 0.5 + self.shift / stride
            places = np.clip(places, 0, values.shape[axis] - 1)
            low = places.astype(np.intp)
            share = (places - low).astype(np.float32)
            lower = values.take(low, axis)
            if share.any():  # else the grids are the same, and values stay exact
                share = share[:, None] if axis == -2 else share
                upper = values.take(np.minimum(low + 1, values.shape[axis] - 1), axis)
                lower = lower * (1 - share) + upper * share
            values = lower
        return values


class View(NamedTuple):
    """A way to look at an image.

    Attributes:
        flipped: The axes that are reversed: -2 for rows, -1 for columns.
        turns: Quarter turns after that.
        place: Where the image lies before both.
    """

    flipped: tuple[int, ...] = ()
    turns: int = 0
    place: Place = Place()

    def apply(self, values: Array) -> Array:
        """Return values (..., h, w) flipped and turned."""
        return np.ascontiguousarray(np.rot90(np.flip(values, self.flipped), self.turns, (-2, -1)))

    def undo(self, values: Array) -> Array:
        """Return what `apply` was given."""
        return np.flip(np.rot90(values, -self.turns, (-2, -1)), self.flipped)


@final
class Views(Extractor["Views.Params"]):
    """Averages another extractor's signed maps, at native resolution, and presence probabilities over views.

    The maps L_v of the views v are brought back to the image before they are averaged. With flips and quarter turns
    alone, the result is the same for an image and, apart from rounding, for a flipped or turned one whose sides are
    multiples of the strides:

        L = 1/V sum_v v^-1(L_v),  p = 1/V sum_v p_v

    It is not what the classifier predicts for the image alone: classes are explained, and presence is thresholded, by
    the average p. The cost is the other extractor's for V images, a view of scale s counting s^2 times; and, unless
    that is `evidence`, for which all classes cost as much as one, the forward passes of all views once more to find p.
    """

    class Params(Parameters):
        extractor: ExtractorChoice = Field(
            Choice(name="micraframe/evidence"), description="The extractor whose maps are averaged."
        )
        flips: bool = Field(True, description="Flip left-right, up-down, and both: 4 views.")
        quarter_turns: bool = Field(False, description="Turn by 90, 180 and 270 degrees: 4 views, with flips 8.")
        shifts: tuple[PositiveInt, ...] = Field(
            (),
            description="Pixels by which the image is moved down and to the right; the gap is filled by reflection. "
            "Each shift is combined with all flips and turns. Unless it is a multiple of a layer's stride, its cells "
            "cover other pixels than before.",
        )
        scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field(
            (), description="Factors by which the image is resized. Each is combined with all flips and turns."
        )

    def prepare(self, classifier: Classifier) -> Explain:
        """Return a function that explains batches of images; see `Extractor.prepare`.

        Without any views besides the image itself, the other extractor's own is returned.
        """
        params = self.params
        extractor = registry.build("extractor", params.extractor.name, **params.extractor.params)
        explain = extractor.prepare(classifier)
        views = choose_views(params.flips, params.quarter_turns, params.shifts, params.scales)
        if len(views) == 1:
            return explain
        layers, together = classifier.layers, isinstance(extractor, Evidence)
        return lambda images, rule: explain_views(explain, images, rule, views, layers, together)


def choose_views(
    flips: bool, quarter_turns: bool, shifts: Sequence[int] = (), scales: Sequence[float] = ()
) -> list[View]:
    """Return distinct views, the image itself first."""
    flipped: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)] if flips else [()]
    # Half a turn is both flips.
    turns = range(2 if flips else 4) if quarter_turns else range(1)
    moved = (Place(shift=shift) for shift in shifts)
    resized = (Place(scale=scale) for scale in scales)
    places = dict.fromkeys((Place(), *moved, *resized))
    return [View(flip, turn, place) for place, flip, turn in itertools.product(places, flipped, turns)]


def explain_views(
    explain: Explain,
    images: FloatArray,
    rule: ClassRule,
    views: Sequence[View],
    layers: Sequence[Layer],
    together: bool = False,
) -> list[Maps]:
    """Return the maps of each image, averaged over views.

    Images are extended to a multiple of all strides (`Place.put`), and maps brought back to the image's own grid
    (`Place.take`).

    Args:
        explain: Explains one view; a rule that returns nothing only finds presence.
        images: float32 (B, C, H, W).
        rule: Chooses the classes to explain by their mean presence.
        views: The views.
        layers: The classifier's layers, which determine the multiple.
        together: Explain all classes at once, in the pass that finds presence.
    """
    size = images.shape[2], images.shape[3]
    step = math.lcm(*(layer.stride for layer in layers))
    placed = {place: place.put(images, step) for place in {view.place for view in views}}

    def mean_over_views(which: Array, classes: tuple[int, ...] = ()) -> list[Maps]:
        explained: ClassRule = every_class if together else lambda presence: classes
        totals: list[Maps] = []
        for view in views:
            seen = [_undo(maps, view, size) for maps in explain(view.apply(placed[view.place][which]), explained)]
            totals = [_add(total, maps) for total, maps in zip(totals, seen, strict=True)] if totals else seen
        return [_divided(total, len(views)) for total in totals]

    found = mean_over_views(np.arange(len(images)))
    chosen = choose_classes(rule, np.stack([maps.presence for maps in found]))
    if together:
        return [_select(maps, classes) for maps, classes in zip(found, chosen, strict=True)]
    # A rule knows an image's presence in one view only: images of the same classes are explained together.
    for classes in set(chosen) - {()}:
        which = np.flatnonzero([each == classes for each in chosen])
        for place, maps in zip(which, mean_over_views(which, classes), strict=True):
            found[place] = maps
    return found


def _undo(maps: Maps, view: View, size: tuple[int, int]) -> Maps:
    """Return the maps of a view, brought back to the image (H, W)."""
    pairs = zip(maps.layers, maps.maps, strict=True)
    own = tuple(view.place.take(view.undo(values), layer.stride, size) for layer, values in pairs)
    return dataclasses.replace(maps, size=size, maps=own)


def _add(one: Maps, other: Maps) -> Maps:
    """Return the sums of two views' maps and presence."""
    summed = tuple(a + b for a, b in zip(one.maps, other.maps, strict=True))
    return dataclasses.replace(one, maps=summed, presence=one.presence + other.presence)


def _divided(total: Maps, count: int) -> Maps:
    """Return the mean of so many views, given their sum."""
    views = np.float32(count)
    means = tuple(np.ascontiguousarray(values) / views for values in total.maps)
    return dataclasses.replace(total, maps=means, presence=total.presence / views)


def _select(maps: Maps, classes: tuple[int, ...]) -> Maps:
    """Return the maps of some classes, given those of all."""
    return dataclasses.replace(maps, classes=classes, maps=tuple(values[list(classes)] for values in maps.maps))
