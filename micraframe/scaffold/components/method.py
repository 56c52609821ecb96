"""A method: it learns a model from annotated samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from micraframe.interfaces import ClassRule, Method, Model
from micraframe.parameters import Parameters
from micraframe.types import Annotation, DatasetInfo, FitContext, FloatArray, Sample, Scores


@final
class BrightnessMap(Method[Parameters]):
    """A class is as probable as it is frequent in the training samples, and where the image is bright."""

    learns_from = frozenset({Annotation.LABELS})
    uses_validation = False
    deterministic = True

    def fit(self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext) -> Model:
        """Learn how frequent each class is."""
        labels = [sample.labels for sample in train if sample.labels is not None]
        return _Model(torch.from_numpy(np.mean(labels, axis=0, dtype=np.float32)))

    def restore(self, state: Mapping[str, Tensor], info: DatasetInfo, device: str) -> Model:
        """Return the model whose state this is."""
        return _Model(state["frequency"])


@final
class _Model(Model):
    def __init__(self, frequency: Tensor) -> None:
        self._frequency = frequency

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        presence = self._frequency.numpy()
        classes = tuple(rule(presence))
        for image in images:
            bright = np.clip(image.mean(axis=0), 0, 1)
            yield Scores(presence, classes, np.repeat(bright[None], len(classes), axis=0))

    def state(self) -> Mapping[str, Tensor]:
        return {"frequency": self._frequency}
