"""What the kit checks of a method."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from micraframe import pipeline, registry
from micraframe.interfaces import Method, Model, Thresholds
from micraframe.parameters import Parameters
from micraframe.pipeline import Pipeline
from micraframe.testing.auditing import unpickling
from micraframe.testing.inputs import class_info, full_samples
from micraframe.testing.observed import Call, ObservedTrial, content, observe, require_statuses
from micraframe.testing.pickles import holds_pickle
from micraframe.testing.report import Check, NotApplicable, basis, require, require_type
from micraframe.tiling import Tiling
from micraframe.types import Annotation, BoolArray, FitContext, FloatArray, IntArray, Prediction, Sample, Scores

_TRAINED = 6
"""Number of samples to train on; two more are for validation."""

_STREAMED = 12
"""Number of images of 512 x 512 that a model must not read all before it scores the first: three batches."""


class Decision(NamedTuple):
    """The parts of a prediction that are compared, copied when it was made."""

    presence: FloatArray
    present: BoolArray
    masks: BoolArray | None
    instances: IntArray | None


class MethodTrial(ObservedTrial):
    """Trains on eight small samples with the annotation that the method learns from, and predicts them."""

    component: Method[Parameters]
    kind: ClassVar[str] = "method"

    @cached_property
    def samples(self) -> list[Sample]:
        """Samples with no more annotation than the method learns from."""
        return [sample.keep(self.component.learns_from) for sample in full_samples(_TRAINED + 2)]

    @cached_property
    def images(self) -> list[FloatArray]:
        """The images of the samples, and an empty one of another size."""
        return [sample.image for sample in self.samples] + [np.zeros((1, 40, 56), np.float32)]

    @cached_property
    def training(self) -> Call:
        """The training."""
        return observe(self.fit, self.samples)

    @cached_property
    def fitted(self) -> Pipeline:
        """The trained pipeline."""
        fitted: Pipeline = self.training.returned()
        return fitted

    @cached_property
    def calls(self) -> list[Call]:
        """The call of `score`; none if nothing was trained."""
        trained = self.training.error is None and isinstance(self.fitted.model, Model)
        return [observe(self.score, self.images)] if trained else []

    @property
    def scored(self) -> list[tuple[FloatArray, Scores]]:
        """The images and their scores."""
        return [(image, scores) for image, (scores, _) in zip(self.images, self.calls[0].returned(), strict=True)]

    def fit(self, samples: list[Sample], seed: int = 1) -> Pipeline:
        """Train on the samples but the last two, which are for validation if the method uses it."""
        context = FitContext(seed=seed, precision="float32", device="cpu")
        valid = samples[_TRAINED:] if self.component.uses_validation else ()
        return pipeline.fit(self.choice, samples[:_TRAINED], valid, class_info(2), context)

    def score(self, images: list[FloatArray]) -> list[tuple[Scores, Any]]:
        """Return the model's scores of images, each with its content at that moment."""
        model, rule = self.fitted.model, self.fitted.head.classes_to_explain
        return [(scores, content(scores)) for scores in model.score(iter(images), rule)]

    def decisions(self, fitted: Pipeline | None = None) -> list[Decision]:
        """Return decisions on all images: from the scores, or of another pipeline."""
        if fitted is None:
            return [_decision(self.fitted.decide(scores, image)) for image, scores in self.scored]
        return [_decision(prediction) for prediction in fitted.predict(self.images)]

    @basis
    def inputs_unchanged(self) -> None:
        """Neither `fit` nor `score` writes to samples or images."""
        require(not self.training.wrote, "expected fit to leave its samples, got a change; copy what you change")
        ObservedTrial.inputs_unchanged.function(self)

    @basis
    def declares_itself(self) -> None:
        """`learns_from` names annotation, `inference_params` are parameters, and `default_head` exists."""
        method = self.component
        learns = getattr(method, "learns_from", None)
        require(
            isinstance(learns, frozenset) and learns and learns <= set(Annotation),
            f"expected learns_from to be a frozenset of Annotation, got {learns!r}; name what the method learns from",
        )
        unknown = method.inference_params - set(type(method).Params.model_fields)
        require(
            not unknown, f"expected inference_params among the parameters, got {sorted(unknown)}; correct the names"
        )
        name, params = method.default_head
        registry.build("head", name, **params)

    @basis
    def fresh_results(self) -> None:
        """The scores of an image stay as they were when the next ones are computed."""
        for call in self.calls:
            require(
                all(content(scores) == held for scores, held in call.result or ()),
                "expected scores to last, got another content after later images; yield new arrays, not a buffer",
            )

    @basis
    def returns_model(self) -> None:
        """`fit` returns a `Model` that scores images."""
        require_type(self.fitted.model, Model, "what fit returns", "return a subclass of micraframe.interfaces.Model")

    @basis
    def returns_scores(self) -> None:
        """`score` yields `Scores` of the image's size, with a map of every class that the rule chooses."""
        for call in self.calls:
            found = [scores for scores, _ in call.returned()]
            for scores in found:
                require_type(scores, Scores, "what score yields", "yield Scores(presence, classes, maps)")
            # `one_result_per_image` reports a wrong number of results.
            for image, scores in zip(self.images, found, strict=True) if len(found) == len(self.images) else ():
                require(
                    (len(scores.presence), scores.size) == (2, image.shape[1:]),
                    f"expected scores of 2 classes and size {image.shape[1:]}, got {len(scores.presence)} and size "
                    f"{scores.size}; make maps of the image's size",
                )
                missing = set(self.fitted.head.classes_to_explain(scores.presence)) - set(scores.classes)
                require(not missing, f"expected maps of the classes {sorted(missing)}, which the rule chose, got none")

    @basis
    def one_result_per_image(self) -> None:
        """`score` yields as many results as there are images."""
        for call in self.calls:
            given, got = len(self.images), len(call.result)
            require(got == given, f"expected scores of {given} images, got {got}; yield one for each image, in order")

    @basis
    def state_of_tensors(self) -> None:
        """`state` returns tensors by name."""
        state = self.fitted.model.state()
        require_type(state, Mapping, "what state returns", "return {name: tensor}")
        for name, value in state.items():
            require_type(value, Tensor, f"state()[{name!r}]", "convert it: torch.as_tensor(value)")

    @Check
    def no_pickle(self) -> None:
        """The state holds no pickle, of any protocol, compressed or not, and restoring it unpickles nothing."""
        state = self.fitted.model.state()
        for name, tensor in state.items():
            _, _, data = content(tensor)
            require(
                not holds_pickle(data),
                f"expected numbers in state()[{name!r}], got a pickle, which can run code when a model is loaded; save "
                "what it holds as tensors",
            )
        with unpickling() as found:
            self.component.restore(state, self.fitted.info, "cpu")
        require(not found, f"expected restore to unpickle nothing, got {found[:1]}, which can run code; save tensors")

    @Check
    def same_seed_same_model(self) -> None:
        """The same seed gives the same bytes on a CPU; every seed, if the method says that it is `deterministic`."""
        state = content(dict(self.fitted.model.state()))
        again = self.fit(self.samples)
        require(
            content(dict(again.model.state())) == state,
            "expected the same weights from the same seed, got others; draw random numbers from generators seeded by "
            "context.seed",
        )
        if self.component.deterministic:
            for one, other in zip(self.decisions(), self.decisions(self.fit(self.samples, seed=2)), strict=True):
                _same(one, other, "for every seed", "set deterministic = False")

    @Check
    def saved_and_loaded(self) -> None:
        """A model predicts the same after it was saved and loaded."""
        with tempfile.TemporaryDirectory() as folder:
            self.fitted.save(Path(folder) / "model")
            loaded = pipeline.load(Path(folder) / "model", "cpu")
        for one, other in zip(self.decisions(), self.decisions(loaded), strict=True):
            _same(one, other, "after saving and loading", "return everything that was learned from state()")

    @Check
    def alone_and_among_others(self) -> None:
        """An image is predicted the same alone and among others, in order."""
        for image, among in zip(self.images, self.decisions(), strict=True):
            (alone,) = self.fitted.predict([image])
            _same(
                _decision(alone),
                among,
                "alone and among others",
                "normalise each image by itself, and keep their order",
            )

    @Check
    def constant_memory(self) -> None:
        """`score` reads images as it goes, a batch at a time, not all before it scores the first."""
        read = 0

        def stream() -> Iterator[FloatArray]:
            nonlocal read
            for _ in range(_STREAMED):
                read += 1
                yield np.zeros((1, 512, 512), np.float32)

        next(iter(self.fitted.model.score(stream(), lambda presence: ())))
        require(
            read < _STREAMED, f"expected a batch of images to be read, got all {read}; yield scores in a loop over them"
        )

    @Check
    def tiles_merged(self) -> None:
        """The scores of tiles are merged to those of a large image."""
        large = np.tile(self.images[0], (1, 3, 3))[:, :70, :131]
        (tiled,) = dataclasses.replace(self.fitted, tiling=Tiling(size=64, halo=16)).score([large])
        require(
            tiled.size == large.shape[1:],
            f"expected scores of size {large.shape[1:]} from tiles, got {tiled.size}; correct merge_tiles",
        )

    @Check
    def maps_have_a_scale(self) -> None:
        """No pixel is in a mask at a tuned mask threshold of 1."""
        blind = self.fitted.with_thresholds(Thresholds((1.0, 1.0), 1.0), "validation")
        masks = [blind.decide(scores, image).masks for image, scores in self.scored]
        if all(mask is None for mask in masks):
            raise NotApplicable("its default head makes no masks")
        require(all(mask is None or not mask.any() for mask in masks), "expected no pixel above 1, got some")

    @Check
    def known_statuses(self) -> None:
        """The status of each class is one that `Status` lists."""
        for _, scores in self.scored:
            require_statuses(scores.status, "Scores")

    @Check
    def untrained_model(self) -> None:
        """`untrained` returns a model with the state of a trained one, which has learned nothing, or None."""
        model = self.component.untrained(class_info(2))
        if model is None:
            raise NotApplicable("it has no untrained model")
        shapes = [{name: tuple(one.shape) for name, one in each.state().items()} for each in (self.fitted.model, model)]
        require(shapes[0] == shapes[1], "expected untrained() to have the state of a trained model, got another")


def _decision(prediction: Prediction) -> Decision:
    kept = copy.deepcopy(prediction)
    return Decision(kept.scores.presence, kept.present, kept.masks, kept.instances)


def _same(one: Decision, other: Decision, when: str, remedy: str) -> None:
    same = np.allclose(one.presence, other.presence, atol=1e-5) and np.array_equal(one.present, other.present)
    require(same, f"expected the same presence {when}, got {one.presence} and {other.presence}; {remedy}")
    for name in ("masks", "instances"):
        first, second = getattr(one, name), getattr(other, name)
        differ = (first is None) != (second is None) or (first is not None and np.mean(first != second) >= 1e-3)
        require(not differ, f"expected the same {name} {when}, got others; {remedy}")
