"""Predicts image files: masks, numbered objects, outlines, overlays, and tables of what was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from micraframe.batch.findings import ClassFinding, ObjectFinding, PointFinding, findings
from micraframe.batch.outputs import LOCK, claim, list_written, refuse_foreign
from micraframe.batching import BATCH_PIXELS
from micraframe.errors import ConfigError, DataError, MicraframeError, reason_of
from micraframe.geojson import write_features
from micraframe.images import (
    IMAGE_SUFFIXES,
    nearest,
    read_image,
    read_pixel_size,
    resize,
    scaled_size,
    write_png,
    write_tiff,
)
from micraframe.overlay import overlay
from micraframe.pipeline import Pipeline
from micraframe.registry import short_name
from micraframe.runtime.locks import exclusive
from micraframe.runtime.tables import CsvStream
from micraframe.types import DatasetInfo, FloatArray, Prediction, Progress

TABLE: Final = "predictions.csv"
OBJECTS: Final = "objects.csv"
POINTS: Final = "points.csv"
TABLES: Final = (TABLE, OBJECTS, POINTS)

_LONGEST: Final = 240
"""Bytes of a file's name: what file systems allow, less what is added until the file is complete."""


class OutputFiles(NamedTuple):
    """The names of what is written for an image.

    Attributes:
        masks: One mask for each class, 0 and 255.
        labels: Numbered objects of each class.
        scores: Score map of each class.
        overlay: The masks and the outline of every object, drawn over the image.
        outlines: Outlines of all objects.
    """

    masks: str
    labels: str
    scores: str
    overlay: str
    outlines: str


def output_files(stem: str) -> OutputFiles:
    """Return the names for an image file of this name without its suffix."""
    endings = (".tif", "-labels.tif", "-scores.tif", "-overlay.png", ".geojson")
    return OutputFiles(*(f"{stem}{ending}" for ending in endings))


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image that was read.

    Attributes:
        path: Its file.
        shown: float32 (C, H, W): normalised, in the file's own pixels.
        scored: float32 (C, h, w): normalised, at the scale of the training images.
    """

    path: Path
    shown: FloatArray
    scored: FloatArray


def predict_files(
    pipeline: Pipeline,
    images: Sequence[Path],
    output: Path,
    scores: bool = False,
    progress: Progress | None = None,
) -> tuple[int, dict[str, str]]:
    """Predict image files.

    Writes to `output`, for an image `NAME.png` and what the head makes: masks `NAME.tif` (0 and 255), numbered objects
    `NAME-labels.tif`, an overlay `NAME-overlay.png`, and outlines `NAME.geojson`. For all images it writes
    `predictions.csv` (a row per class), `objects.csv` and `points.csv`, which grow image by image. All are in pixels of
    the image file, even where the model was trained on resized images; the pixel size is the one that the file states
    (see `read_pixel_size`), or else that of the training files. `predict.json` lists the files; the next
    prediction into this folder removes these and no others.

    Args:
        pipeline: A trained model and its head.
        images: Files, and folders, from which every image is taken.
        output: Folder to write to. Nothing in it changes before the first image is predicted.
        scores: Also write the score maps, `NAME-scores.tif`: float32, 0 for classes without a map.
        progress: Progress callback.

    Returns:
        The number of images that are done, and the reason for each failure by the name of the file.

    Raises:
        ConfigError: If `output` holds images to predict, or files that no prediction wrote and this one would replace;
            if it is no folder, or another process is predicting into it; or if score maps are to be written, and the
            head asks for none.
        DataError: If a path does not exist, or there is no image at all.
    """
    if scores and not pipeline.uses_maps:
        raise ConfigError(
            f"--scores: expected a head that uses score maps, got {short_name(pipeline.head_name)}, for which "
            "none are made; choose another --head, or leave out --scores"
        )
    if missing := [str(path) for path in images if not path.exists()]:
        raise DataError(f"{', '.join(missing)}: no such file or folder; correct the path")
    files = list(expand(images))
    if not files:
        raise DataError(
            f"{', '.join(map(str, images))}: expected images with suffix {', '.join(IMAGE_SUFFIXES)}, found none"
        )
    if output.resolve() in {file.resolve().parent for file in files}:
        raise ConfigError(f"{output}: expected an output folder other than that of the images; choose another folder")

    def refuse() -> None:
        raise ConfigError(
            f"{output}: expected a folder that is not in use, got one that another process is writing to; wait for it, "
            "or choose another --output"
        )

    progress = progress or Progress()
    unique, failures = _with_own_outputs(files)
    names = [name for file in unique for name in output_files(file.stem)]
    planned = [*TABLES, *names]
    refuse_foreign(output, planned)
    record = _record(pipeline)
    done, claimed = 0, False
    with ExitStack() as stack:
        tables = {name: stack.enter_context(CsvStream(output / name)) for name in TABLES}
        for number, (file, result) in enumerate(_predict(pipeline, unique), start=1):
            if isinstance(result, str):
                reason = result
            else:
                if not claimed:
                    stack.enter_context(exclusive(output / LOCK, refuse))
                    claim(output, planned, record)
                    stack.callback(list_written, output, planned, record)
                    claimed = True
                reason = _write(output, *result, pipeline.info, scores, tables)
            if reason:
                failures[str(file)] = reason
            done += not reason
            progress.advance("predict", number, len(unique))
    return done, failures


def restore_size(prediction: Prediction, size: tuple[int, int]) -> Prediction:
    """Return a prediction in the pixels, (H, W), that its image had before it was resized to be scored.

    Masks and objects are those of the nearest pixel; maps are interpolated.
    """
    scores = prediction.scores
    if scores.size == size:
        return prediction
    factor = np.array(size, np.float32) / np.array(scores.size, np.float32)
    maps = np.zeros((0, *size), np.float32) if not scores.classes else np.clip(resize(scores.maps, size), 0, 1)
    points = prediction.points
    if points is not None:
        # (0, 0) is the centre of the first pixel.
        points = tuple(np.column_stack([(part[:, :2] + 0.5) * factor - 0.5, part[:, 2]]) for part in points)
    return dataclasses.replace(
        prediction,
        scores=dataclasses.replace(scores, maps=maps, coarse=None, objects=None),
        masks=None if prediction.masks is None else nearest(prediction.masks, size),
        instances=None if prediction.instances is None else nearest(prediction.instances, size),
        points=points,
    )


def expand(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files, and for each folder the images in it, in the order of their names."""
    for path in paths:
        if path.is_dir():
            # Hidden files are left by macOS and by interrupted writers.
            found = (file for file in path.iterdir() if not file.name.startswith("."))
            yield from sorted(file for file in found if file.suffix.lower() in IMAGE_SUFFIXES)
        else:
            yield path


