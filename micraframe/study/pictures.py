"""Pictures of a study: MICRA-Net's steps from maps to masks. The report shows every method's masks side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from micraframe import registry
from micraframe.config import Study
from micraframe.metrics.masks_and_labels import masks_of
from micraframe.micranet import NAME as MICRA_NET
from micraframe.micranet import MicraNetModel
from micraframe.overlay import overlay, to_rgb
from micraframe.pipeline import load
from micraframe.runtime.files import atomic
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import StudyRun
from micraframe.study.report.wording import slugs
from micraframe.types import Maps, Prediction, Sample


def draw(runs: Sequence[StudyRun], study: Study, folder: StudyFolder) -> tuple[Path, ...]:
    """Draw the steps of each MICRA-Net on test images, for the first seed.

    Args:
        runs: The completed runs.
        study: The study.
        folder: Where the results are; files go to its `pictures`.

    Returns:
        The files.
    """
    if not study.pictures:
        return ()
    pictures: list[Path] = []
    names = list(dict.fromkeys(run.info.name for run in runs))
    for name, slug in zip(names, slugs(names), strict=True):
        mine = [run for run in runs if run.info.name == name and run.seed == study.seeds[0]]
        micranets = [run for run in mine if run.compared.method.name == MICRA_NET and folder.is_trained(run)]
        if not micranets:
            continue
        choice = micranets[0].dataset
        test = registry.build("dataset", choice.name, **choice.params).samples("test")
        chosen = [test[number] for number in evenly(test, study.pictures)]
        # The maps of an image that is cut into tiles are not those that its masks were made from.
        tiling = study.tiling
        whole = [each for each in chosen if tiling is None or not tiling.cuts(each.image.shape[1:])]
        if not whole:
            continue
        stems = slugs([f"{slug} {run.method}" for run in micranets])
        for run, stem in zip(micranets, stems, strict=True):
            pictures.append(folder.path / "pictures" / f"{stem}-steps.png")
            _draw_steps(pictures[-1], whole, _steps(run, whole, study, folder), run.info.classes)
    return tuple(pictures)


def _steps(
    run: StudyRun, samples: Sequence[Sample], study: Study, folder: StudyFolder
) -> Iterator[tuple[Maps, Prediction]]:
    """Yield the maps and the prediction of a MICRA-Net for each sample."""
    pipeline = load(folder.model(run), study.device, head=folder.head(run), tiling=None, **run.inference)
    model, images = pipeline.model, [sample.image for sample in samples]
    assert isinstance(model, MicraNetModel)
    for image, maps in zip(images, model.explain(images, pipeline.head.classes_to_explain), strict=True):
        yield maps, pipeline.decide(model.combine(maps, image), image)


def evenly(samples: Sequence[Sample], count: int) -> tuple[int, ...]:
    """Return the indices of `count` samples, evenly spaced among those with any class, or among all where none has one.

    No prediction influences the choice.
    """
    positive = [number for number, sample in enumerate(samples) if sample.labels is not None and sample.labels.any()]
    numbers = positive or range(len(samples))
    places = np.linspace(0, len(numbers) - 1, min(count, len(numbers)))
    return tuple(sorted({numbers[round(place)] for place in places}))


def _draw_steps(
    path: Path, samples: Sequence[Sample], steps: Iterable[tuple[Maps, Prediction]], classes: tuple[str, ...]
) -> None:
    """Draw one row per image: the image, each layer's map of its most probable class, the combined map, mask and truth.

    Args:
        path: The PNG file to write.
        samples: With masks, boxes or points, which are drawn as the truth; without any, that panel stays blank.
        steps: MICRA-Net's maps and prediction of each sample, in the same order.
        classes: Names of the K classes.
    """
    rows = list(zip(samples, steps, strict=True))
    layers = [layer.name for layer in rows[0][1][0].layers]
    titles = ["image", *layers, "combined", "mask", "truth"]
    figure, axes = panels(len(rows), len(titles), (1.7 * len(titles), 1.7 * len(rows) + 0.5), dpi=80)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=7)
    for row, (sample, (maps, prediction)) in zip(axes, rows, strict=True):
        row[0].imshow(to_rgb(sample.image))
        if not maps.classes:
            row[1].text(0.5, 0.5, "no class\nfound", ha="center", va="center", fontsize=6, transform=row[1].transAxes)
            continue
        place = int(np.argmax(maps.presence[list(maps.classes)]))
        index = maps.classes[place]
        row[0].set_ylabel(f"{classes[index]}\n{maps.presence[index]:.2f}", fontsize=7)
        for axis, array in zip(row[1:], maps.maps, strict=False):
            # Signed: white is zero, whatever the range.
            limit = float(np.abs(array[place]).max()) or 1.0
            axis.imshow(array[place], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        row[-3].imshow(prediction.scores.maps[place], cmap="viridis", vmin=0, vmax=1)
        truth = masks_of(sample)
        for axis, masks in ((row[-2], prediction.masks), (row[-1], truth)):
            if masks is not None:
                axis.imshow(overlay(sample.image, masks[index : index + 1]))
        if truth is None and (sample.boxes is not None or sample.points is not None):
            row[-1].imshow(to_rgb(sample.image))
            for y0, x0, y1, x1 in sample.boxes[index] if sample.boxes else ():
                row[-1].add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor="yellow"))
            for y, x in sample.points[index] if sample.points and not sample.boxes else ():
                row[-1].plot(x, y, "+", color="yellow")
    with atomic(path) as temporary:
        # Without matplotlib's version in the file, the same figure gives the same bytes.
        figure.savefig(temporary, metadata={"Software": None})


def panels(rows: int, columns: int, size: tuple[float, float], dpi: int) -> tuple[Figure, Any]:
    """Return a figure of this width and height in inches, and its axes (rows, columns), without ticks and frames."""
    figure = Figure(figsize=size, layout="constrained", dpi=dpi)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure, axes
