"""What crosses the boundaries between parts: frozen, checked, per image, numpy.

Axes are named K (classes), C (channels), L (layers), H (rows), W (columns); positions are (y, x) in pixels with (0, 0)
the middle of the first pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from micraframe.errors import DataError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int32]

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class Annotation(StrEnum):
    """The fields of a `Sample` that hold annotation, weakest first."""

    LABELS = "labels"
    POINTS = "points"
    BOXES = "boxes"
    MASKS = "masks"
    INSTANCES = "instances"


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and what is known of it.

    Attributes:
        id: A name that no other sample of the dataset has.
        image: float32 (C, H, W), normalised by its dataset.
        labels: bool (K,): is the class in the image.
        points: Per class, float32 (N, 2): (y, x).
        boxes: Per class, float32 (N, 4): (y0, x0, y1, x1), the end not included.
        masks: bool (K, H, W).
        instances: int32 (K, H, W), 0 is background.
        ignore: bool (H, W): pixels of which nothing is said; they neither train nor count.
        pixel_size_um: Edge of a pixel in micrometres.
        group: What a split must not cut in two: a patient, a slide, a field.
        source: Where the image came from: a path, or a sentence.

    Raises:
        DataError: If an array has another type or shape than stated, or the image is empty or not finite.
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

    def keep(self, annotations: Iterable[Annotation]) -> Sample:
        """Return the same sample without any annotation but these; its source goes with what it could lead to."""
        kept = set(annotations)
        gone: dict[str, Any] = {kind.value: None for kind in Annotation if kind not in kept}
        if Annotation.MASKS not in kept and Annotation.INSTANCES not in kept:
            gone["ignore"] = None
        if gone:
            gone["source"] = ""
        return dataclasses.replace(self, **gone)


@dataclass(frozen=True)
class DatasetInfo:
    """What must be known of a dataset besides its samples.

    Attributes:
        name: The dataset's name in tables.
        classes: Names of the K classes.
        channels: Number of channels C.
        normalisation: What was done to the samples' images, so that a model can do it to others.
        fingerprint: Hash of everything that determines the samples: parameters and the bytes of the files; not the
            dataset's name, licence or citation.
        pixel_size_um: Edge of a pixel in micrometres, where all images share it.
        licence: Licence of the data.
        citation: Whom to cite for the data.
        image_size: (H, W) of the images, where all share it: what the windows of a sweep should be.
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

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise DataError(f"dataset {self.name!r}: classes {self.classes} are not at least one, each once")


@dataclass(frozen=True)
class Normalisation:
    """How intensities are brought to a common range.

    Attributes:
        kind: `none`; `min-max` and `percentile` bring each image's range to [0, 1]; `mean-sd` brings it to mean 0 and
            standard deviation 1; `fixed` subtracts `offset` and divides by `scale`, whatever the image.
        per_channel: Measure each channel by itself rather than all together (not for `fixed`).
        low: Percentile that becomes 0 (`percentile`).
        high: Percentile that becomes 1 (`percentile`).
        offset: Per channel, or one for all (`fixed`).
        scale: Per channel, or one for all (`fixed`).
        clip: Clip the result to [0, 1] (not for `none` and `mean-sd`).
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
            raise DataError(f"normalisation: percentiles {self.low} and {self.high}; wanted 0 <= low < high <= 100")
        if not all(np.isfinite([*self.offset, *self.scale])) or 0 in self.scale:
            raise DataError(f"normalisation: offset {self.offset}, scale {self.scale}; wanted finite, scale not 0")

    def apply(self, image: FloatArray) -> FloatArray:
        """Return the normalised image.

        Args:
            image: float32 (C, H, W) in the units of its file.

        Returns:
            float32 (C, H, W). A constant image becomes 0 rather than a division by zero.
        """
        if self.kind == "none":
            return image
        axes = (1, 2) if self.per_channel else (0, 1, 2)
        if self.kind == "fixed":
            offset, scale = (np.asarray(v, np.float64).reshape(-1, 1, 1) for v in (self.offset, self.scale))
            if max(offset.shape[0], scale.shape[0]) not in (1, image.shape[0]):
                raise DataError(
                    f"the normalisation is for {max(offset.shape[0], scale.shape[0])} channels, "
                    f"the image has {image.shape[0]}"
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
        # Of a constant image only rounding is left: nothing to divide by.
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
        channels: Number of its feature maps.
        stride: Pixels of the image per cell of the layer.
    """

    name: str
    channels: int
    stride: int


