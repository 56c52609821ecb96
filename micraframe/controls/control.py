"""The base of the controls without a classifier, which keep only the frequency of each class in the training labels.

A control cannot tell which classes are in an image, so it predicts the same ones for every image: use `all` to compare
masks, `prevalent` (the best constant answer) to compare classification.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, final

import numpy as np
import torch
from pydantic import Field

from micraframe.interfaces import ClassRule, Method, Model
from micraframe.parameters import Parameters
from micraframe.types import Annotation, DatasetInfo, FitContext, FloatArray, Sample, Scores, Status


class ControlParams(Parameters):
    """The parameters that every control has."""

    presence: Literal["all", "prevalent"] = Field(
        "all",
        description="Classes predicted for every image: all, or those in at least half of the training images.",
    )


C = TypeVar("C", bound=ControlParams)


class Control(Method[C]):
    """A control: draws a map without knowing the classes, with the same presence probabilities for every image."""

    learns_from = frozenset({Annotation.LABELS})
    uses_validation = False

    @abstractmethod
    def draw(self, image: FloatArray, classes: int, seed: int) -> FloatArray:
        """Return a map for each class, float32 (K, H, W), in [0, 1], for an image (C, H, W)."""

    @final
    def fit(
        self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext
    ) -> ControlModel:
        """Count how frequent each class is in the training images."""
        return ControlModel(self, prevalence(train), context.seed)

    @final
    def restore(self, state: Mapping[str, torch.Tensor], info: DatasetInfo, device: str) -> ControlModel:
        """Return the model with these frequencies."""
        return ControlModel(self, state["prevalence"].numpy(), int(state["seed"]))


@final
class ControlModel(Model):
    """A control that knows the frequency of each class.

    Attributes:
        prevalence: float32 (K,): share of the training images that contain each class.
    """

    def __init__(self, control: Control[Any], prevalence: FloatArray, seed: int) -> None:
        self.prevalence = prevalence
        self._control = control
        self._seed = seed

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        """Yield the scores of each image, with a map of every class."""
        count = len(self.prevalence)
        certain = self._control.params.presence == "all"
        presence = np.ones(count, np.float32) if certain else self.prevalence
        for image in images:
            maps = self._control.draw(image, count, self._seed)
            # Not `empty`, the default for a map of zeros: a control draws one if the image has no contrast.
            status: list[Status] = ["ok" if np.ptp(values) > 0 else "constant" for values in maps]
            yield Scores(presence, tuple(range(count)), maps, tuple(status))

    def state(self) -> Mapping[str, torch.Tensor]:
        """Return the frequencies of the classes, and the seed."""
        return {"prevalence": torch.from_numpy(self.prevalence.copy()), "seed": torch.tensor(self._seed)}


def prevalence(samples: Sequence[Sample]) -> FloatArray:
    """Return the share of the samples that contain each class, float32 (K,)."""
    return np.asarray(np.array([sample.labels for sample in samples], np.bool_).mean(axis=0), np.float32)
