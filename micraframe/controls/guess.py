"""What all controls have in common: of the labels they keep only how frequent each class is.

A control cannot tell which classes are in an image. What it claims of them is the same for every image, and so a
choice: `all` gives it a mask wherever masks are compared, `prevalent` the best constant answer to what is present.
Its strongest numbers come from the first for masks, and from the second for classification.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from pydantic import Field

from micraframe.config import Choice
from micraframe.errors import DataError, ModelError
from micraframe.interfaces import Fitted, Method, Parameters
from micraframe.modelfile import ModelFile, load_model, provenance, save_model
from micraframe.thresholds import Rule, cut
from micraframe.types import (
    Annotation,
    DatasetInfo,
    FloatArray,
    Prediction,
    Run,
    Sample,
    ScoreMap,
    Status,
    Threshold,
    check_image,
)


class GuessParams(Parameters):
    """The parameters of a control."""

    presence: Literal["all", "prevalent"] = Field(
        "all",
        description="Classes that it claims in every image: all, or those in half of the training images or more.",
    )


class Guess(Method):
    """A control: it draws a map without knowing the classes, and claims the same classes in every image."""

    learns_from = frozenset({Annotation.LABELS})

    params: GuessParams
    name: str

    @abstractmethod
    def draw(self, image: FloatArray, classes: int, seed: int) -> FloatArray:
        """Return a map for each class, float32 (K, H, W), in [0, 1], for an image (C, H, W)."""

    @abstractmethod
    def rule(self) -> Rule:
        """Return what cuts the maps."""

    @final
    def fit(self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, run: Run) -> FittedGuess:
        """Count how frequent each class is in the training images."""
        return FittedGuess(self, prevalence(train, info), info, run.seed, provenance(run.seed, info.fingerprint))

    @final
    def load(self, folder: Path, device: str = "auto") -> FittedGuess:
        """Read the frequencies of the classes."""
        saved = load_model(folder)
        if saved.method.name != f"micraframe/{self.name}":
            raise ModelError(f"{folder} holds a {saved.method.name}; a micraframe/{self.name} is wanted")
        frequencies, seed = saved.tensors["prevalence"].numpy(), int(saved.tensors["seed"])
        return FittedGuess(self, frequencies, saved.info, seed, saved.provenance)


@final
class FittedGuess(Fitted):
    """A control that knows how frequent the classes are.

    Attributes:
        prevalence: float32 (K,): share of the training images that hold the class; the score of every image.
    """

    def __init__(
        self, method: Guess, prevalence: FloatArray, info: DatasetInfo, seed: int, origin: Mapping[str, str]
    ) -> None:
        self.prevalence = prevalence
        self._method = method
        self._info = info
        self._seed = seed
        self._origin = origin

    def predict(self, images: Iterable[FloatArray]) -> Iterator[Prediction]:
        """Yield a prediction for each image, in order."""
        for number, image in enumerate(images):
            check_image(image, f"image {number}")
            if image.shape[0] != self._info.channels:
                raise ModelError(
                    f"image {number} has {image.shape[0]} channels; the model learned from images of "
                    f"{self._info.channels}"
                )
            yield self._predict(image)

    def save(self, folder: Path) -> None:
        """Write the frequencies of the classes to a new folder."""
        method = Choice(name=f"micraframe/{self._method.name}", params=self._method.params.model_dump(mode="json"))
        tensors = {"prevalence": torch.from_numpy(self.prevalence.copy()), "seed": torch.tensor(self._seed)}
        save_model(folder, ModelFile(method, self._info, self._origin, tensors))

    def _predict(self, image: FloatArray) -> Prediction:
        count, rule = len(self.prevalence), self._method.rule()
        least = 0.5 if self._method.params.presence == "prevalent" else 0.0
        present = self.prevalence >= least
        values = self._method.draw(image, count, self._seed)
        masks = np.stack([cut(one, one, rule) for one in values]) & present[:, None, None]
        constant = np.ptp(values, axis=(1, 2)) == 0
        status: list[Status] = ["constant" if flat else "ok" for flat in constant]
        decided: list[Status] = [
            "absent" if not here else "ok" if mask.any() else "constant" if flat else "empty"
            for here, mask, flat in zip(present, masks, constant, strict=True)
        ]
        cutting = rule.value if rule.name == "fixed" and rule.value is not None else np.nan
        return Prediction(
            scores=self.prevalence,
            present=present,
            masks=masks,
            status=tuple(decided),
            thresholds=(Threshold("presence", least), Threshold("mask", cutting, rule=str(rule))),
            score_map=ScoreMap(tuple(range(count)), values, values, tuple(status)),
            method=f"micraframe/{self._method.name}",
        )


def prevalence(samples: Sequence[Sample], info: DatasetInfo) -> FloatArray:
    """Return the share of the samples that hold each class, float32 (K,).

    Raises:
        DataError: If there is no sample, or one without labels of all classes.
    """
    if not samples:
        raise DataError(f"dataset {info.name!r} has no training samples to count classes in")
    counts = np.zeros(len(info.classes))
    for sample in samples:
        if sample.labels is None or len(sample.labels) != len(counts):
            what = "no labels" if sample.labels is None else f"labels of {len(sample.labels)} classes"
            raise DataError(f"sample {sample.id!r} has {what}; labels of {len(counts)} classes are wanted")
        counts += sample.labels
    return (counts / len(samples)).astype(np.float32)
