"""How long does it take from images to masks, are the masks correct, and how does bfloat16 change them?

python -m benchmarks.speed.masks    # where masks in bfloat16 and float32 differ, and why
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.speed import reference
from benchmarks.speed.subject import CLASSES, NARROW, WIDTHS, assemble, bare_passes, classifier, digits, pipeline
from benchmarks.speed.timing import Record, Settings, record, take_turns
from micraframe import pipeline as pipelines
from micraframe import registry
from micraframe.config import Choice
from micraframe.micranet import MicraNet, MicraNetModel
from micraframe.pipeline import Pipeline
from micraframe.thresholds import ThresholdRule, threshold
from micraframe.types import BoolArray, FitContext, FloatArray, Maps, Prediction, Sample

LIKE = 0.9
"""IOU of two masks, and cosine between two components, from which they count as alike."""


class Steps(NamedTuple):
    """The maps of an image, and the prediction that they led to."""

    maps: Maps
    prediction: Prediction


def records(settings: Settings) -> list[Record]:
    """Return the speed-up over the plain reference, the similarity of the masks, and the effect of bfloat16."""
    return [*against_reference(settings), *bfloat16(settings)]


def against_reference(settings: Settings) -> list[Record]:
    """Measure images to masks of three classes, eight images of 256 x 256."""
    network = classifier(NARROW if settings.quick else WIDTHS, settings.device)
    images = digits(2 if settings.quick else 8, 128 if settings.quick else 256)
    ours, short = pipeline(network), pipeline(network, precision="bfloat16")
    seconds = take_turns(
        {
            "ours": lambda: list(ours.predict(images)),
            "bfloat16": lambda: list(short.predict(images)),
            "bare": lambda: bare_passes(network, images),
            "reference": lambda: reference.masks(network, images, CLASSES),
            "randomised": lambda: reference.masks(network, images, CLASSES, "randomized"),
        },
        settings,
    )
    expected = reference.masks(network, images, CLASSES)
    found = np.stack([prediction.masks[list(CLASSES)] for prediction in ours.predict(images)])
    return [
        record("image to mask", "seconds: micraframe", seconds["ours"], "seconds"),
        record(
            "image to mask: the plain reference",
            "the plain reference / micraframe",
            seconds["reference"] / seconds["ours"],
            target=">= 20",
        ),
        record(
            "image to mask: the plain reference, randomised",
            "the plain reference with the PCA of scikit-learn before 1.5 / micraframe",
            seconds["randomised"] / seconds["ours"],
        ),
        record("image to mask: bfloat16", "micraframe / micraframe, bfloat16", seconds["ours"] / seconds["bfloat16"]),
        record("image to mask: over bare passes", "micraframe / bare torch passes", seconds["ours"] / seconds["bare"]),
        record(
            "image to mask: same masks",
            "micraframe and the plain reference, each image and class",
            overlaps(expected.reshape(-1, *expected.shape[2:]), found.reshape(-1, *found.shape[2:])),
            "IOU",
            ">= 0.99",
        ),
    ]


def bfloat16(settings: Settings) -> list[Record]:
    """Train a network on digits, and compare its masks in bfloat16 with those in float32, and both with the truth."""
    model, test = trained(settings)
    exact, short = (
        np.concatenate([each.prediction.masks for each in steps_in(precision, model, test)])
        for precision in ("float32", "bfloat16")
    )
    truth = np.concatenate([sample.masks for sample in test])
    present = truth.any((1, 2))
    exact, short, truth = exact[present], short[present], truth[present]
    return [
        record(
            "bfloat16: same masks",
            "bfloat16 and float32, each image and class that is in it",
            overlaps(exact, short),
            "IOU",
        ),
        *(
            record(
                f"bfloat16: {name} and the truth",
                f"{name} and the truth, mean over images and classes",
                [np.mean(overlaps(truth, found))],
                "IOU",
            )
            for name, found in (("float32", exact), ("bfloat16", short))
        ),
    ]


def trained(settings: Settings) -> tuple[Pipeline, list[Sample]]:
    """Return a network that was trained on digits, and test images."""
    dataset = registry.build(
        "dataset", "modified-digits", size=96, counts=(1, 2, 3, 4, 5), train=64 if settings.quick else 2000, valid=32
    )
    training = {
        "epochs": 1 if settings.quick else 6,
        "batch_size": 16,
        "optimiser": "adamw",
        "learning_rate": 1e-2,
        "schedule": "one-cycle",
        "pos_weight": None,
        "augmentations": [],
    }
    params = {
        "backbone": {"name": "unet-encoder", "params": {"widths": [8, 16, 32, 64], "norm": "narrow"}},
        "dropout": 0.0,
        "training": training,
    }
    method = {"name": "micra-net", "params": params}
    context = FitContext(device=settings.device)
    model = pipelines.fit(method, dataset.samples("train"), dataset.samples("valid"), dataset.info(), context)
    return model, dataset.samples("test")[: 16 if settings.quick else 200]


def steps_in(precision: str, trained: Pipeline, samples: Iterable[Sample]) -> list[Steps]:
    """Return the maps and predictions of each sample in a precision, of all classes, present or not."""
    assert isinstance(trained.model, MicraNetModel)
    images = [sample.image for sample in samples]
    params = MicraNet.Params(extractor=Choice(name="grad-cam", params={"precision": precision}))
    predictor = assemble(params, trained.model.classifier, trained.info)
    return steps_of(predictor.with_head(Choice(name="semantic", params={"presence_threshold": 0.0})), images)


def steps_of(predictor: Pipeline, images: Sequence[FloatArray]) -> list[Steps]:
    """Return the maps and prediction of each image."""
    model = predictor.model
    assert isinstance(model, MicraNetModel)
    return [
        Steps(maps, predictor.decide(model.combine(maps, image), image))
        for maps, image in zip(model.explain(images, predictor.head.classes_to_explain), images, strict=True)
    ]


def causes(settings: Settings) -> None:
    """Print how many masks in bfloat16 and float32 overlap by less than 0.9, and what differs first, and how far."""
    model, test = trained(settings)
    exact, short = (steps_in(precision, model, test) for precision in ("float32", "bfloat16"))
    found: Counter[str] = Counter()
    lowest: dict[str, float] = {}
    aligned: dict[str, list[float]] = {}
    number = 0
    for sample, one, other in zip(test, exact, short, strict=True):
        assert sample.masks is not None
        for index in np.flatnonzero(sample.masks.any((1, 2))):
            number += 1
            [overlap] = overlaps(one.prediction.masks[[index]], other.prediction.masks[[index]])
            cause = "alike" if overlap >= LIKE else why(one, other, int(index))
            found[cause] += 1
            lowest[cause] = min(overlap, lowest.get(cause, 1.0))
            aligned.setdefault(cause, []).append(alignment(one, int(index)))
    print(f"{number} images and classes in them; alike is an IOU of at least {LIKE}")
    for cause, count in found.most_common():
        low, middle = np.min(aligned[cause]), np.median(aligned[cause])
        print(f"{count:5d}  {cause}; the lowest IOU {lowest[cause]:.3f}; alignment from {low:.3f}, median {middle:.3f}")
    print("alignment: correlation of the map with the deepest layer's, by which the component's sign is chosen")


def alignment(steps: Steps, index: int) -> float:
    """Return the correlation of a class's map with the positive part of the deepest layer's map."""
    values, deepest = steps.prediction.scores.maps[index], np.maximum(steps.maps.maps[-1][index], 0)
    sides = [length // short for length, short in zip(values.shape, deepest.shape, strict=True)]
    return float(np.corrcoef(values.ravel(), np.kron(deepest, np.ones(sides)).ravel())[0, 1])


def why(one: Steps, other: Steps, index: int) -> str:
    """Return the first difference on the way to two masks of a class."""
    maps = (one.prediction.scores, other.prediction.scores)
    if maps[0].status[index] != maps[1].status[index]:
        return f"status {maps[0].status[index]} and {maps[1].status[index]}"
    loadings = [np.array(list(each.notes[index]["loadings"].values())) for each in maps]
    cosine = float(loadings[0] @ loadings[1])
    if abs(cosine) < LIKE:
        return "another component"
    if cosine < 0:
        return "the same component, inverted"
    first, second = (each.maps[index] for each in maps)
    level = threshold(first, ThresholdRule())
    [overlap] = overlaps((first > level)[None], (second > level)[None])
    return "another threshold" if overlap >= LIKE else "other values"


def overlaps(first: BoolArray, second: BoolArray) -> list[float]:
    """Return the IOU of each pair of masks, bool (N, H, W); two empty ones agree."""
    union = np.count_nonzero(first | second, axis=(1, 2))
    shared = np.count_nonzero(first & second, axis=(1, 2))
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0).tolist()


if __name__ == "__main__":
    causes(Settings())
