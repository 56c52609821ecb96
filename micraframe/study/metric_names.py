"""What a study's metrics will call their numbers: known before anything runs, by having them measure a square."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from micraframe import registry
from micraframe.config import Choice, Study
from micraframe.errors import ConfigError
from micraframe.metrics.evidence import ranks
from micraframe.types import Prediction, Sample, ScoreMap, Status

_SIDE = 16
"""Edge of the image with the square, in pixels."""


def check_names(study: Study, classes: int) -> None:
    """Check that the study's metrics measure what its report goes by.

    Of what is compared unless a study says otherwise, that which its metrics do not measure is left out.

    Args:
        study: With every component looked up.
        classes: Number of classes of a dataset.

    Raises:
        ConfigError: If no metric measures the primary number, or one that is compared; it names what there is.
    """
    known = names_of(study.metrics, classes)
    if known is None:
        return
    chosen = study.compared if study.compared != Study.model_fields["compared"].default else []
    for key, names in (("primary", [study.primary]), ("compared", chosen)):
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"{key}: no metric of this study measures {name!r}; there are: {', '.join(known)}; choose one of "
                    "these, or add a metric"
                )


def names_of(metrics: Sequence[Choice], classes: int) -> tuple[str, ...] | None:
    """Return the names of the numbers that metrics measure; None where one cannot be asked.

    Args:
        metrics: The metrics.
        classes: Number of classes K.
    """
    truth, prediction = _square(classes)
    found: dict[str, None] = {}
    for choice in metrics:
        metric = registry.build("metric", choice.name, **choice.params)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found |= dict.fromkeys(metric.measure(prediction, truth))
                found |= dict.fromkeys(ranks([metric], [prediction.scores], [truth.labels]))
        except Exception:  # a metric that wants more than a square has the study's own images to show what it measures
            return None
    return tuple(found)


def _square(classes: int) -> tuple[Sample, Prediction]:
    """Return one image with a square of each class, with all that can be known of it, and a perfect prediction."""
    masks = np.zeros((classes, _SIDE, _SIDE), np.bool_)
    masks[:, 4:12, 4:12] = True
    values = masks.astype(np.float32)
    ok: Status = "ok"
    truth = Sample(
        "square",
        values[:1],
        labels=np.ones(classes, np.bool_),
        points=tuple(np.full((1, 2), 7.5, np.float32) for _ in range(classes)),
        boxes=tuple(np.array([[4, 4, 12, 12]], np.float32) for _ in range(classes)),
        masks=masks,
        instances=masks.astype(np.int32),
    )
    prediction = Prediction(
        np.ones(classes, np.float32),
        np.ones(classes, np.bool_),
        masks,
        masks.astype(np.int32),
        tuple(np.array([[7.5, 7.5, 1]], np.float32) for _ in range(classes)),
        (ok,) * classes,
        score_map=ScoreMap(tuple(range(classes)), values, values, (ok,) * classes),
    )
    return truth, prediction