def _with_own_outputs(files: Iterable[Path]) -> tuple[list[Path], dict[str, str]]:
    """Return each file once, without those whose outputs would replace another's or have too long names.

    Returns:
        The files, and the others with the reason.
    """
    failures: dict[str, str] = {}
    owners: dict[str, Path] = {}
    unique: list[Path] = []
    for file in dict.fromkeys(files):
        outputs = output_files(file.stem)
        # Some file systems do not distinguish upper and lower case.
        names = [name.casefold() for name in outputs]
        clashes = [owners[name] for name in names if name in owners]
        if (length := max(len(name.encode()) for name in outputs)) > _LONGEST:
            failures[str(file)] = (
                f"expected names of outputs of at most {_LONGEST} bytes, got {length}; shorten the image's name"
            )
        elif not clashes:
            owners |= dict.fromkeys(names, file)
            unique.append(file)
        elif file.resolve() != clashes[0].resolve():
            failures[str(file)] = f"its outputs would replace those of {clashes[0]}; predict it to another folder"
    return unique, failures


def _record(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "method": pipeline.method.model_dump(mode="json"),
        "head": {"name": pipeline.head_name, "params": pipeline.head.params.model_dump(mode="json")},
        "origins": dict(pipeline.origins),
        "roles": dict(zip(pipeline.info.classes, pipeline.info.roles, strict=True)),
        "tiling": pipeline.tiling and pipeline.tiling.model_dump(mode="json"),
        "provenance": dict(pipeline.provenance),
    }


def _predict(pipeline: Pipeline, files: Iterable[Path]) -> Iterator[tuple[Path, tuple[ImageFile, Prediction] | str]]:
    """Yield the prediction of each file, or the reason for its failure, in order."""
    for group in _groups(pipeline, files):
        results = iter(_predict_together(pipeline, [image for _, image in group if isinstance(image, ImageFile)]))
        for file, image in group:
            yield file, image if isinstance(image, str) else next(results)


