"""Targets of a detector, packed as images so that augmentation rotates and mirrors them with the image.

A target is int32 (D + 1, H, W): D planes of numbered objects that do not overlap within a plane, and a last plane that
is 1 where pixels are ignored. Object number n has class (n - 1) mod K. Boxes are measured after augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.ops import masks_to_boxes

from micraframe.objects import box_window, components
from micraframe.types import BoolArray, FloatArray, IntArray, Sample


class TargetObjects(NamedTuple):
    """The objects of one image.

    Attributes:
        boxes: float32 (N, 4): (x0, y0, x1, y1), end exclusive.
        classes: int64 (N,), from 0.
        masks: uint8 (N, H, W), 0 or 1.
        ignore: bool (H, W): unannotated pixels.
    """

    boxes: Tensor
    classes: Tensor
    masks: Tensor
    ignore: Tensor


def pack(sample: Sample) -> IntArray:
    """Return a sample's target, int32 (D + 1, H, W).

    Objects are its instances; else its boxes, filled; else the components of its masks. A component next to ignored
    pixels, such as a scribble, has no known outline, and is ignored too.
    """
    size = (sample.image.shape[1], sample.image.shape[2])
    ignore = np.zeros(size, bool) if sample.ignore is None else sample.ignore
    if sample.instances is not None:
        planes = number(sample.instances)
    elif sample.boxes is not None:
        planes = layers(sample.boxes, size)
    else:
        assert sample.masks is not None
        labels, unknown = outlined(sample.masks, ignore)
        planes, ignore = number(labels), ignore | unknown
    return np.concatenate([planes, ignore[None].astype(np.int32)])


def stack(targets: Sequence[IntArray]) -> IntArray:
    """Return targets (D + 1, H, W) as one array, (B, D + 1, H, W) with the largest D, by empty planes before them."""
    depth = max(map(len, targets))
    return np.stack([np.pad(target, ((depth - len(target), 0), (0, 0), (0, 0))) for target in targets])


def unpack(target: Tensor, classes: int, mirrored: bool = False) -> TargetObjects:
    """Return the objects of a target (D + 1, H, W), in the order of their numbers.

    Args:
        target: From `pack`, perhaps augmented.
        classes: Number of classes.
        mirrored: Whether it was rotated, which mirrors objects at the edges with their numbers: connected components
            are then objects of their own.
    """
    planes, ignore = target[:-1], target[-1] > 0
    numbers = torch.unique(planes)
    numbers = numbers[numbers > 0]
    masks = (planes == numbers[:, None, None, None]).any(1)
    if mirrored:
        labels = torch.from_numpy(components(masks.cpu().numpy())).to(target.device)
        counts = labels.amax((1, 2)).long()
        numbers, labels = (each.repeat_interleave(counts, 0) for each in (numbers, labels))
        before = (counts.cumsum(0) - counts).repeat_interleave(counts)
        masks = labels == (torch.arange(len(labels), device=target.device) - before + 1)[:, None, None]
    boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1], device=target.device)
    return TargetObjects(boxes.float(), (numbers.long() - 1) % classes, masks.to(torch.uint8), ignore)


def number(labels: IntArray) -> IntArray:
    """Return label images (K, H, W) with a distinct number for each object, from which its class follows."""
    numbered = np.zeros_like(labels)
    for index, (plane, output) in enumerate(zip(labels, numbered, strict=True)):
        inside = plane > 0
        _, rank = np.unique(plane[inside], return_inverse=True)
        output[inside] = 1 + index + len(labels) * rank
    return numbered


def layers(boxes: Sequence[FloatArray], size: tuple[int, int]) -> IntArray:
    """Return filled boxes, numbered, in as few planes as a greedy choice needs for them not to overlap.

    Args:
        boxes: Per class, float32 (N, 4): (y0, x0, y1, x1), end exclusive; every pixel of the image that they touch is
            filled.
        size: (H, W).
    """
    planes: list[IntArray] = []
    for index, several in enumerate(boxes):
        for rank, box in enumerate(several):
            place = box_window(box)
            free = next((plane for plane in planes if not plane[place].any()), None)
            if free is None:
                planes.append(free := np.zeros(size, np.int32))
            free[place] = 1 + index + len(boxes) * rank
    return np.stack(planes) if planes else np.zeros((0, *size), np.int32)


def outlined(masks: BoolArray, ignore: BoolArray) -> tuple[IntArray, BoolArray]:
    """Separate the components with a known outline from those next to ignored pixels.

    Args:
        masks: bool (K, H, W).
        ignore: bool (H, W).

    Returns:
        int32 (K, H, W): those with a known outline, with gaps in their numbers; bool (H, W): pixels of the others.
    """
    labels = components(masks)
    near = ndimage.binary_dilation(ignore, np.ones((3, 3)))
    unknown = np.zeros_like(masks)
    for plane, lost in zip(labels, unknown, strict=True):
        lost[...] = np.isin(plane, np.unique(plane[near & (plane > 0)]))
    labels[unknown] = 0
    return labels, np.asarray(unknown.any(0))
