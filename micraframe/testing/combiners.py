"""What the kit checks of a combiner."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import numpy as np

from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.testing.inputs import SIZES, random_maps
from micraframe.testing.observed import Call, ObservedTrial, content, observe, require_statuses
from micraframe.testing.report import Check, basis, require, require_type
from micraframe.types import FloatArray, Scores

_CHANGES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "": lambda maps: maps,
    "maps of zeros": np.zeros_like,
    "maps of ones": np.ones_like,
    "negative maps": lambda maps: -np.abs(maps),
}

_ODD = ", odd size"
"""Ends the cases of images whose sides are odd, different, and no multiples of the strides."""


class CombinerTrial(ObservedTrial):
    """Combines maps of three layers, of several sizes: signed, constant and negative, of no, one and three classes."""

    component: Combiner[Parameters]
    kind: ClassVar[str] = "combiner"

    @cached_property
    def calls(self) -> list[Call]:
        """Calls of `combine`."""
        generator = np.random.default_rng(0)
        found = []
        for size in SIZES:
            image = generator.random((1, *size), np.float32)
            for change, function in _CHANGES.items():
                for count in (3, 1, 0):
                    maps, case = random_maps(size, count, function), change if count else "no class"
                    where = "" if size == SIZES[0] else _ODD
                    found.append(observe(self.component.combine, maps, image, case=case + where))
        return found

    @basis
    def returns_scores(self) -> None:
        """`combine` returns `Scores` with a map in [0, 1] of the image's size for every class that was explained."""
        self._valid("")

    @Check
    def any_size(self) -> None:
        """Height and width of an image are odd, different, and no multiples of the strides."""
        self._valid(_ODD)

    @Check
    def no_class(self) -> None:
        """If no class was explained, the scores have no map."""
        self._valid_in_any_size("no class")

    @Check
    def constant_maps(self) -> None:
        """Maps without contrast cause neither an error nor NaN."""
        self._valid_in_any_size("maps of zeros", "maps of ones")

    @Check
    def negative_maps(self) -> None:
        """Maps without positive values cause neither an error nor NaN."""
        self._valid_in_any_size("negative maps")

    @Check
    def keeps_presence(self) -> None:
        """The presence probabilities of the maps are passed on."""
        for call in self._scored():
            require(
                content(call.result.presence) == content(call.args[0].presence),
                f"expected presence {call.args[0].presence}, that of the maps, got {call.result.presence}; pass it on",
            )

    @Check
    def known_statuses(self) -> None:
        """The status of each class is one that `Status` lists."""
        for call in self._scored():
            require_statuses(call.result.status, "Scores")

    def _scored(self) -> list[Call]:
        return [call for call in self.calls if isinstance(call.result, Scores)]

    def _valid_in_any_size(self, *cases: str) -> None:
        self._valid(*cases)
        try:
            self._valid(_ODD)
        except AssertionError:
            return  # any_size reports it
        self._valid(*(case + _ODD for case in cases))

    def _valid(self, *cases: str) -> None:
        for call in self.cases(*cases):
            maps, _ = call.args
            scores = call.returned()
            require_type(scores, Scores, "what combine returns", "return Scores(maps.presence, maps.classes, values)")
            require(
                (scores.classes, scores.size) == (maps.classes, maps.size),
                f"expected maps of classes {maps.classes} and size {maps.size}, got classes {scores.classes} and size "
                f"{scores.size}; upsample to maps.size",
            )
            require(
                np.isfinite(scores.maps).all(),
                f"expected finite maps for {call.case or 'maps'}, got NaN; do not divide by a range of 0",
            )