@dataclass(frozen=True, eq=False)
class Maps:
    """Class activation maps of one image: signed, per layer, at native resolution.

    Attributes:
        size: (H, W) of the image.
        classes: Indices of the K classes that were asked for.
        layers: The L layers, shallow to deep.
        maps: Per layer, float32 (K, h, w).
        scores: float32, probability of *every* class of the classifier, from the same forward pass.

    Raises:
        DataError: If lengths, types or shapes disagree, or a map is not finite.
    """

    size: tuple[int, int]
    classes: tuple[int, ...]
    layers: tuple[Layer, ...]
    maps: tuple[FloatArray, ...]
    scores: FloatArray

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.maps):
            raise DataError(f"{len(self.layers)} layers {[layer.name for layer in self.layers]}, {len(self.maps)} maps")
        if len({layer.name for layer in self.layers}) != len(self.layers):
            raise DataError(f"layers {[layer.name for layer in self.layers]} do not have different names")
        for layer, array in zip(self.layers, self.maps, strict=True):
            _check("maps", layer.name, array, np.float32, (len(self.classes), None, None))
            if not np.isfinite(array).all():
                raise DataError(f"the map of layer {layer.name!r} has values that are not finite")
        _check("maps", "scores", self.scores, np.float32, (None,))
        if any(not 0 <= index < len(self.scores) for index in self.classes):
            raise DataError(f"classes {self.classes} of a classifier with {len(self.scores)} classes")


Status = Literal["ok", "empty", "constant", "negative", "absent"]
"""What became of a class: `ok`; `empty`: nothing in the map or mask; `constant`: a map without contrast; `negative`: a
map that speaks only against the class; `absent`: the class was not decided to be in the image."""


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """How much each pixel speaks for each class that was asked for: high means present.

    Attributes:
        classes: Indices of the K classes.
        values: float32 (K, H, W), in [0, 1].
        coarse: float32 (K, H, W), in [0, 1]: the deepest layer's map, rectified and divided by its maximum.
        status: Per class.
        notes: Per class, what the combiner decided, such as the sign of a component.

    Raises:
        DataError: If lengths, types or shapes disagree, or a value is not in [0, 1].
    """

    classes: tuple[int, ...]
    values: FloatArray
    coarse: FloatArray
    status: tuple[Status, ...]
    notes: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        _check("score map", "values", self.values, np.float32, (len(self.classes), None, None))
        _check("score map", "coarse", self.coarse, np.float32, self.values.shape)
        if len(self.status) != len(self.classes):
            raise DataError(f"score map of {len(self.classes)} classes with {len(self.status)} statuses")
        for name, array in (("values", self.values), ("coarse", self.coarse)):
            if array.size and not (array.min() >= 0 and array.max() <= 1):
                raise DataError(f"score map: {name} reach from {array.min()} to {array.max()}; [0, 1] is wanted")


Span = tuple[int, int]
"""The first pixel along a side and, not included, the last."""


@dataclass(frozen=True, eq=False)
class Part:
    """What a method says of a tile of an image, and where the tile lies in it.

    Attributes:
        rows: Of the image, which the tile covers.
        columns: Likewise.
        used_rows: Those that are taken from this tile, not from a neighbour.
        used_columns: Likewise.
        scores: float32 (K,), in [0, 1].
        score_map: Of the tile's size.
    """

    rows: Span
    columns: Span
    used_rows: Span
    used_columns: Span
    scores: FloatArray
    score_map: ScoreMap

    @property
    def inside(self) -> tuple[slice, slice]:
        """The used rows and columns as the tile counts them."""
        top, left = self.rows[0], self.columns[0]
        return (
            slice(self.used_rows[0] - top, self.used_rows[1] - top),
            slice(self.used_columns[0] - left, self.used_columns[1] - left),
        )


