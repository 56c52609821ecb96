"""Makes the numbers of docs/objects.md, "White cells from presence labels of crops".

    MICRAFRAME_DATA=... .venv/bin/python -m benchmarks.blood_cells FOLDER              # test fields, recommended head
    MICRAFRAME_DATA=... .venv/bin/python -m benchmarks.blood_cells FOLDER --valid      # validation fields, other heads

The recipe is the page's own YAML. It is trained three times, each on other fields and with another seed. FOLDER keeps
the models: those that are there are measured, not trained again. Boxes stand in for the person who labels the crops.
With `--valid`, fields that any split tests on are left out: no number on them was seen when the head was chosen.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ruamel.yaml import YAML

import micraframe
from micraframe import pipeline, registry
from micraframe.annotators.annotate import annotate_samples
from micraframe.config import Choice
from micraframe.datasets.paths import resolve
from micraframe.interfaces import every_class
from micraframe.types import Annotation, FitContext

PAGE = Path(__file__).parents[1] / "docs" / "objects.md"
SEEDS = (0, 1, 2)
PARTS = {"train": 122, "valid": 61, "test": 61}
DISTANCE = 20
"""Pixels of the image files."""

CELL = "WBC"
SCALE = 0.25


def recipe() -> tuple[Choice, Choice]:
    """Return the method and the head of the page."""
    (block,) = re.findall(r"```yaml\n(method:.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    values = YAML(typ="safe").load(block)
    return Choice.model_validate(values["method"]), Choice.model_validate(values["head"])


def heads(recommended: Choice) -> dict[str, Choice]:
    """Return what is compared on validation fields: the recommended head, and variants of it."""

    def changed(level: float, **params: Any) -> Choice:
        threshold = {"mask_threshold": {"name": "fixed", "value": level}}
        return Choice(name=recommended.name, params=recommended.params | threshold | params)

    absolute = {f"threshold {level}": changed(level) for level in (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)}
    relative = {f"{share} of a field's range": changed(share, rescale="coarse") for share in (0.4, 0.45, 0.5, 0.6)}
    return {"recommended": recommended, **absolute, **relative}


def split(names: list[str], seed: int) -> dict[str, list[str]]:
    """Return the fields of each part, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(names))
    ends = np.cumsum(list(PARTS.values()))[:-1]
    return {part: [names[i] for i in drawn] for part, drawn in zip(PARTS, np.split(order, ends), strict=True)}


def dataset(source: Path, folder: Path, parts: dict[str, list[str]], **params: Any) -> Any:
    """Return the fields as `folder` reads them, with the boxes of white cells only."""
    with (source / "boxes.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["class"] == CELL]
    places = [{"image": name, "split": part} for part, names in parts.items() for name in names]
    for file, table in (("boxes.csv", rows), ("splits.csv", places)):
        with (folder / file).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, table[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    return registry.build(
        "dataset",
        "micraframe/folder",
        images=str(source / "images"),
        boxes=str(folder / "boxes.csv"),
        index=str(folder / "splits.csv"),
        classes=[CELL],
        unlabelled="negative",
        positive_rule="visible",
        visible=0.5,
        ambiguous_train_crops="negative",
        crop=64,
        stride=32,
        scale=SCALE,
        normalisation={"kind": "percentile", "scope": "train"},
        **params,
    )


def trained(source: Path, folder: Path, parts: dict[str, list[str]], seed: int) -> Path:
    """Train on labels of crops, unless it has been done; return the model's folder."""
    model = folder / "model"
    if not model.exists():
        crops, (method, head) = dataset(source, folder, parts), recipe()
        annotator = registry.build("annotator", "micraframe/image-level")
        only = frozenset({Annotation.LABELS})
        train, valid = (annotate_samples(crops.samples(part), annotator, only, seed)[0] for part in ("train", "valid"))
        print(f"seed {seed}: {len(train)} crops to train on", flush=True)
        pipeline.fit(method, train, valid, crops.info(), FitContext(seed), head).save(model)
    return model


def main(
    folder: Annotated[Path, typer.Argument(help="Where the models are kept.")],
    valid: Annotated[bool, typer.Option("--valid", help="Compare heads on validation fields.")] = False,
) -> None:
    """Train what is missing, and print F1 of positions for each head and seed."""
    source = resolve("$MICRAFRAME_DATA/bccd_blood")
    names = sorted(path.name for path in (source / "images").iterdir())
    splits = {seed: split(names, seed) for seed in SEEDS}
    tested = {name for parts in splits.values() for name in parts["test"]}
    metric = registry.build("metric", "micraframe/detection", distance=DISTANCE * SCALE)
    _, recommended = recipe()
    compared = heads(recommended) if valid else {"recommended": recommended}
    found: dict[str, list[float]] = {}
    for seed, parts in splits.items():
        place = folder / f"seed{seed}"
        place.mkdir(parents=True, exist_ok=True)
        model = micraframe.load(trained(source, place, parts, seed))
        if valid:
            kept = [name for name in parts["valid"] if name not in tested]
            parts = {**parts, "valid": kept, "none": [name for name in parts["valid"] if name in tested]}
        fields = dataset(source, place, parts, whole_images=["valid", "test"]).samples("valid" if valid else "test")
        scores = list(model.score((field.image for field in fields), every_class))
        for label, head in compared.items():
            other = model.with_head(head)
            rows = [
                metric.measure(other.decide(each, field.image), field)
                for each, field in zip(scores, fields, strict=True)
            ]
            true, predicted, hits = (
                int(sum(np.nansum(row[f"detection_{key}"]) for row in rows)) for key in ("true", "predicted", "tp")
            )
            f1 = 2 * hits / max(true + predicted, 1)
            found.setdefault(label, []).append(f1)
            print(f"seed {seed}, {label}: F1 {f1:.3f}, {hits} of {true} cells, {predicted} found", flush=True)
    for label, values in found.items():
        print(f"{label}: mean {np.mean(values):.3f}, from {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    typer.run(main)
