"""What the kit checks of a head."""

from __future__ import annotations

import dataclasses
import itertools
from functools import cached_property
from typing import ClassVar

import numpy as np

from micraframe.interfaces import Head, HeadParams, MaskHeadParams, Thresholds
from micraframe.testing.inputs import SIZES, class_info
from micraframe.testing.observed import Call, ObservedTrial, observe, require_statuses
from micraframe.testing.report import Check, NotApplicable, basis, require, require_type
from micraframe.types import BoolArray, FloatArray, IntArray, Prediction, Scores

_PRESENCE = np.array([[0.9, 0.1, 0.7], [0, 0, 0], [1, 1, 1]], np.float32)


class HeadTrial(ObservedTrial):
    """Decides on scores with maps of the classes that it asks for, with maps of all classes, without coarse maps."""

    component: Head[HeadParams]
    kind: ClassVar[str] = "head"

    @cached_property
    def calls(self) -> list[Call]:
        """Calls of `decide`: each with the maps it asks for, with all, and without coarse ones."""
        generator = np.random.default_rng(0)
        found = []
        for size, contact in itertools.product(SIZES, (False, True)):
            image, info = generator.random((1, *size), np.float32), class_info(3, contact)
            for presence in _PRESENCE:
                chosen = self._chosen(presence)
                chosen = [0, 1, 2] if chosen is None else chosen
                for maps in (generator.random((3, *size), np.float32), np.zeros((3, *size), np.float32)):
                    for case, classes, coarse in (
                        ("", chosen, maps[chosen]),
                        ("all classes", [0, 1, 2], maps),
                        ("no coarse maps", [0, 1, 2], None),
                    ):
                        scores = Scores(presence, tuple(classes), maps[classes], coarse=coarse)
                        found.append(observe(self.component.decide, scores, image, info, case=case))
        return found

    @basis
    def chooses_classes(self) -> None:
        """`classes_to_explain` returns distinct indices of classes."""
        for presence in _PRESENCE:
            require(
                self._chosen(presence) is not None,
                "expected classes_to_explain to return a tuple of distinct indices below 3, got "
                f"{self.component.classes_to_explain(presence)!r}; return tuple(indices)",
            )

    @basis
    def returns_prediction(self) -> None:
        """`decide` returns a `Prediction` with the scores that it is based on."""
        for call in self.cases("", "all classes"):
            prediction = call.returned()
            require_type(prediction, Prediction, "what decide returns", "return Prediction(scores, present, ...)")
            require(
                prediction.scores is call.args[0],
                "expected the prediction to hold the scores that were given, got others; pass them on",
            )

    @Check
    def without_coarse_maps(self) -> None:
        """Scores may have no coarse maps: many models have no layers."""
        for call in self.cases("no coarse maps"):
            require_type(call.returned(), Prediction, "what decide returns", "return Prediction(scores, present, ...)")

    @Check
    def presence_threshold(self) -> None:
        """A class counts as present where its probability reaches the presence threshold, `Head.present`."""
        for call in self._decided():
            expected = self.component.present(call.args[0].presence)
            require(
                np.array_equal(call.result.present, expected),
                f"expected present {expected.tolist()}, got {call.result.present.tolist()}; use self.present(...)",
            )

    @Check
    def masks_of_image_size(self) -> None:
        """Masks and instances have the image's size."""
        for call, name, array in self._masks():
            require(
                array.shape == (3, *call.args[1].shape[1:]),
                f"expected {name} of shape {(3, *call.args[1].shape[1:])}, got {array.shape}; use scores.size",
            )

    @Check
    def absent_classes_empty(self) -> None:
        """A class that is not present has no mask, no instances and no points."""
        for call, name, array in self._masks():
            require(not array[~call.result.present].any(), f"expected no {name} of an absent class, got some; skip it")
        for call in self._decided():
            for present, points in zip(call.result.present, call.result.points or (), strict=False):
                require(
                    present or not len(points), f"expected no points of an absent class, got {len(points)}; skip it"
                )

    @Check
    def points_inside(self) -> None:
        """Points lie in the image, as (y, x, score)."""
        for call in self._decided():
            for points in call.result.points or ():
                inside = (points[:, :2] >= -0.5) & (points[:, :2] <= np.array(call.args[1].shape[1:]) - 0.5)
                require(inside.all(), f"expected points (y, x) in the image, got {points[:1, :2]}; y comes first")

    @Check
    def ignores_other_maps(self) -> None:
        """Maps that were not asked for do not matter."""
        for few, all_ in zip(self.cases(""), self.cases("all classes"), strict=True):
            for name in ("present", "masks", "instances"):
                one, other = getattr(few.result, name), getattr(all_.result, name)
                require(
                    (one is None) == (other is None) and (one is None or np.array_equal(one, other)),
                    f"expected the same {name} when scores hold maps that were not asked for, got others; read "
                    "scores.maps[scores.row(index)]",
                )

    @Check
    def known_statuses(self) -> None:
        """The status of each class is one that `Status` lists."""
        for call in self._decided():
            require_statuses(call.result.status, "a Prediction")

    @Check
    def tuned_presence_thresholds(self) -> None:
        """Each class may have its own presence threshold."""
        for prediction in self._tuned():
            got = prediction.present.tolist()
            require(got == [True, False, True], f"expected present [True, False, True] at 0.8, 0.8, 0.05, got {got}")

    @Check
    def tuned_mask_threshold(self) -> None:
        """A mask holds the pixels above a tuned mask threshold: none at 1."""
        if not isinstance(self.component.params, MaskHeadParams):
            raise NotApplicable("it has no mask threshold")
        for masks in (prediction.masks for prediction in self._tuned()):
            require(masks is not None, "expected masks of a head with a mask threshold, got none")
            above = masks is not None and masks.any()
            require(not above, "expected no pixel above 1, got some; cut maps by the mask threshold")

    def _chosen(self, presence: FloatArray) -> list[int] | None:
        """Return the classes to explain; None if these are no classes."""
        chosen = observe(self.component.classes_to_explain, presence).result
        valid = isinstance(chosen, tuple) and set(chosen) <= {0, 1, 2} and len(set(chosen)) == len(chosen)
        return list(chosen) if valid else None

    def _tuned(self) -> list[Prediction]:
        """Return predictions with tuned thresholds, with coarse maps and, unless that is an error anyway, without."""
        maps = np.ones((3, *SIZES[0]), np.float32)
        full = Scores(np.array([0.9, 0.1, 0.1], np.float32), (0, 1, 2), maps, coarse=maps)
        tuned = self.component.with_thresholds(Thresholds((0.8, 0.8, 0.05), 1.0))
        needs_coarse = any(call.error for call in self.cases("no coarse maps"))
        given = (full,) if needs_coarse else (full, dataclasses.replace(full, coarse=None))
        return [tuned.decide(scores, np.zeros((1, *SIZES[0]), np.float32), class_info(3)) for scores in given]

    def _decided(self) -> list[Call]:
        return [call for call in self.calls if isinstance(call.result, Prediction)]

    def _masks(self) -> list[tuple[Call, str, BoolArray | IntArray]]:
        return [
            (call, name, array)
            for call in self._decided()
            for name in ("masks", "instances")
            if (array := getattr(call.result, name)) is not None
        ]
