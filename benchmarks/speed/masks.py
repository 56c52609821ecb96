"""How long does it take from images to masks, are the masks the right ones, and what does bfloat16 do to them?

python -m benchmarks.speed.masks    # where masks in bfloat16 and float32 differ, and why
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from benchmarks.speed import reference
from benchmarks.speed.subject import CLASSES, NARROW, WIDTHS, bare_passes, classifier, digits, pipeline
from benchmarks.speed.timing import Record, Settings, record, take_turns
from micraframe import registry
from micraframe.config import Choice
from micraframe.micranet import FittedMicraNet, MicraNet, Steps
from micraframe.thresholds import Rule, threshold
from micraframe.types import BoolArray, Run, Sample

LIKE = 0.9
"""IOU of two masks, and cosine between two components, from which they count as alike."""


def records(settings: Settings) -> list[Record]:
    """Return the speed-up over the plain reference, how alike the masks are, and the effect of bfloat16."""
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
    wanted = reference.masks(network, images, CLASSES)
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
            overlaps(wanted.reshape(-1, *wanted.shape[2:]), found.reshape(-1, *found.shape[2:])),
            "IOU",
            ">= 0.99",
        ),
    ]


def bfloat16(settings: Settings) -> list[Record]:
    """Train a network on digits, and compare its masks in bfloat16 with those in float32, and both with the truth."""
    fitted, test = trained(settings)
    exact, short = (
        np.concatenate([each.prediction.masks for each in steps_in(precision, fitted, test)])
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


def trained(settings: Settings) -> tuple[FittedMicraNet, list[Sample]]:
    """Return a network that learned digits, and the images to try it on."""
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
        "backbone": {"name": "unet-encoder", "params": {"widths": [8, 16, 32, 64]}},
        "dropout": 0.0,
        "training": training,
    }
    method = MicraNet(MicraNet.Params.model_validate(params))
    run = Run(device=settings.device)
    fitted = method.fit(dataset.samples("train"), dataset.samples("valid"), dataset.info(), run)
    fitted.classifier.to(settings.device)
    return fitted, [dataset.samples("test")[index] for index in range(16 if settings.quick else 200)]


def steps_in(precision: str, fitted: FittedMicraNet, samples: Iterable[Sample]) -> list[Steps]:
    """Return what is made of each sample in a precision, of all classes, present or not."""
    choices = {
        "extractor": Choice(name="grad-cam", params={"precision": precision}),
        "head": Choice(name="semantic", params={"decision": 0.0}),
    }
    params = MicraNet.Params().model_copy(update=choices)
    predictor = FittedMicraNet(params, fitted.classifier, fitted.info, {})
    return list(predictor.steps(sample.image for sample in samples))


def causes(settings: Settings) -> None:
    """Print how many masks in bfloat16 and float32 overlap by less than 0.9, and what of them differs, and how far."""
    fitted, test = trained(settings)
    exact, short = (steps_in(precision, fitted, test) for precision in ("float32", "bfloat16"))
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
    print("alignment: correlation of the score map with the deepest layer's, by which the component's sign is chosen")


def alignment(steps: Steps, index: int) -> float:
    """Return the correlation of a class's score map with what the deepest layer's map has above 0."""
    values, deepest = steps.score_map.values[index], np.maximum(steps.maps.maps[-1][index], 0)
    sides = [length // short for length, short in zip(values.shape, deepest.shape, strict=True)]
    return float(np.corrcoef(values.ravel(), np.kron(deepest, np.ones(sides)).ravel())[0, 1])


def why(one: Steps, other: Steps, index: int) -> str:
    """Return what differs first on the way to two masks of a class."""
    maps = (one.score_map, other.score_map)
    if maps[0].status[index] != maps[1].status[index]:
        return f"status {maps[0].status[index]} and {maps[1].status[index]}"
    loadings = [np.array(list(each.notes[index]["loadings"].values())) for each in maps]
    cosine = float(loadings[0] @ loadings[1])
    if abs(cosine) < LIKE:
        return "another component"
    if cosine < 0:
        return "the same component, inverted"
    first, second = (each.values[index] for each in maps)
    level = threshold(first, Rule())
    [overlap] = overlaps((first > level)[None], (second > level)[None])
    return "another threshold" if overlap >= LIKE else "other values"


def overlaps(first: BoolArray, second: BoolArray) -> list[float]:
    """Return the IOU of each pair of masks, bool (N, H, W); two empty ones agree."""
    union = np.count_nonzero(first | second, axis=(1, 2))
    shared = np.count_nonzero(first & second, axis=(1, 2))
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0).tolist()


if __name__ == "__main__":
    causes(Settings())
