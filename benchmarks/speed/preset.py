"""What does the recommended method, `best-from-labels`, cost where it is used, and what does its training cost?

Using it is one forward pass of its student. It is compared with the plain reference at the same image size, and with
bare forward passes of the same network. Training it is compared with training the paper's classifier on the same
crops, for as many passes, at the paper's widths and at a quarter of them: the demo's recipe of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.speed import reference
from benchmarks.speed.subject import CLASSES, NARROW, NUMBER, WIDTHS, classifier, digits, pipeline
from benchmarks.speed.timing import Record, Settings, record, take_turns
from micraframe import pipeline as pipelines
from micraframe import registry
from micraframe.annotators.annotate import annotate_samples
from micraframe.best_from_labels import BestFromLabels, recipe
from micraframe.config import Choice
from micraframe.pipeline import Pipeline
from micraframe.types import Annotation, FitContext, Sample


def records(settings: Settings) -> list[Record]:
    """Return what prediction costs, and what training costs."""
    return [*prediction(settings), *training(settings)]


def prediction(settings: Settings) -> list[Record]:
    """Measure images to masks of three classes, eight images of 256 x 256; weights are random, which costs the same."""
    images = digits(2 if settings.quick else 8, 128 if settings.quick else 256)
    network = classifier(NARROW if settings.quick else WIDTHS, settings.device)
    info = pipeline(network).info
    model = registry.build("method", "best-from-labels").untrained(info)
    presence = [0.0 if index in CLASSES else 1.0 for index in range(NUMBER)]
    rule = {"name": "fixed", "value": 0.5}
    head = registry.build("head", "semantic", presence_threshold=presence, mask_threshold=rule)
    student = Pipeline(Choice(name="best-from-labels"), model, "micraframe/semantic", head, info)
    batch = torch.from_numpy(images)

    def bare() -> None:
        with torch.inference_mode():
            model.network(batch)

    seconds = take_turns(
        {
            "ours": lambda: list(student.predict(images)),
            "bare": bare,
            "reference": lambda: reference.masks(network, images, CLASSES),
        },
        settings,
    )
    return [
        record("best-from-labels: image to mask", "seconds: micraframe", seconds["ours"], "seconds"),
        record(
            "best-from-labels: the plain reference",
            "the plain reference / best-from-labels",
            seconds["reference"] / seconds["ours"],
            target=">= 10",
        ),
        record(
            "best-from-labels: over bare passes",
            "best-from-labels / bare forward passes of its network",
            seconds["ours"] / seconds["bare"],
            target="<= 1.3",
        ),
    ]


def training(settings: Settings) -> list[Record]:
    """Measure a training of each, on crops of the embedded nuclei."""
    dataset = registry.build("dataset", "nuclei-sample", crop=64)
    # So short a training leaves a map without high values: any are structure, for nothing else costs less.
    best = recipe(BestFromLabels.Params(epochs=1 if settings.quick else 2)) | {"threshold": 0.01, "band": 0.0}
    quarter, whole = (
        {
            "backbone": {"name": "unet-encoder", "params": {"widths": widths, "norm": "narrow"}},
            "dropout": 0.0,
            "training": best["student"]["params"]["training"],
        }
        for widths in ([8, 16, 32, 64], list(WIDTHS))
    )
    labeller = registry.build("annotator", "image-level")
    parts = [
        annotate_samples(dataset.samples(split)[:count], labeller, frozenset({Annotation.LABELS}), 0)[0]
        for split, count in (("train", 32 if settings.quick else 192), ("valid", 32))
    ]

    def fit(name: str, values: dict[str, Any], train: Sequence[Sample], valid: Sequence[Sample]) -> None:
        context = FitContext(device=settings.device)
        pipelines.fit({"name": name, "params": values}, train, valid, dataset.info(), context)

    seconds = take_turns(
        {
            "best": lambda: fit("self-training", best, *parts),
            "quarter": lambda: fit("micra-net", quarter, *parts),
            "whole": lambda: fit("micra-net", whole, *parts),
        },
        settings,
    )
    return [
        record("best-from-labels: training", "seconds: micraframe", seconds["best"], "seconds"),
        record(
            "best-from-labels: training over a classifier's",
            "best-from-labels / the paper's classifier, a quarter as wide, as many passes",
            seconds["best"] / seconds["quarter"],
            target="<= 4",
        ),
        record(
            "best-from-labels: training over a classifier's at the paper's widths",
            "best-from-labels / the paper's classifier, as many passes",
            seconds["best"] / seconds["whole"],
            target="<= 4",
        ),
    ]