@dataclass(frozen=True)
class Threshold:
    """A threshold and where it came from.

    Attributes:
        name: What it decides, such as `presence` or `mask`.
        value: The number, or NaN where it is found anew in every image.
        origin: `fixed` beforehand (a rule such as Otsu's included), tuned on `validation` labels, or `oracle`: tuned
            on the test labels, which is never a result.
        rule: The rule, such as `otsu`, where there is one.
    """

    name: str
    value: float
    origin: Literal["fixed", "validation", "oracle"] = "fixed"
    rule: str = ""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a method says of one image.

    Attributes:
        scores: float32 (K,), in [0, 1].
        present: bool (K,): was the class decided to be in the image.
        masks: bool (K, H, W).
        instances: int32 (K, H, W), 0 is background.
        points: Per class, float32 (N, 3): (y, x, score).
        status: Per class.
        thresholds: The thresholds that were used.
        score_map: What the masks were made of.
        method: The qualified name of the method.

    Raises:
        DataError: If types or shapes disagree, or a score is not in [0, 1].
    """

    scores: FloatArray
    present: BoolArray
    masks: BoolArray | None = None
    instances: IntArray | None = None
    points: tuple[FloatArray, ...] | None = None
    status: tuple[Status, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    score_map: ScoreMap | None = None
    method: str = ""

    def __post_init__(self) -> None:
        _check("prediction", "scores", self.scores, np.float32, (None,))
        count = len(self.scores)
        if count and not (self.scores.min() >= 0 and self.scores.max() <= 1):
            raise DataError(f"prediction: scores {self.scores} are not in [0, 1]")
        _check("prediction", "present", self.present, np.bool_, (count,))
        _check("prediction", "masks", self.masks, np.bool_, (count, None, None))
        _check("prediction", "instances", self.instances, np.int32, (count, None, None))
        for part in self.points or ():
            _check("prediction", "points", part, np.float32, (None, 3))
        for name in ("points", "status"):
            value = getattr(self, name)
            if value and len(value) != count:
                raise DataError(f"prediction of {count} classes with {name} of {len(value)}")


@dataclass(frozen=True)
class Cost:
    """What an annotation costs.

    Attributes:
        decisions: Crops judged, points set, or edge pixels drawn.
        seconds: An annotator's time.
        seconds_low: The lowest that is plausible.
        seconds_high: The highest that is plausible.
    """

    decisions: int = 0
    seconds: float = 0.0
    seconds_low: float = 0.0
    seconds_high: float = 0.0

    def __post_init__(self) -> None:
        if self.decisions < 0 or not 0 <= self.seconds_low <= self.seconds <= self.seconds_high:
            raise DataError(f"{self} is not a cost: 0 <= decisions and 0 <= low <= seconds <= high are wanted")

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.decisions + other.decisions,
            self.seconds + other.seconds,
            self.seconds_low + other.seconds_low,
            self.seconds_high + other.seconds_high,
        )


@dataclass(frozen=True)
class Run:
    """Under what a method is fitted: everything besides data and parameters.

    Attributes:
        seed: Fixes everything on a CPU.
        folder: Where checkpoints and logs go, and from where a killed run goes on; None keeps nothing.
        device: `auto` (a GPU when there is one), or a torch device.
        precision: `auto` (bfloat16 where it helps), `float32` or `bfloat16`.
        progress: Called with a label, the number done and the number in all, and numbers to show; None is silent.
    """

    seed: int = 0
    folder: Path | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    progress: Progress | None = None


class Progress:
    """Is told how far something long has come. This one says nothing; the command line has one that draws."""

    def advance(self, label: str, done: int, total: int, numbers: Mapping[str, float] = MappingProxyType({})) -> None:
        """Take note that `done` of `total` are done, and of numbers worth showing, such as a loss."""


def check_image(image: object, name: str) -> None:
    """Raise `DataError`, naming the image, unless it is a finite, non-empty float32 (C, H, W) array."""
    _check(name, "image", image, np.float32, (None, None, None))
    assert isinstance(image, np.ndarray)
    if image.size == 0:
        raise DataError(f"{name}: the image is empty: shape (C, H, W) = {image.shape}")
    # The sum is finite if all values are, and is cheaper to ask for; only when it is not, look closer.
    if not np.isfinite(image.sum(dtype=np.float64)):
        bad = int(np.count_nonzero(~np.isfinite(image)))
        raise DataError(f"{name}: {bad} of {image.size} values of the image are NaN or infinite; mend or mask the file")


def _check(
    where: str, name: str, array: object, dtype: type[np.generic], shape: tuple[int | None, ...] | tuple[int, ...]
) -> None:
    """Raise `DataError` unless `array` is None or an array of that type and shape (None: any length)."""
    if array is None and name != "image":
        return
    wanted = f"{dtype.__name__} of shape ({', '.join('any' if n is None else str(n) for n in shape)})"
    if not isinstance(array, np.ndarray):
        raise DataError(f"{where}: {name} is a {type(array).__name__}; an array, {wanted}, is wanted")
    fits = len(array.shape) == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or not fits:
        raise DataError(f"{where}: {name} is {array.dtype} of shape {array.shape}; {wanted} is wanted")
