"""Whole images with their readers, and samples that are made on access."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, overload

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.crops import Window, crop_boxes, crop_points
from micraframe.datasets.paths import file_digest
from micraframe.errors import DataError
from micraframe.images import resize, scaled_size
from micraframe.runtime.files import digest, digest_json
from micraframe.types import FloatArray, Normalisation, Sample, Split, check_image

Key = TypeVar("Key")


@dataclass(frozen=True, eq=False)
class SourceImage:
    """One whole image of a dataset: its known properties, and readers for the rest.

    Attributes:
        name: Unique within the dataset; the ids of its samples begin with it.
        read_image: Returns the image, float32 (C, H, W), in the units of its file.
        read_annotation: Returns the image's annotation; None if it has none.
        labels: Image-level labels, one per class. They hold for the whole image only, and take precedence over labels
            derived from `read_annotation`.
        group: Name of what a split must keep together, such as a patient; empty: the image is its own group.
        split: The image's split; None in all images divides them at random.
        files: The files that it is read from. Their bytes are part of the dataset's fingerprint.
    """

    name: str
    read_image: Callable[[], FloatArray]
    read_annotation: Callable[[], ImageAnnotation] | None = None
    labels: tuple[bool, ...] | None = None
    group: str = ""
    split: Split | None = None
    files: tuple[Path, ...] = ()

    @property
    def place(self) -> str:
        """Where the image comes from, for error messages and provenance."""
        return str(self.files[0]) if self.files else self.name


class LazySamples(Sequence[Sample], Generic[Key]):
    """Samples that are made on access, each from a key."""

    def __init__(self, keys: Sequence[Key], make: Callable[[Key], Sample]) -> None:
        self._keys = keys
        self._make = make

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._make(key) for key in self._keys[index]]
        return self._make(self._keys[index])


def read_scaled(source: SourceImage, scale: float) -> tuple[FloatArray, tuple[int, int]]:
    """Read an image and resize it.

    Returns:
        The image, float32 (C, H, W), and the size (H, W) that it had before.

    Raises:
        DataError: If it cannot be read or is too large; the message names it.
    """
    with _named(source):
        image = source.read_image()
        check_image(image, source.place)
        size = image.shape[1], image.shape[2]
        return resize(image, scaled_size(size, scale)), size


def read_annotation(source: SourceImage, count: int) -> ImageAnnotation:
    """Read the annotation of an image, of `count` classes; it is empty if the image has labels only.

    Raises:
        DataError: If it cannot be read or has another number of classes; the message names the image.
    """
    if source.read_annotation is None:
        return ImageAnnotation()
    with _named(source):
        annotation = source.read_annotation()
        annotation.check_classes(count)
        return annotation


def read_shape(source: SourceImage, count: int) -> tuple[int, ...]:
    """Read an image and its annotation, of `count` classes, to check both; return the image's shape (C, H, W).

    Raises:
        DataError: If a file is missing or broken, or the annotation has another size; the message names the files.
    """
    image, size = read_scaled(source, 1.0)
    _check_size(source, read_annotation(source, count), size)
    return image.shape


def read_whole(
    source: SourceImage, count: int, scale: float, normalisation: Normalisation, pixel_size_um: float | None
) -> Sample:
    """Read a whole image and its annotation as a sample without labels: resized, then normalised.

    Boxes are clipped to the image, and boxes and points outside it dropped.

    Args:
        source: The image.
        count: Number of classes K.
        scale: Pixels of the sample per pixel of the file.
        normalisation: Applied to the resized image.
        pixel_size_um: Edge of a pixel of the sample in micrometres.

    Raises:
        DataError: If a file is missing or broken, or the annotation has another size; the message names the files.
    """
    image, size = read_scaled(source, scale)
    annotation = read_annotation(source, count)
    _check_size(source, annotation, size)
    with _named(source):
        new = image.shape[1], image.shape[2]
        annotation, whole = annotation.resized(size, new), Window(0, 0, *new)
        return Sample(
            id=source.name,
            image=normalisation.apply(image),
            masks=annotation.masks,
            instances=annotation.instances,
            boxes=None if annotation.boxes is None else tuple(crop_boxes(part, whole) for part in annotation.boxes),
            points=None if annotation.points is None else tuple(crop_points(part, whole) for part in annotation.points),
            ignore=annotation.ignore,
            pixel_size_um=pixel_size_um,
            group=source.group or source.name,
            source=source.place,
            normalisation=normalisation,
        )


def fingerprint(settings: object, classes: Sequence[str], sources: Iterable[SourceImage]) -> str:
    """Return a hash of everything that determines a dataset's samples.

    Args:
        settings: The parameters that affect samples, as JSON values, without paths.
        classes: Names of the classes.
        sources: The images; their files count by content, not by path.
    """
    listed = list(sources)
    files = dict.fromkeys(path for source in listed for path in source.files)
    order = {path: number for number, path in enumerate(files)}
    known = [
        (source.name, source.labels, source.group, source.split, [order[path] for path in source.files])
        for source in listed
    ]
    return digest(digest_json([settings, list(classes), known]), *map(file_digest, files))


def _check_size(source: SourceImage, annotation: ImageAnnotation, size: tuple[int, int]) -> None:
    """Raise `DataError` if the annotation is of an image of another size than (H, W)."""
    if annotation.size not in (None, size):
        others = ", ".join(map(str, source.files[1:])) or "its annotation"
        raise DataError(
            f"{source.place}: expected an annotation of the image's size (H, W) = {size}, got {annotation.size} in "
            f"{others}"
        )


@contextmanager
def _named(source: SourceImage) -> Iterator[None]:
    """Make errors name the image or one of its files, and an image that is too large a `DataError`."""
    try:
        yield
    except MemoryError as error:
        raise DataError(f"{source.place}: too large for memory; cut it into smaller images") from error
    except DataError as error:
        if any(name in str(error) for name in (source.name, *map(str, source.files))):
            raise
        raise DataError(f"{source.place}: {error}") from error
