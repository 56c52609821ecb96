"""The head that only decides which classes are in the image."""

from __future__ import annotations

from typing import final

from micraframe.interfaces import Head, HeadParams
from micraframe.thresholds import presence_records
from micraframe.types import DatasetInfo, FloatArray, Prediction, Scores


@final
class ClassificationHead(Head[HeadParams]):
    """Which classes are in the image. It makes no masks, so nothing needs to be explained."""

    def classes_to_explain(self, presence: FloatArray) -> tuple[int, ...]:
        """Return no class."""
        return ()

    def decide(self, scores: Scores, image: FloatArray, info: DatasetInfo) -> Prediction:
        """Return whether each class is present."""
        present = self.present(scores.presence)
        return Prediction(
            scores,
            present,
            status=tuple("ok" if here else "absent" for here in present),
            thresholds=presence_records(self.params.presence_threshold),
        )
