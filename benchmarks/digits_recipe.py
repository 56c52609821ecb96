"""Compares training recipes for the U-Nets of `micraframe demo --digits` on its *validation* images.

    .venv/bin/python -m benchmarks.digits_recipe      # adds what is missing to benchmarks/studies/digits/recipes.csv

Test images are not read. Each recipe learns from outlines, with two seeds that the study does not use; recipes that
were behind with the first seed were not always tried with the second. The best that takes at most a minute is chosen,
so that the study's five U-Nets take five.
"""

from __future__ import annotations

import csv
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np

from micraframe import pipeline, registry
from micraframe.annotators.annotate import annotate_samples
from micraframe.config import Choice, Study, load
from micraframe.runtime.files import atomic
from micraframe.types import FitContext

DIGITS = Path(__file__).parents[1] / "micraframe" / "study" / "digits.yaml"
TABLE = Path(__file__).parent / "studies" / "digits" / "recipes.csv"
SEEDS = (1, 2)
COUNTS = {96: [1, 2, 3, 4, 5], 72: [1, 2, 3], 80: [3, 4, 5]}
"""Number of digits on images of each size: about as dense on the first two, and denser on those of the study."""

KEYS = (
    "size",
    "loss",
    "pos_weight",
    "batch_size",
    "epochs",
    "learning_rate",
    "optimiser",
    "schedule",
    "weight_decay",
)
RECIPES: tuple[tuple[Any, ...], ...] = (
    (96, "bce", None, 8, 4, 0.02, "adamw", "one-cycle", 0.01),
    (96, "bce", None, 8, 2, 0.02, "adamw", "one-cycle", 0.01),
    (96, "bce", None, 4, 2, 0.01, "adamw", "one-cycle", 0.01),
    (96, "bce", None, 4, 2, 0.02, "adamw", "one-cycle", 0.01),
    (96, "bce", None, 16, 2, 0.04, "adamw", "one-cycle", 0.01),
    (96, "bce+dice", None, 8, 4, 0.02, "adamw", "one-cycle", 0.01),
    (96, "bce+dice", None, 8, 2, 0.02, "adamw", "one-cycle", 0.01),
    (96, "bce", 5.0, 8, 4, 0.02, "adamw", "one-cycle", 0.01),
    (96, "bce", None, 8, 4, 0.01, "adamw", "one-cycle", 0.01),
    (72, "bce", None, 8, 6, 0.02, "adamw", "one-cycle", 0.01),
    (72, "bce", None, 4, 4, 0.02, "adamw", "one-cycle", 0.01),
    (96, "bce", None, 8, 4, 0.05, "adamw", "one-cycle", 0.01),
    (96, "bce", None, 8, 4, 0.005, "adam", "constant", 0.0),
    (96, "bce", None, 8, 4, 0.02, "adamw", "one-cycle", 0.0),
    (80, "bce", None, 8, 5, 0.02, "adamw", "one-cycle", 0.01),
)
"""Values of `KEYS`, in the order in which they were tried."""


def measure(recipe: dict[str, Any], seed: int) -> tuple[float, float]:
    """Return the mean over validation images of their mean IoU, and the seconds that training took."""
    study = load(DIGITS, Study)
    (choice,) = study.datasets
    digits = {"size": recipe["size"], "counts": COUNTS[recipe["size"]]}
    dataset = registry.build("dataset", choice.name, **choice.params | digits)
    (compared,) = (one for one in study.methods if one.label == "U-Net" and one.annotator.name == "micraframe/full")
    method = compared.method
    training = method.params["training"] | {key: value for key, value in recipe.items() if key not in ("size", "loss")}
    changed = Choice(name=method.name, params=method.params | {"loss": recipe["loss"], "training": training})
    annotator = registry.build("annotator", "micraframe/full")
    learns_from = registry.build("method", changed.name, **changed.params).learns_from
    train, valid = (
        annotate_samples(dataset.samples(split), annotator, learns_from, seed)[0] for split in ("train", "valid")
    )
    began = time.perf_counter()
    context = FitContext(seed, device=study.device)
    trained = pipeline.fit(changed, train, valid, dataset.info(), context, compared.head)
    seconds = time.perf_counter() - began
    overlap = registry.build("metric", "micraframe/overlap")
    predictions = trained.predict(sample.image for sample in valid)
    found = [overlap.measure(one, sample)["iou"] for one, sample in zip(predictions, valid, strict=True)]
    return float(np.mean([np.nanmean(one) for one in found if not np.isnan(one).all()])), seconds


def main() -> None:
    """Measure all recipes with all seeds, except those in the table."""
    rows: list[dict[str, str]] = []
    if TABLE.exists():
        with TABLE.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    for recipe, seed in itertools.product(RECIPES, SEEDS):
        named = {key: str(value) for key, value in {**dict(zip(KEYS, recipe, strict=True)), "seed": seed}.items()}
        if any(named.items() <= row.items() for row in rows):
            continue
        iou, seconds = measure(dict(zip(KEYS, recipe, strict=True)), seed)
        rows.append({**named, "iou": f"{iou:.4f}", "seconds": f"{seconds:.0f}"})
        print(rows[-1], flush=True)
        with atomic(TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
