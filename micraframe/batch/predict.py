"""Predicts image files: masks, overlays, and a table of what was found."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from scipy import ndimage

from micraframe import registry
from micraframe.errors import ConfigError, DataError, MicraframeError
from micraframe.files import atomic
from micraframe.images import IMAGE_SUFFIXES, read_image, write_png, write_tiff
from micraframe.interfaces import Fitted
from micraframe.modelfile import load_model
from micraframe.overlay import overlay
from micraframe.tiling import Tiling, predict
from micraframe.types import FloatArray, Prediction, Progress

TABLE = "predictions.csv"
POINTS = "points.csv"
_CHUNK = 16


@dataclass(frozen=True)
class Found:
    """A line of the table of predictions.

    Attributes:
        image: The image's file name.
        class_: The class.
        score: Its probability, in [0, 1].
        decision: Was it decided to be in the image: 1 or 0.
        area: Pixels of its mask; NaN where the method makes no masks.
        objects: Number of its instances, or else of its mask's connected pieces (8-connected); NaN without masks.
        status: What became of it: ok, empty, constant, negative or absent.
    """

    image: str
    class_: str
    score: float
    decision: int
    area: float
    objects: float
    status: str


@dataclass(frozen=True)
class Point:
    """A line of the table of points.

    Attributes:
        image: The image's file name.
        class_: The class.
        y: Row, in pixels.
        x: Column, in pixels.
        score: High means sure.
    """

    image: str
    class_: str
    y: float
    x: float
    score: float


def predict_files(
    model: Path,
    images: Sequence[Path],
    output: Path,
    device: str = "auto",
    progress: Progress | None = None,
    tiling: Tiling | None = None,
) -> tuple[int, dict[str, str]]:
    """Predict image files with a saved model.

    Writes to `output`, for an image `NAME.png`: `NAME.tif`, uint8 (K, H, W), the masks of the K classes, and
    `NAME-overlay.png`; and for all images one `predictions.csv` and, of a model that finds points, one `points.csv`.

    Args:
        model: A saved model's folder.
        images: Files, and folders of which every image is taken.
        output: The folder to write to.
        device: `auto`, or a torch device.
        progress: Whom to tell.
        tiling: How large images are cut; None: they are predicted whole.

    Returns:
        The number of images that are done, and what went wrong with the others by the file's name.

    Raises:
        ModelError: If the model cannot be read.
        ConfigError: If `output` is a folder that images come from.
        DataError: If there is no image at all.
    """
    progress = progress or Progress()
    saved = load_model(model)
    method = registry.build("method", saved.method.name, **saved.method.params)
    fitted = method.load(model, device)
    files = list(_expand(images))
    if not files:
        raise DataError(f"no images in {', '.join(map(str, images))}; suffixes taken: {', '.join(IMAGE_SUFFIXES)}")
    if output.resolve() in {file.resolve().parent for file in files}:
        raise ConfigError(
            f"{output} holds images to predict; their masks would replace TIFF images and be taken for images later: "
            "name another folder for the output"
        )
    failures: dict[str, str] = {}
    stems: dict[str, Path] = {}
    for file in files:
        if stems.setdefault(file.stem, file) != file:
            failures[str(file)] = f"its masks would replace those of {stems[file.stem]}; predict it to another folder"
    rows: list[Found] = []
    points: list[Point] | None = None
    done = 0
    unique = list(stems.values())
    for start in range(0, len(unique), _CHUNK):
        chunk = unique[start : start + _CHUNK]
        loaded: dict[Path, FloatArray] = {}
        for file in chunk:
            try:
                loaded[file] = saved.info.normalisation.apply(read_image(file))
            except MicraframeError as error:
                failures[str(file)] = str(error)
        for file, answer in _predict(fitted, loaded, tiling):
            if isinstance(answer, Prediction):
                _write(output, file, loaded[file], answer, saved.info.classes)
                rows += _found(file.name, answer, saved.info.classes)
                if answer.points is not None:
                    points = [] if points is None else points
                    points += _points(file.name, answer.points, saved.info.classes)
            else:
                failures[str(file)] = answer
        done += len(chunk)
        progress.advance("predict", done, len(stems))
    _write_table(output / TABLE, rows, Found)
    if points is None:
        (output / POINTS).unlink(missing_ok=True)  # of an earlier model: it would be taken for this one's
    else:
        _write_table(output / POINTS, points, Point)
    return len({row.image for row in rows}), failures


def _expand(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            # Hidden files are not the user's: macOS and interrupted writers leave such.
            found = (file for file in path.iterdir() if not file.name.startswith("."))
            yield from sorted(file for file in found if file.suffix.lower() in IMAGE_SUFFIXES)
        else:
            yield path


def _predict(
    fitted: Fitted, images: dict[Path, FloatArray], tiling: Tiling | None
) -> Iterator[tuple[Path, Prediction | str]]:
    """Predict together; if an image is not to the method's liking, one by one, so that only that one is lost.

    Where large images are cut, they come one by one from the beginning, so that one score map at a time is held.
    """
    together: list[Prediction] = []
    if tiling is None:
        with suppress(MicraframeError):
            together = list(fitted.predict(images.values()))
    if together:
        yield from zip(images, together, strict=True)
        return
    for file, image in images.items():
        try:
            yield file, next(predict(fitted, [image], tiling))
        except MicraframeError as error:
            yield file, f"{file}: {error}"


def _write(output: Path, file: Path, image: FloatArray, prediction: Prediction, classes: tuple[str, ...]) -> None:
    if prediction.masks is not None:
        write_tiff(output / f"{file.stem}.tif", prediction.masks.astype(np.uint8), classes)
        write_png(output / f"{file.stem}-overlay.png", overlay(image, prediction.masks))


def _found(name: str, prediction: Prediction, classes: tuple[str, ...]) -> list[Found]:
    rows = []
    for index, class_ in enumerate(classes):
        area = objects = math.nan
        if prediction.masks is not None:
            area = int(prediction.masks[index].sum())
            objects = ndimage.label(prediction.masks[index], np.ones((3, 3)))[1]
        if prediction.instances is not None:
            objects = np.unique(prediction.instances[index][prediction.instances[index] > 0]).size
        status = prediction.status[index] if prediction.status else ""
        score, decision = float(prediction.scores[index]), int(prediction.present[index])
        rows.append(Found(name, class_, score, decision, area, objects, status))
    return rows


def _points(name: str, points: tuple[FloatArray, ...], classes: tuple[str, ...]) -> Iterator[Point]:
    for class_, some in zip(classes, points, strict=True):
        for point in some:
            # As float32, which is written with all its digits: scores that are rounded might become equal.
            yield Point(name, class_, *point)


def _write_table(path: Path, rows: Iterable[Found | Point], kind: type[Found | Point]) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([field.name.rstrip("_") for field in fields(kind)])
        for row in rows:
            writer.writerow([_cell(value) for value in astuple(row)])


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else format(value, ".6g")
    return value
