"""Draws the gallery: one image, every extractor with every combiner; and the supervision ladder, every annotator.

    .venv/bin/python -m benchmarks.gallery      # writes docs/images/gallery.jpg and docs/images/ladder.jpg; minutes

The image is a part of the test image with the most nuclei, so no map chooses it. Two classifiers learn from labels of
the training crops: the paper's, and one whose pixels' evidence is pooled, which extractors `evidence` and `views` need.
Components have their default parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.first_screen import most_objects, outlines
from micraframe import pipeline, registry
from micraframe.builtin import COMPONENTS
from micraframe.config import Choice
from micraframe.errors import ConfigError
from micraframe.micranet import NAME, MicraNet, MicraNetModel
from micraframe.overlay import contours
from micraframe.runtime.files import atomic
from micraframe.study.pictures import panels
from micraframe.types import DatasetInfo, FitContext, FloatArray, Sample

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIZE = 128
"""Height and width of the part that is shown, in pixels."""

TRAINING = {
    "epochs": 6,
    "batch_size": 32,
    "optimiser": "adamw",
    "learning_rate": 5e-3,
    "schedule": "one-cycle",
    "early_stopping": None,
}
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "features": {
        "backbone": {"name": "unet-encoder", "params": {"widths": [8, 16, 32, 64], "norm": "narrow"}},
        "pooling": "max",
    },
    "evidence": {
        "backbone": {"name": "unet", "params": {"widths": [8, 16, 32], "norm": "narrow"}},
        "pooling": "log-sum-exp",
        "extractor": "evidence",
        "combiner": "evidence",
    },
}
"""Parameters of the two classifiers: what is pooled."""


EVIDENCE = ("evidence", "views")
"""Extractors whose maps are logits."""


def names(kind: str) -> list[str]:
    """Return the names of the built-in components of a kind."""
    return [name for name, _, _ in COMPONENTS[kind]]


def panel(model: MicraNetModel, extractor: str, combiner: str, image: FloatArray) -> FloatArray | str:
    """Return the map of class 0 by this pair, float32 (H, W) in [0, 1], or why the two do not go together."""
    if combiner == "evidence" and extractor not in EVIDENCE:
        return "maps are not logits"
    chosen = {"extractor": extractor, "combiner": combiner}
    params = MicraNet.Params.model_validate({**model.params.model_dump(), **chosen})
    try:
        return next(MicraNetModel(params, model.classifier, model.info).score([image], lambda presence: [0])).maps[0]
    except ConfigError:
        return "needs several layers"


def train(params: Mapping[str, Any], crops: Mapping[str, list[Sample]], info: DatasetInfo) -> MicraNetModel:
    """Return a classifier that learned from the labels of crops."""
    method = Choice(name=NAME, params={**params, "dropout": 0, "training": TRAINING})
    fitted = pipeline.fit(method, crops["train"], crops["valid"], info, FitContext(seed=0, device="cpu"))
    if not isinstance(fitted.model, MicraNetModel):
        raise TypeError(f"expected a model of micra-net, got {type(fitted.model).__name__}")
    return fitted.model


def part_of(sample: Sample) -> Sample:
    """Return the SIZE x SIZE part of a sample that shows the most objects."""
    if sample.masks is None or sample.instances is None:
        raise ValueError(f"{sample.id}: expected masks and instances, got neither or one; take another dataset")
    step = SIZE // 4
    height, width = sample.instances.shape[1:]
    places = [
        (slice(y, y + SIZE), slice(x, x + SIZE))
        for y in range(0, height - SIZE + 1, step)
        for x in range(0, width - SIZE + 1, step)
    ]
    rows, columns = max(places, key=lambda place: len(np.unique(sample.instances[0][place])))
    return Sample(
        id=sample.id,
        image=sample.image[:, rows, columns],
        labels=np.array([True]),
        masks=sample.masks[:, rows, columns],
        instances=sample.instances[:, rows, columns],
    )


def draw_gallery(sample: Sample, models: Mapping[str, MicraNetModel], path: Path) -> None:
    """Draw a row for each extractor and a column for each combiner."""
    extractors, combiners = names("extractor"), names("combiner")
    figure, axes = _grid(len(extractors), len(combiners) + 1)
    for row, extractor in zip(axes, extractors, strict=True):
        model = models["evidence" if extractor in EVIDENCE else "features"]
        row[0].imshow(sample.image[0], cmap="gray")
        row[0].set_ylabel(extractor, fontsize=9)
        for axis, combiner in zip(row[1:], combiners, strict=True):
            found = panel(model, extractor, combiner, sample.image)
            if isinstance(found, str):
                lines = found.replace(" ", "\n")
                axis.text(SIZE / 2, SIZE / 2, lines, ha="center", va="center", fontsize=8, color="gray")
            else:
                axis.imshow(found, cmap="magma", vmin=0, vmax=1)
    for axis, title in zip(axes[0], ("image", *combiners), strict=True):
        axis.set_title(title, fontsize=9)
    _save(figure, path)


def draw_ladder(sample: Sample, path: Path) -> None:
    """Draw what each annotator says about the image."""
    annotators = names("annotator")
    figure, axes = _grid(2, len(annotators) // 2)
    for axis, name in zip(axes.flat, annotators, strict=True):
        annotated, work = registry.build("annotator", name).annotate(sample, seed=0)
        axis.imshow(annotated.image[0], cmap="gray")
        axis.set_title(name, fontsize=9)
        if annotated.ignore is not None and annotated.masks is not None:  # strokes
            inside, outside = annotated.masks[0] & ~annotated.ignore, ~annotated.masks[0] & ~annotated.ignore
            orange, blue, clear = (1.0, 0.6, 0.0, 1.0), (0.3, 0.7, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0)
            axis.imshow(np.where(inside[..., None], orange, np.where(outside[..., None], blue, clear)))
        elif annotated.masks is not None:
            axis.imshow(contours(annotated.masks if annotated.instances is None else outlines(annotated), None))
        for x, y in annotated.points[0][:, ::-1] if annotated.points else ():
            axis.plot(x, y, "o", color="orange", markersize=3)
        for y0, x0, y1, x1 in annotated.boxes[0] if annotated.boxes else ():
            axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="orange", linewidth=1)
        if work.task == "image-level":
            axis.text(5, 120, "nucleus: yes", color="black", backgroundcolor="orange", fontsize=8)
        axis.set_xlabel(f"{work.task}: {work.objects or 'no'} objects", fontsize=8)
    _save(figure, path)


def _grid(rows: int, columns: int) -> tuple[Figure, Any]:
    figure, axes = panels(rows, columns, (1.35 * columns, 1.42 * rows), dpi=100)
    for axis in axes.flat:
        axis.set(xlim=(-0.5, SIZE - 0.5), ylim=(SIZE - 0.5, -0.5), aspect="equal")
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, format="jpg", pil_kwargs={"quality": 85})


def main() -> None:
    """Train both classifiers and draw both pictures."""
    dataset = registry.build("dataset", "nuclei-sample", crop=64)
    labels = registry.build("annotator", "image-level")
    crops = {
        split: [labels.annotate(sample, seed=0)[0] for sample in dataset.samples(split)] for split in ("train", "valid")
    }
    shown = part_of(most_objects(registry.build("dataset", "nuclei-sample", crop=None).samples("test")))
    draw_ladder(shown, IMAGES / "ladder.jpg")
    models = {name: train(params, crops, dataset.info()) for name, params in NETWORKS.items()}
    draw_gallery(shown, models, IMAGES / "gallery.jpg")


if __name__ == "__main__":
    main()
