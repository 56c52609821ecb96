"""What the kit checks of an extractor."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from micraframe.classifier import Classifier
from micraframe.errors import ModelError
from micraframe.interfaces import ClassRule, Explain, Extractor
from micraframe.parameters import Parameters
from micraframe.pooling import LogSumExp, Pooling
from micraframe.testing.inputs import SIZES, small_classifier
from micraframe.testing.observed import Call, ObservedTrial, content, observe
from micraframe.testing.report import Check, basis, raised, require, require_type
from micraframe.types import FloatArray, Maps

_CHOSEN = ((2, 0), (), (1,))
"""The classes to explain of each image of a batch."""

_POOLINGS: tuple[Pooling, ...] = ("max", LogSumExp())


class ExtractorTrial(ObservedTrial):
    """Explains a classifier that pools features, and one that pools evidence; it may refuse one of them."""

    component: Extractor[Parameters]
    kind: ClassVar[str] = "extractor"

    @cached_property
    def explained(self) -> list[tuple[Classifier, Explain, list[Call]]]:
        """For each classifier that it explains: the function, and its calls of a batch for each size of images."""
        found = []
        self.refusals: list[Exception] = []
        for pooling in _POOLINGS:
            classifier = small_classifier(pooling=pooling)
            try:
                explain = self.component.prepare(classifier)
            except Exception as error:  # an extractor may raise anything
                self.refusals.append(error)
                continue
            batches = [*map(_images, SIZES), _images(SIZES[0])[..., ::-1].copy()]  # two of one size
            found.append((classifier, explain, [_call(classifier, explain, batch) for batch in batches]))
        return found

    @cached_property
    def calls(self) -> list[Call]:
        """Calls of what `prepare` returned."""
        return [call for _, _, calls in self.explained for call in calls]

    @property
    def repeated(self) -> list[Call]:
        """Every other call."""
        return self.calls[::2]

    @basis
    def inputs_unchanged(self) -> None:
        """Images are not written to; the classifier keeps its weights, gradients, mode and hooks."""
        ObservedTrial.inputs_unchanged.function(self)
        for classifier, _, _ in self.explained:
            require(
                content(classifier) == content(small_classifier(pooling=classifier.pooling)),
                "expected the classifier as it was, got other weights, gradients, mode or hooks; use frozen_copy(...)",
            )

    @basis
    def returns_maps(self) -> None:
        """`prepare` returns a function from images to a list of `Maps`, one for each image, or raises `ModelError`."""
        unforeseen = [error for error in self.refusals if not isinstance(error, ModelError)]
        for error in unforeseen or (self.refusals if not self.explained else []):
            raise AssertionError(raised("prepare", error)) from error
        for call in self.calls:
            found = call.returned()
            require_type(found, list, "what the function returned by prepare returns", "return [Maps(...), ...]")
            require(len(found) == 3, f"expected Maps of 3 images, got {len(found)}; return one for each image")
            for maps in found:
                require_type(maps, Maps, "the explanation of an image", "return [Maps(...), ...]")

    @basis
    def presence_as_predicted(self) -> None:
        """Presence is what the classifier predicts for the image."""
        for classifier, _, calls in self.explained:
            for call in calls:
                known = _presence(classifier, call.args[0])
                for maps, expected in zip(call.result, known, strict=True):
                    require(
                        maps.presence.shape == expected.shape and np.allclose(maps.presence, expected, atol=1e-4),
                        f"expected presence {expected}, the sigmoid of the logits, got {maps.presence}; take it from "
                        "the same pass",
                    )

    @Check
    def classes_as_chosen(self) -> None:
        """An image has maps of the classes that the rule chooses for its presence, in that order."""
        for call in self.calls:
            got = tuple(maps.classes for maps in call.result)
            require(got == _CHOSEN, f"expected maps of the chosen classes {_CHOSEN}, got {got}; explain rule(presence)")

    @Check
    def fits_image_and_layers(self) -> None:
        """Maps know the image's size; each is of a layer of the classifier, at its resolution."""
        for classifier, _, calls in self.explained:
            for call in calls:
                height, width = call.args[0].shape[2:]
                for maps in call.result:
                    require(
                        maps.size == (height, width),
                        f"expected the image's size {(height, width)}, got {maps.size}; correct Maps(size, ...)",
                    )
                    strangers = [layer for layer in maps.layers if layer not in classifier.layers]
                    require(not strangers, f"expected layers of the classifier, got {strangers}; use classifier.layers")
                    for layer, values in zip(maps.layers, maps.maps, strict=True):
                        cells = height / layer.stride, width / layer.stride
                        require(
                            all(abs(got - all_) < 1 for got, all_ in zip(values.shape[1:], cells, strict=True)),
                            f"expected about {cells[0]:.1f} x {cells[1]:.1f} cells of layer {layer.name!r}, got "
                            f"{values.shape[1]} x {values.shape[2]}; do not resize maps",
                        )

    @Check
    def batch_of_three(self) -> None:
        """A batch of three is three batches of one."""
        for classifier, explain, calls in self.explained:
            for call in calls:
                for image, maps in zip(call.args[0], call.result, strict=True):
                    (alone,) = explain(image[None], _rule(classifier, call.args[0]))
                    require(
                        alone.classes == maps.classes
                        and all(np.allclose(a, b, atol=1e-4) for a, b in zip(alone.maps, maps.maps, strict=True)),
                        "expected the same maps of an image alone and in a batch, got others; normalise each by itself",
                    )

    @Check
    def frozen_copy(self) -> None:
        """Training the classifier further does not change what was prepared."""
        for pooling in {classifier.pooling for classifier, _, _ in self.explained}:
            classifier = small_classifier(pooling=pooling)
            explain, images, rule = self.component.prepare(classifier), _images(SIZES[0]), _always
            before = content(explain(images, rule))
            with torch.no_grad():
                for parameter in classifier.parameters():
                    parameter.mul_(-2)
            require(
                content(explain(images, rule)) == before,
                "expected the maps of the classifier as it was prepared, got those of its new weights; explain "
                "frozen_copy(classifier)",
            )


def _call(classifier: Classifier, explain: Explain, images: FloatArray) -> Call:
    rule = _rule(classifier, images)

    def explained(batch: FloatArray) -> list[Maps]:
        return explain(batch, rule)

    return observe(explained, images)


def _rule(classifier: Classifier, images: FloatArray) -> ClassRule:
    """Return a rule that recognises each of these images by its presence, and chooses other classes for each."""
    known = _presence(classifier, images)
    return lambda presence: _CHOSEN[int(np.abs(known - presence).sum(axis=1).argmin())]


def _always(presence: FloatArray) -> tuple[int, ...]:
    return (0, 2)


def _images(size: tuple[int, int]) -> FloatArray:
    """Return three images, float32 (3, 1, H, W), of different brightness."""
    brightness = np.array([1.0, 0.6, 0.2], np.float32)[:, None, None, None]
    return np.random.default_rng(0).random((3, 1, *size), np.float32) * brightness


def _presence(classifier: Classifier, images: FloatArray) -> FloatArray:
    with torch.no_grad():
        presence: FloatArray = torch.sigmoid(classifier(torch.from_numpy(images))).numpy()
    return presence
