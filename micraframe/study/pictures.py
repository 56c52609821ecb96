"""Figures of a study: what each method made of the same images, and how MICRA-Net came to its masks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from micraframe import registry
from micraframe.config import Study
from micraframe.files import atomic
from micraframe.micranet import FittedMicraNet, Steps
from micraframe.overlay import legend, overlay, to_rgb
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import Cell
from micraframe.tiling import is_cut
from micraframe.types import BoolArray, Sample

_PANEL_INCHES = 1.7


def draw(cells: Sequence[Cell], study: Study, folder: StudyFolder) -> tuple[Path, ...]:
    """Draw test images with the truth and every method's masks of the first seed, and how MICRA-Net came to its own.

    Args:
        cells: Those that are done.
        study: What they are of.
        folder: Where their results are, and `pictures` go.

    Returns:
        The files.
    """
    pictures: list[Path] = []
    if not study.pictures:
        return ()
    for name in dict.fromkeys(cell.info.name for cell in cells):
        mine = [cell for cell in cells if cell.info.name == name and cell.seed == study.seeds[0]]
        if not mine:
            continue
        dataset = registry.build("dataset", mine[0].dataset.name, **mine[0].dataset.params)
        test = dataset.samples("test")
        chosen = {number: test[number] for number in evenly(test, study.pictures)}
        masks = {
            f"{cell.method}\n({cell.annotator})": {
                number: found
                for number, sample in chosen.items()
                if (found := folder.masks(cell, number, sample.image.shape[2])) is not None
            }
            for cell in mine
        }
        path = folder.path / "pictures" / f"{name}.png"
        draw_comparison(path, chosen, masks, mine[0].info.classes)
        pictures.append(path)
        # Maps of an image that was cut are not those that it was measured by.
        whole = [sample for sample in chosen.values() if not is_cut(sample.image.shape[1:], study.tiling)]
        for cell in mine if whole else ():
            if registry.catalog().find("method", cell.contender.method.name).qualified != "micraframe/micra-net":
                continue
            method = registry.build("method", cell.contender.method.name, **cell.contender.method.params)
            fitted = method.load(folder.model(cell), study.device)
            assert isinstance(fitted, FittedMicraNet)
            slug = re.sub(r"[^a-z0-9]+", "-", cell.method.lower()).strip("-")
            path = folder.path / "pictures" / f"{name}-{slug}-steps.png"
            draw_steps(path, whole, fitted.steps(iter([sample.image for sample in whole])), cell.info.classes)
            pictures.append(path)
    return tuple(pictures)


def evenly(samples: Sequence[Sample], wanted: int) -> tuple[int, ...]:
    """Return the numbers of so many samples, evenly spaced among those that hold any class.

    They are chosen before any method has seen them; where no sample holds a class, among all.
    """
    holding = [number for number, sample in enumerate(samples) if sample.labels is not None and sample.labels.any()]
    numbers = holding or range(len(samples))
    places = np.linspace(0, len(numbers) - 1, min(wanted, len(numbers)))
    return tuple(sorted({numbers[round(place)] for place in places}))


def draw_comparison(
    path: Path,
    samples: Mapping[int, Sample],
    masks: Mapping[str, Mapping[int, BoolArray]],
    classes: tuple[str, ...],
) -> None:
    """Draw, a row per image: the image, the truth, and every method's masks.

    Args:
        path: The PNG file to write.
        samples: Fully annotated samples by number.
        masks: Per method, bool (K, H, W) by the same numbers.
        classes: Names of the K classes, for the legend.
    """
    titles = ["image", "truth", *masks]
    figure, axes = _grid(len(samples), titles)
    for row, (number, sample) in enumerate(samples.items()):
        axes[row][0].imshow(to_rgb(sample.image))
        axes[row][0].set_ylabel(sample.id, fontsize=6)
        if sample.masks is not None:
            axes[row][1].imshow(overlay(sample.image, sample.masks))
        for column, by_number in enumerate(masks.values(), start=2):
            if number in by_number:
                axes[row][column].imshow(overlay(sample.image, by_number[number]))
            else:
                _say(axes[row][column], "no masks")
    patches = [Patch(color=colour, label=name) for name, colour in legend(classes).items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(10, len(patches)), fontsize=6, frameon=False)
    _save(figure, path)


def draw_steps(path: Path, samples: Iterable[Sample], steps: Iterable[Steps], classes: tuple[str, ...]) -> None:
    """Draw, a row per image: the image, every layer's map of its likeliest class, the score map, mask and truth.

    Args:
        path: The PNG file to write.
        samples: Fully annotated samples.
        steps: What MICRA-Net made of each, in the same order.
        classes: Names of the K classes.
    """
    rows = list(zip(samples, steps, strict=True))
    layers = [layer.name for layer in rows[0][1].maps.layers]
    figure, axes = _grid(len(rows), ["image", *layers, "combined", "mask", "truth"])
    for row, (sample, (maps, score_map, prediction)) in zip(axes, rows, strict=True):
        row[0].imshow(to_rgb(sample.image))
        if not maps.classes:
            _say(row[1], "no class\nfound")
            continue
        place = int(np.argmax(maps.scores[list(maps.classes)]))
        index = maps.classes[place]
        row[0].set_ylabel(f"{classes[index]}\n{maps.scores[index]:.2f}", fontsize=7)
        for axis, array in zip(row[1:], maps.maps, strict=False):
            # Signed: white is zero, whatever the range.
            reach = float(np.abs(array[place]).max()) or 1.0
            axis.imshow(array[place], cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
        row[-3].imshow(score_map.values[place], cmap="viridis", vmin=0, vmax=1)
        for axis, masks in ((row[-2], prediction.masks), (row[-1], sample.masks)):
            if masks is not None:
                axis.imshow(overlay(sample.image, masks[index : index + 1]))
    _save(figure, path)


def _grid(rows: int, titles: list[str]) -> tuple[Figure, Any]:
    columns = len(titles)
    figure = Figure(figsize=(_PANEL_INCHES * columns, _PANEL_INCHES * rows + 0.5), layout="constrained", dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=7)
    return figure, axes


def _say(axis: Any, text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=6, transform=axis.transAxes)


def _save(figure: Figure, path: Path) -> None:
    with atomic(path) as temporary:
        # Without its own version in the file, the same figure is the same bytes.
        figure.savefig(temporary, metadata={"Software": None})
