"""The values that cross the boundaries between components: frozen, validated, per image, NumPy.

Axes are named K (classes), C (channels), L (layers), H (rows), W (columns). Positions are (y, x) in pixels, with (0, 0)
the centre of the first pixel. Arrays held by these types are read-only views.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from micraframe.errors import DataError, counted

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int32]

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

Role = Literal["object", "contact"]
"""The role of a class: a structure of interest, or the places where two such objects touch."""

Precision = Literal["auto", "float32", "bfloat16"]

LoggerName = Literal["tensorboard", "mlflow"]
"""A tool that plots the numbers of a training's epochs."""

Origin = Literal["fixed", "negatives", "expected-share", "validation", "oracle"]
"""The origin of a threshold; see `Threshold`."""


class Annotation(StrEnum):
    """The fields of a `Sample` that hold annotation, weakest first."""

    LABELS = "labels"
    POINTS = "points"
    BOXES = "boxes"
    MASKS = "masks"
    INSTANCES = "instances"


@dataclass(frozen=True)
class ImagePart:
    """How a sample was made from a whole image. Only prices depend on it.

    Attributes:
        image: Name of the whole image that the sample is a crop of, unique within the dataset; empty: it is no crop.
        objects: The objects of the whole image that the crop shows, in whole or in part: (class index, number).
        judged: How many images or crops somebody had to look at to obtain this one: itself, and its share of those that
            were dropped as ambiguous.
    """

    image: str = ""
    objects: frozenset[tuple[int, int]] = frozenset()
    judged: float = 1.0


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its annotation.

    Attributes:
        id: Unique within the dataset.
        image: float32 (C, H, W), normalised by the dataset.
        labels: bool (K,): whether each class is in the image.
        points: Per class, float32 (N, 2): (y, x).
        boxes: Per class, float32 (N, 4): (y0, x0, y1, x1), end exclusive.
        masks: bool (K, H, W).
        instances: int32 (K, H, W); 0 is background.
        ignore: bool (H, W): unannotated pixels, excluded from training and evaluation.
        pixel_size_um: Edge of a pixel in micrometres.
        group: Name of what a split must keep together: a patient, a slide, a field.
        source: Path or description of the image's origin.
        part: How it was made from a whole image.
        normalisation: How the image was normalised; None: its values are in the units of its file, or it is not known.

    Raises:
        DataError: If an array has the wrong type or shape, or the image is empty or not finite.
    """

    id: str
    image: FloatArray
    labels: BoolArray | None = None
    points: tuple[FloatArray, ...] | None = None
    boxes: tuple[FloatArray, ...] | None = None
    masks: BoolArray | None = None
    instances: IntArray | None = None
    ignore: BoolArray | None = None
    pixel_size_um: float | None = None
    group: str | None = None
    source: str = ""
    part: ImagePart = ImagePart()
    normalisation: Normalisation | None = None

    def __post_init__(self) -> None:
        check_image(self.image, self.id)
        size = self.image.shape[1:]
        _check(self.id, "labels", self.labels, np.bool_, (None,))
        _check(self.id, "masks", self.masks, np.bool_, (None, *size))
        _check(self.id, "instances", self.instances, np.int32, (None, *size))
        _check(self.id, "ignore", self.ignore, np.bool_, size)
        for name, parts, columns in (("points", self.points, 2), ("boxes", self.boxes, 4)):
            for part in parts or ():
                _check(self.id, name, part, np.float32, (None, columns))
        counts = {
            kind.value: len(getattr(self, kind.value)) for kind in Annotation if getattr(self, kind.value) is not None
        }
        if len(set(counts.values())) > 1:
            raise DataError(f"sample {self.id!r}: its annotations disagree on the number of classes: {counts}")
        _freeze(self)

    @property
    def counted(self) -> BoolArray:
        """The pixels that count in training and evaluation, bool (H, W): those that are not ignored."""
        return np.ones(self.image.shape[1:], np.bool_) if self.ignore is None else ~self.ignore

    def keep(self, annotations: Iterable[Annotation]) -> Sample:
        """Return the sample with only these annotations; anything that could lead to the others is removed."""
        kept = set(annotations)
        removed: dict[str, Any] = {kind.value: None for kind in Annotation if kind not in kept}
        if Annotation.MASKS not in kept and Annotation.INSTANCES not in kept:
            removed["ignore"] = None
        # A view of an array that also holds annotation would lead back to it through `base`; an image is copied once.
        if any(getattr(self, name) is not None for name in removed):
            removed["image"] = self.image.copy()
        if removed:
            removed["source"] = ""
        return dataclasses.replace(self, part=ImagePart(), **removed)


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset's metadata.

    Attributes:
        name: Name in tables.
        classes: Names of the K classes.
        channels: Number of channels C.
        normalisation: How the images were normalised; new images are normalised in the same way.
        fingerprint: Hash of everything that determines the samples: parameters and file contents, but not the
            dataset's name, licence or citation.
        pixel_size_um: Edge of a pixel in micrometres, if all images share it.
        licence: Licence of the data.
        citation: What to cite for the data.
        image_size: (H, W), if all images share it: the window size for sweeps.
        roles: Role of each class; all are objects by default.
        scale: Factor by which the dataset resized height and width of its images before it normalised them. New images
            are resized in the same way, and their predictions are resized back.
        training_size: (H, W) of all images that a model was trained on, where the dataset names no `image_size` and
            they share one. Training records it: a dataset leaves it out.

    Raises:
        DataError: If the name could not be a file name, classes are missing or repeated, roles do not match them, or
            the scale is not a positive number.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    normalisation: Normalisation
    fingerprint: str
    pixel_size_um: float | None = None
    licence: str = ""
    citation: str = ""
    image_size: tuple[int, int] | None = None
    roles: tuple[Role, ...] = ()
    scale: float = 1.0
    training_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-][\w .-]*", self.name):
            raise DataError(
                f"dataset name: expected letters, digits, spaces, '.', '_' and '-', not beginning with '.' or a space, "
                f"got {self.name!r}; set another name"
            )
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise DataError(f"dataset {self.name!r}: expected a positive scale, got {self.scale}")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise DataError(f"dataset {self.name!r}: expected one or more distinct classes, got {self.classes}")
        if not self.roles:
            object.__setattr__(self, "roles", ("object",) * len(self.classes))
        if len(self.roles) != len(self.classes) or self.roles.count("contact") > 1:
            raise DataError(
                f"dataset {self.name!r}: expected one role per class ({len(self.classes)}) and at most one contact "
                f"class, got {self.roles}"
            )


@dataclass(frozen=True)
class Normalisation:
    """How the intensities of an image are scaled.

    Attributes:
        kind: `none`; `min-max` and `percentile` map each image's range to [0, 1]; `mean-sd` standardises each image to
            mean 0 and standard deviation 1; `fixed` subtracts `offset` and divides by `scale`, the same for all images.
        per_channel: Measure each channel separately rather than all channels together (not for `fixed`).
        low: Percentile that maps to 0 (`percentile`).
        high: Percentile that maps to 1 (`percentile`).
        offset: One value per channel, or one for all channels (`fixed`).
        scale: One value per channel, or one for all channels (`fixed`).
        clip: Clip the result to [0, 1] (not for `none` and `mean-sd`).

    Raises:
        DataError: If the percentiles are out of order, or a value is not finite or a scale is 0.
    """

    kind: Literal["none", "min-max", "percentile", "mean-sd", "fixed"] = "none"
    per_channel: bool = False
    low: float = 1.0
    high: float = 99.0
    offset: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    clip: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise DataError(
                f"normalisation: expected percentiles 0 <= low < high <= 100, got {self.low} and {self.high}"
            )
        if not all(np.isfinite([*self.offset, *self.scale])) or 0 in self.scale:
            raise DataError(
                f"normalisation: expected finite offsets and non-zero scales, got {self.offset} and {self.scale}"
            )

    def apply(self, image: FloatArray) -> FloatArray:
        """Return the normalised image.

        Args:
            image: float32 (C, H, W), in the units of its file.

        Returns:
            float32 (C, H, W). A constant image becomes 0.

        Raises:
            DataError: If a `fixed` normalisation is for another number of channels.
        """
        if self.kind == "none":
            return image
        axes = (1, 2) if self.per_channel else (0, 1, 2)
        if self.kind == "fixed":
            offset, scale = (np.asarray(v, np.float64).reshape(-1, 1, 1) for v in (self.offset, self.scale))
            if not {len(offset), len(scale)} <= {1, len(image)}:
                raise DataError(
                    f"normalisation: expected one offset and one scale, or one for each of the image's "
                    f"{counted(len(image), 'channel')}, got {len(offset)} and {len(scale)}"
                )
        elif self.kind == "mean-sd":
            offset = image.mean(axes, dtype=np.float64, keepdims=True)
            scale = image.std(axes, dtype=np.float64, keepdims=True)
        elif self.kind == "min-max":
            offset = image.min(axes, keepdims=True).astype(np.float64)
            scale = image.max(axes, keepdims=True) - offset
        else:
            offset, top = np.percentile(image, (self.low, self.high), axis=axes, keepdims=True)
            scale = top - offset
        # A constant image varies by rounding only, which must not be amplified.
        floor = np.finfo(np.float32).eps * np.maximum(np.abs(offset), np.finfo(np.float32).tiny)
        flat = np.abs(scale) <= (0 if self.kind == "fixed" else floor)
        normalised = np.where(flat, 0, (image - offset) / np.where(flat, 1, scale))
        if self.clip and self.kind != "mean-sd":
            normalised = np.clip(normalised, 0, 1)
        return normalised.astype(np.float32)


@dataclass(frozen=True)
class Layer:
    """A layer of a backbone.

    Attributes:
        name: The backbone's name for it; never an index.
        channels: Number of feature maps.
        stride: Image pixels per cell of the layer.
    """

    name: str
    channels: int
    stride: int


@dataclass(frozen=True, eq=False)
class Maps:
    """Class activation maps of one image: signed, per layer, at native resolution.

    Attributes:
        size: (H, W) of the image.
        classes: Indices of the M classes that were explained.
        layers: The L layers, shallow to deep.
        maps: Per layer, float32 (M, h, w).
        presence: float32 (K,), in [0, 1]: probability of *every* class, from the same forward pass.

    Raises:
        DataError: If lengths, types or shapes disagree, or a map is not finite.
    """

    size: tuple[int, int]
    classes: tuple[int, ...]
    layers: tuple[Layer, ...]
    maps: tuple[FloatArray, ...]
    presence: FloatArray

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.maps):
            raise DataError(f"maps: expected one array for each of {len(self.layers)} layers, got {len(self.maps)}")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise DataError(f"maps: expected distinct layer names, got {names}")
        for layer, array in zip(self.layers, self.maps, strict=True):
            _check("maps", layer.name, array, np.float32, (len(self.classes), None, None))
            if not np.isfinite(array).all():
                raise DataError(f"maps: layer {layer.name!r} has values that are not finite")
        _check("maps", "presence", self.presence, np.float32, (None,))
        check_classes("maps", self.classes, len(self.presence))
        _freeze(self)


Status = Literal["ok", "empty", "constant", "negative", "absent"]
"""Outcome for a class: `ok`; `empty`: the map or mask holds nothing; `constant`: the map has no contrast;
`negative`: the map holds evidence against the class only; `absent`: the class was judged not to be in the image."""


@dataclass(frozen=True, eq=False)
class DetectedObjects:
    """Objects of one class that a detector found in one image, best first.

    Attributes:
        boxes: float32 (N, 4): (y0, x0, y1, x1) in pixels, end exclusive.
        scores: float32 (N,), in [0, 1].
        masks: float32 (N, M, M): probability that a cell of the box belongs to the object.

    Raises:
        DataError: If lengths, types or shapes disagree.
    """

    boxes: FloatArray
    scores: FloatArray
    masks: FloatArray

    def __post_init__(self) -> None:
        _check("objects", "scores", self.scores, np.float32, (None,))
        _check("objects", "boxes", self.boxes, np.float32, (len(self.scores), 4))
        _check("objects", "masks", self.masks, np.float32, (len(self.scores), None, None))
        _freeze(self)

    def select(self, which: npt.NDArray[Any]) -> DetectedObjects:
        """Return some of the objects, by a mask or indices."""
        return DetectedObjects(self.boxes[which], self.scores[which], self.masks[which])


@dataclass(frozen=True, eq=False)
class Scores:
    """A model's raw output for one image, before a head is applied.

    Attributes:
        presence: float32 (K,), in [0, 1]: probability that each class is in the image.
        classes: Indices of the M classes that have a map.
        maps: float32 (M, H, W), in [0, 1]: how strongly each pixel suggests the class.
        status: The outcome for each class that has a map; by default derived from the map.
        coarse: float32 (M, H, W), in [0, 1]: the deepest layer's map, if the model has layers.
        objects: The objects found for each of the K classes, if the model detects objects.
        notes: How each class's map was made. For display only.

    Raises:
        DataError: If lengths, types or shapes disagree, or a value is not in [0, 1].
    """

    presence: FloatArray
    classes: tuple[int, ...]
    maps: FloatArray
    status: tuple[Status, ...] = ()
    coarse: FloatArray | None = None
    objects: tuple[DetectedObjects, ...] | None = None
    notes: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        _check("scores", "presence", self.presence, np.float32, (None,))
        check_classes("scores", self.classes, len(self.presence))
        _check("scores", "maps", self.maps, np.float32, (len(self.classes), None, None))
        _check("scores", "coarse", self.coarse, np.float32, self.maps.shape)
        for name, array in (("presence", self.presence), ("maps", self.maps), ("coarse", self.coarse)):
            if array is not None and array.size and not (array.min() >= 0 and array.max() <= 1):
                raise DataError(f"scores: expected {name} in [0, 1], got {array.min()} to {array.max()}")
        if not self.status:
            object.__setattr__(self, "status", tuple(map(_map_status, self.maps)))
        for name, expected in (("status", len(self.classes)), ("objects", len(self.presence))):
            value = getattr(self, name)
            if value is not None and len(value) != expected:
                raise DataError(f"scores: expected {name} of length {expected}, got {len(value)}")
        _freeze(self)

    @classmethod
    def without_maps(cls, presence: FloatArray, size: tuple[int, int] = (1, 1)) -> Scores:
        """Return the scores of an image (H, W) without maps: no class was explained."""
        return cls(presence, (), np.zeros((0, *size), np.float32))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.maps.shape[1], self.maps.shape[2]

    def all_maps(self) -> FloatArray:
        """Return the maps of all classes, float32 (K, H, W), 0 for those without one."""
        maps = np.zeros((len(self.presence), *self.size), np.float32)
        maps[list(self.classes)] = self.maps
        return maps

    def row(self, index: int) -> int:
        """Return the position in `maps` of a class.

        Raises:
            DataError: If the class has no map.
        """
        if index not in self.classes:
            raise DataError(
                f"scores: expected a map of class {index}, got maps of {list(self.classes)}; return the class from "
                "classes_to_explain"
            )
        return self.classes.index(index)


@dataclass(frozen=True)
class Threshold:
    """A threshold that was applied, for the record.

    Attributes:
        name: The decision that it makes, such as `presence` or `mask`.
        value: The number, or NaN if each image has its own.
        origin: `fixed` beforehand (a rule such as Otsu's included); from validation images by image-level labels alone:
            `negatives` or `expected-share`; tuned on `validation` annotation; or `oracle`: tuned on the test
            annotation, an upper bound and never a result.
        rule: The rule that computed it, such as `otsu`; empty: none.
    """

    name: str
    value: float
    origin: Origin = "fixed"
    rule: str = ""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The decision on one image.

    Attributes:
        scores: The scores that the decision is based on.
        present: bool (K,): whether each class was judged to be in the image.
        masks: bool (K, H, W).
        instances: int32 (K, H, W); 0 is background.
        points: Per class, float32 (N, 3): (y, x, score).
        status: The outcome for each class.
        thresholds: The thresholds that were applied.

    Raises:
        DataError: If types or shapes disagree.
    """

    scores: Scores
    present: BoolArray
    masks: BoolArray | None = None
    instances: IntArray | None = None
    points: tuple[FloatArray, ...] | None = None
    status: tuple[Status, ...] = ()
    thresholds: tuple[Threshold, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.scores.presence)
        _check("prediction", "present", self.present, np.bool_, (count,))
        _check("prediction", "masks", self.masks, np.bool_, (count, None, None))
        _check("prediction", "instances", self.instances, np.int32, (count, None, None))
        for part in self.points or ():
            _check("prediction", "points", part, np.float32, (None, 3))
        for name in ("points", "status"):
            value = getattr(self, name)
            if value and len(value) != count:
                raise DataError(
                    f"prediction: expected {name} of {counted(count, 'class', 'classes')}, got {len(value)}"
                )
        _freeze(self)


Task = Literal["image-level", "point", "scribble", "box", "outline"]
"""What an annotator does to an image; published times are per task."""


@dataclass(frozen=True)
class Work:
    """An annotator's work, not time; a study prices it.

    Attributes:
        task: The kind of annotation.
        images: Images or crops that were looked at.
        objects: Points, strokes, boxes or outlines that were drawn; an object that several crops share counts as a
            fraction in each.
        decisions: Crops judged, points set, or edge pixels drawn.
        judgements: Classes that were judged to be present or absent: one for each image and class.
        further_crops: Those of the `images` that are crops of a whole image which is counted already.
    """

    task: Task
    images: int = 1
    objects: float = 0
    decisions: int = 0
    judgements: int = 0
    further_crops: int = 0

    def __post_init__(self) -> None:
        if min(self._counts) < 0:
            raise DataError(f"expected counts of work that are not negative, got {self}")

    def __add__(self, other: Work) -> Work:
        if other.task != self.task:
            raise DataError(f"expected work of task {self.task!r}, got {other.task!r}; add up each task separately")
        return Work(self.task, *map(operator.add, self._counts, other._counts))

    @property
    def _counts(self) -> tuple[Any, ...]:
        return dataclasses.astuple(self)[1:]

    @property
    def whole_images(self) -> int:
        """The whole images that were looked at; their crops share them."""
        return self.images - self.further_crops


class Progress:
    """A progress callback. This one is silent; the command line draws a progress bar."""

    def advance(self, label: str, done: int, total: int, numbers: Mapping[str, float] = MappingProxyType({})) -> None:
        """Report that `done` of `total` steps are finished, and values to display, such as a loss."""


@final
class PrefixedProgress(Progress):
    """Passes progress on to another callback, each label with a name before it."""

    def __init__(self, inner: Progress, name: str) -> None:
        self._inner = inner
        self._name = name

    def advance(self, label: str, done: int, total: int, numbers: Mapping[str, float] = MappingProxyType({})) -> None:
        """Report progress."""
        self._inner.advance(f"{self._name}: {label}", done, total, numbers)


class EpochLogger(ABC):
    """Receives the numbers of every epoch of a training, for a plotting tool."""

    @abstractmethod
    def log(self, folder: Path, epoch: int, numbers: Mapping[str, float]) -> None:
        """Record an epoch.

        A training that resumes from a checkpoint may log the epochs after it again, with the same numbers.

        Args:
            folder: The training's folder, to write to.
            epoch: Counted from 1.
            numbers: Values by name, as in `log.csv`: losses, validation measures, learning rate, seconds.
        """


@dataclass(frozen=True)
class FitContext:
    """Run-time settings of a fit: everything besides data and parameters.

    Attributes:
        seed: Determines everything on a CPU.
        folder: Folder for checkpoints and logs, from which a killed run resumes; None: nothing is kept.
        device: `auto` (a GPU when there is one), or a torch device.
        precision: `auto` (bfloat16 on hardware that is fast at it), `float32` or `bfloat16`.
        progress: Progress callback.
        loggers: Loggers that receive the numbers of every epoch, if there is a folder.
        start: State of another model, tensors by name, for methods that `continues` marks: they start from the weights
            of its backbone (`micraframe.classifier.weights_for`); None: they start from random ones.
    """

    seed: int = 0
    folder: Path | None = None
    device: str = "auto"
    precision: Precision = "auto"
    progress: Progress = dataclasses.field(default_factory=Progress)
    loggers: tuple[EpochLogger, ...] = ()
    start: Mapping[str, Any] | None = None

    def nested(self, name: str, seed: int) -> FitContext:
        """Return the context of a training within this one: its name, in progress and in folders, and its seed."""
        folder = None if self.folder is None else self.folder / name
        return dataclasses.replace(self, seed=seed, folder=folder, progress=PrefixedProgress(self.progress, name))


def check_image(image: object, name: str) -> None:
    """Raise `DataError`, naming the image, unless it is a finite, non-empty float32 (C, H, W) array."""
    _check(name, "image", image, np.float32, (None, None, None), ("channels", "height", "width"))
    assert isinstance(image, np.ndarray)
    if image.size == 0:
        raise DataError(f"{name}: the image is empty: shape (C, H, W) = {image.shape}")
    # The sum is finite if all values are, and is cheaper; look closer only when it is not.
    if not np.isfinite(image.sum(dtype=np.float64)):
        bad = int(np.count_nonzero(~np.isfinite(image)))
        if bad:
            raise DataError(f"{name}: {bad} of {image.size} values are NaN or infinite; repair or mask the file")


def _freeze(value: object) -> None:
    """Replace the arrays of a frozen dataclass by read-only views."""
    for field in dataclasses.fields(value):  # type: ignore[arg-type]  # any dataclass
        held = getattr(value, field.name)
        if isinstance(held, np.ndarray):
            object.__setattr__(value, field.name, _read_only(held))
        elif isinstance(held, tuple) and held and isinstance(held[0], np.ndarray):
            object.__setattr__(value, field.name, tuple(map(_read_only, held)))


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def _map_status(values: FloatArray) -> Status:
    if not values.any():
        return "empty"
    return "ok" if np.ptp(values) > 0 else "constant"


def check_classes(where: str, classes: Sequence[int], count: int) -> None:
    """Raise `DataError` unless these are distinct indices of `count` classes."""
    if any(not 0 <= index < count for index in classes) or len(set(classes)) != len(classes):
        raise DataError(f"{where}: expected distinct class indices below {count}, got {classes}")


def _check(
    where: str,
    name: str,
    array: object,
    dtype: type[np.generic],
    shape: tuple[int | None, ...] | tuple[int, ...],
    axes: tuple[str, ...] = (),
) -> None:
    """Raise `DataError` unless `array` is None or an array of that type and shape (None: any length).

    `axes` names the axes in the message, where a shape of lengths alone would not say what they are.
    """
    if array is None and name != "image":
        return
    lengths = axes or ["any" if n is None else str(n) for n in shape]
    expected = f"{dtype.__name__} of shape ({', '.join(lengths)})"
    if not isinstance(array, np.ndarray):
        raise DataError(f"{where}: expected {name} to be an array, {expected}, got {type(array).__name__}")
    fits = len(array.shape) == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or not fits:
        raise DataError(f"{where}: expected {name} to be {expected}, got {array.dtype} of shape {array.shape}")
