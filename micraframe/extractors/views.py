"""Another extractor's maps, averaged over views of the image: flipped and turned."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.config import Choice, ExtractorChoice
from micraframe.extractors.evidence import Evidence
from micraframe.extractors.frozen import choose_classes
from micraframe.interfaces import ClassRule, Explain, Extractor, every_class
from micraframe.parameters import Parameters
from micraframe.types import FloatArray, Layer, Maps

Array = npt.NDArray[Any]


class View(NamedTuple):
    """A way to look at an image.

    Attributes:
        flipped: The axes that are reversed: -2 for rows, -1 for columns.
        turns: Quarter turns after that.
    """

    flipped: tuple[int, ...] = ()
    turns: int = 0

    def apply(self, values: Array) -> Array:
        """Return values (..., h, w) flipped and turned."""
        return np.ascontiguousarray(np.rot90(np.flip(values, self.flipped), self.turns, (-2, -1)))

    def undo(self, values: Array) -> Array:
        """Return what `apply` was given."""
        return np.flip(np.rot90(values, -self.turns, (-2, -1)), self.flipped)


@final
class Views(Extractor["Views.Params"]):
    """Averages another extractor's signed maps, at native resolution, and presence probabilities over views.

    The maps L_v of the views v are brought back to the image before they are averaged. The result is the same for an
    image and, apart from rounding, for a flipped or turned one whose sides are multiples of the strides:

        L = 1/V sum_v v^-1(L_v),  p = 1/V sum_v p_v

    It is not what the classifier predicts for the image alone: classes are explained, and presence is thresholded, by
    the average p. The cost is the other extractor's for V images; and, unless that is `evidence`, for which all classes
    cost as much as one, the forward passes of all views once more to find p.
    """

    class Params(Parameters):
        extractor: ExtractorChoice = Field(
            Choice(name="micraframe/evidence"), description="The extractor whose maps are averaged."
        )
        flips: bool = Field(True, description="Flip left-right, up-down, and both: 4 views.")
        quarter_turns: bool = Field(False, description="Turn by 90, 180 and 270 degrees: 4 views, with flips 8.")

    def prepare(self, classifier: Classifier) -> Explain:
        """Return a function that explains batches of images; see `Extractor.prepare`.

        Without any views besides the image itself, the other extractor's own is returned.
        """
        params = self.params
        extractor = registry.build("extractor", params.extractor.name, **params.extractor.params)
        explain = extractor.prepare(classifier)
        views = choose_views(params.flips, params.quarter_turns)
        if len(views) == 1:
            return explain
        layers, together = classifier.layers, isinstance(extractor, Evidence)
        return lambda images, rule: explain_views(explain, images, rule, views, layers, together)


def choose_views(flips: bool, quarter_turns: bool) -> list[View]:
    """Return distinct views, the image itself first."""
    flipped: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)] if flips else [()]
    # Half a turn is both flips.
    turns = range(2 if flips else 4) if quarter_turns else range(1)
    return [View(flip, turn) for flip, turn in itertools.product(flipped, turns)]


def explain_views(
    explain: Explain,
    images: FloatArray,
    rule: ClassRule,
    views: Sequence[View],
    layers: Sequence[Layer],
    together: bool = False,
) -> list[Maps]:
    """Return the maps of each image, averaged over views.

    Images are extended by reflection at the bottom and right to a multiple of all strides, so that the cells of layers
    cover the same pixels in all views.

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
    edges = [(0, -side % step) for side in size]
    extended = np.pad(images, ((0, 0), (0, 0), *edges), mode="symmetric")

    def mean_over_views(which: Array, classes: tuple[int, ...] = ()) -> list[Maps]:
        explained: ClassRule = every_class if together else lambda presence: classes
        totals: list[Maps] = []
        for view in views:
            seen = [_undo(maps, view, size) for maps in explain(view.apply(extended[which]), explained)]
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
    own = []
    for layer, values in zip(maps.layers, maps.maps, strict=True):
        rows, columns = (-(-side // layer.stride) for side in size)
        own.append(view.undo(values)[:, :rows, :columns])
    return dataclasses.replace(maps, size=size, maps=tuple(own))


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
