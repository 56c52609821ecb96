"""Tries how the demo's U-Nets could learn, and measures each recipe on the demo's *validation* images.

    .venv/bin/python -m benchmarks.demo_recipe      # writes benchmarks/studies/demo/recipes.csv

Test images are not read. Each recipe learns from outlines with two seeds, neither of which is the demo's own; what is
wanted is a good one among those that take a minute, so that the demo's five U-Nets take five.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np

from micraframe import registry
from micraframe.config import Study, load
from micraframe.files import atomic
from micraframe.types import Run, Sample

DEMO = Path(__file__).parents[1] / "micraframe" / "study" / "demo.yaml"
TABLE = Path(__file__).parent / "studies" / "demo" / "recipes.csv"
SEEDS = (1, 2)
RECIPES: tuple[dict[str, Any], ...] = tuple(
    {"loss": loss, "batch_size": batch_size, "epochs": epochs, "learning_rate": rate}
    for loss in ("bce", "bce+dice")
    for batch_size, epochs, rate in ((8, 4, 2e-2), (8, 2, 2e-2), (4, 2, 1e-2), (4, 2, 2e-2), (16, 2, 4e-2))
)


def measure(recipe: dict[str, Any], seed: int) -> tuple[float, float]:
    """Return the mean over validation images of their mean IOU, and the seconds that learning took."""
    demo = load(DEMO, Study)
    (choice,) = demo.datasets
    dataset = registry.build("dataset", choice.name, **choice.params)
    (method,) = (
        one.method for one in demo.contenders if one.label == "U-Net" and one.annotator.name == "micraframe/full"
    )
    training = method.params["training"] | {key: value for key, value in recipe.items() if key != "loss"}
    params = method.params | {"loss": recipe["loss"], "training": training}
    annotator = registry.build("annotator", "full")
    given: list[list[Sample]] = [
        [annotator.annotate(sample, seed)[0] for sample in dataset.samples(split)] for split in ("train", "valid")
    ]
    began = time.perf_counter()
    fitted = registry.build("method", method.name, **params).fit(*given, dataset.info(), Run(seed, device=demo.device))
    seconds = time.perf_counter() - began
    overlap = registry.build("metric", "overlap")
    predictions = fitted.predict(sample.image for sample in given[1])
    found = [overlap.measure(one, sample)["iou"] for one, sample in zip(predictions, given[1], strict=True)]
    return float(np.mean([np.nanmean(one) for one in found if not np.isnan(one).all()])), seconds


def main() -> None:
    """Measure all recipes with all seeds; each line is written as soon as it is known."""
    rows: list[dict[str, Any]] = []
    for recipe in RECIPES:
        for seed in SEEDS:
            iou, seconds = measure(recipe, seed)
            rows.append({**recipe, "seed": seed, "iou": f"{iou:.4f}", "seconds": f"{seconds:.0f}"})
            print(rows[-1], flush=True)
            with atomic(TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