def _predict_together(pipeline: Pipeline, images: Sequence[ImageFile]) -> list[tuple[ImageFile, Prediction] | str]:
    """Return each image with its prediction; if that fails, one by one, so that only the cause of it is lost."""
    try:
        return list(zip(images, pipeline.predict(image.scored for image in images), strict=True))
    except Exception as error:  # one image that a component cannot handle must not end the batch
        if len(images) == 1:
            return [_reason(images[0].path, error, images[0].scored, pipeline)]
    # Not before the error, which may be a lack of memory, has let go of what it holds.
    return [found for image in images for found in _predict_together(pipeline, [image])]


def _groups(pipeline: Pipeline, files: Iterable[Path]) -> Iterator[list[tuple[Path, ImageFile | str]]]:
    """Yield consecutive images that are predicted together; those to be tiled, and large ones, one at a time."""
    group: list[tuple[Path, ImageFile | str]] = []
    pixels = 0
    for file in files:
        image = read_file(file, pipeline.info)
        size = 0 if isinstance(image, str) else image.shown[0].size
        if group and (pipeline.tiling is not None or pixels + size > BATCH_PIXELS):
            yield group
            group, pixels = [], 0
        group.append((file, image))
        pixels += size
    if group:
        yield group


def read_file(file: Path, info: DatasetInfo) -> ImageFile | str:
    """Read an image and prepare it as the training images were prepared; return the reason if that fails."""
    try:
        image = read_image(file)
        shown = info.normalisation.apply(image)
        size = scaled_size((image.shape[1], image.shape[2]), info.scale)
        # As datasets do: resize first, then normalise.
        scored = shown if size == image.shape[1:] else info.normalisation.apply(resize(image, size))
        return ImageFile(file, shown, scored)
    except MicraframeError as error:
        return str(error)
    except MemoryError:
        return f"{file}: the image does not fit into memory; cut it into smaller files, or search it with sweep"


def _write(
    output: Path,
    image: ImageFile,
    prediction: Prediction,
    info: DatasetInfo,
    scores: bool,
    tables: dict[str, CsvStream],
) -> str:
    """Write all that belongs to an image; return the reason if its prediction cannot be written, or nothing."""
    names = output_files(image.path.stem)
    trained = None if info.pixel_size_um is None else info.pixel_size_um * info.scale
    try:
        pixel_size = read_pixel_size(image.path) or trained
        prediction = restore_size(prediction, (image.shown.shape[1], image.shown.shape[2]))
        found = findings(image.path.name, prediction, info.classes, pixel_size)
        if prediction.masks is not None:
            write_tiff(output / names.masks, prediction.masks, info.classes, pixel_size)
            write_png(output / names.overlay, overlay(image.shown, prediction.masks, prediction.instances))
        if prediction.instances is not None:
            write_tiff(output / names.labels, prediction.instances, info.classes, pixel_size)
        if found.objects is not None:
            write_features(output / names.outlines, found.outlines)
        if scores:
            write_tiff(output / names.scores, prediction.scores.all_maps(), info.classes, pixel_size)
    except (MemoryError, MicraframeError) as error:
        for name in names:
            (output / name).unlink(missing_ok=True)
        return _reason(image.path, error, image.shown, None)
    tables[TABLE].write(found.classes, ClassFinding)
    if found.objects is not None:
        tables[OBJECTS].write(found.objects, ObjectFinding)
    if found.points is not None:
        tables[POINTS].write(found.points, PointFinding)
    return ""


def _reason(file: Path, error: Exception, image: FloatArray, pipeline: Pipeline | None) -> str:
    """Return why an image could not be predicted, beginning with its file."""
    if _is_out_of_memory(error):
        height, width = image.shape[1:]
        tile = "smaller tiles" if pipeline is not None and pipeline.tiling is not None else "tiles"
        return f"{file}: out of memory for {height} x {width} pixels; predict it in {tile}: --tile 512"
    if not isinstance(error, MicraframeError):
        return f"{file}: {reason_of(error, typed=True)}"
    # The pipeline counts the images that it gets; here it got one.
    text = str(error).removeprefix("image 0: ")
    return text if text.startswith(str(file)) else f"{file}: {text}"


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out; PyTorch says so in the text of a RuntimeError."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )
