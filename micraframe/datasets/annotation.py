"""The annotation of a whole image, as a dataset's reader returns it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from micraframe.errors import DataError
from micraframe.images import nearest
from micraframe.objects import compact, components, fill
from micraframe.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class ImageAnnotation:
    """The annotation of a whole image. The fields have the same meaning as in a `Sample`.

    Attributes:
        masks: bool (K, H, W).
        instances: int32 (K, H, W); 0 is background. If masks are omitted, they follow from instances.
        boxes: Per class, float32 (N, 4): (y0, x0, y1, x1), end exclusive; they may reach beyond the image.
        points: Per class, float32 (N, 2): (y, x).
        ignore: bool (H, W): unannotated pixels.
        size: (H, W) of the image. Without masks or instances, setting it saves reading the image.
    """

    masks: BoolArray | None = None
    instances: IntArray | None = None
    boxes: tuple[FloatArray, ...] | None = None
    points: tuple[FloatArray, ...] | None = None
    ignore: BoolArray | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.masks is None and self.instances is not None:
            object.__setattr__(self, "masks", self.instances > 0)
        if self.masks is not None:
            object.__setattr__(self, "size", self.masks.shape[1:])

    @property
    def points_only(self) -> bool:
        """Whether nothing but points is annotated."""
        return self.masks is None and self.boxes is None

    def numbered(self) -> IntArray:
        """Return the objects, int32 (K, H, W): the instances, or else the connected components of the masks.

        No number is above that of pixels, K H W.

        Raises:
            DataError: If there are neither.
        """
        if self.instances is not None:
            return compact(self.instances)
        if self.masks is None:
            raise DataError("expected masks or instances, got only boxes or points")
        return components(self.masks)

    def coverage(self, size: tuple[int, int]) -> BoolArray:
        """Return the annotated pixels of an image (H, W), bool (K, H, W): masks, else boxes, else points.

        A box covers every pixel that it touches.
        """
        if self.masks is not None:
            return self.masks
        shapes = self.boxes if self.boxes is not None else tuple(map(_as_boxes, self.points or ()))
        return fill(shapes, size)

    def resized(self, old: tuple[int, int], new: tuple[int, int]) -> ImageAnnotation:
        """Return the annotation of the image resized from (H, W) `old` to `new`, by nearest neighbour."""
        if old == new:
            return self
        factor = np.divide(new, old, dtype=np.float32)
        return ImageAnnotation(
            masks=None if self.masks is None else nearest(self.masks, new),
            instances=None if self.instances is None else nearest(self.instances, new),
            boxes=None if self.boxes is None else tuple(part * np.tile(factor, 2) for part in self.boxes),
            points=None if self.points is None else tuple((part + 0.5) * factor - 0.5 for part in self.points),
            ignore=None if self.ignore is None else nearest(self.ignore, new),
            size=new,
        )

    def check_classes(self, count: int) -> None:
        """Raise `DataError` unless everything is annotated for `count` classes."""
        for name in ("masks", "instances", "boxes", "points"):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise DataError(f"expected {name} of {count} classes, got {len(value)}")


def mean_object_areas(annotations: Iterable[ImageAnnotation], count: int) -> npt.NDArray[np.float64]:
    """Return the mean area in pixels of the objects of each of `count` classes; NaN for a class without objects.

    Objects are those of masks, or else the boxes.

    Raises:
        DataError: If there are only points.
    """
    pixels, objects = np.zeros((2, count))
    for annotation in annotations:
        if annotation.masks is not None:
            numbered = annotation.numbered()
            pixels += np.count_nonzero(numbered, axis=(1, 2))
            objects += [np.count_nonzero(np.bincount(labels.ravel())[1:]) for labels in numbered]
        elif annotation.boxes is not None:
            pixels += [np.prod(part[:, 2:] - part[:, :2], axis=1).sum() for part in annotation.boxes]
            objects += list(map(len, annotation.boxes))
        else:
            raise DataError("points have no area: positive_rule: object needs masks or boxes")
    return np.asarray(np.divide(pixels, objects, out=np.full(count, np.nan), where=objects > 0))


def _as_boxes(points: FloatArray) -> FloatArray:
    """Return the pixel of each point as a box."""
    pixels = np.rint(points)
    return np.concatenate([pixels, pixels + 1], axis=1)
