"""The contact class, made from numbered objects: where two of them touch."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.errors import DataError
from micraframe.objects import components
from micraframe.types import BoolArray, IntArray


def contact_pixels(instances: IntArray, distance: float) -> BoolArray:
    """Return the pixels that lie within a distance of two objects of one class, bool (H, W).

    Args:
        instances: int32 (K, H, W); 0 is background.
        distance: Largest Euclidean distance, in pixels, between the centres of a pixel and of a pixel of an object,
            which is 0 inside the object.
    """
    reach = int(distance)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = (y**2 + x**2 <= distance**2).astype(np.uint8)
    found = np.zeros(instances.shape[1:], np.bool_)
    for labels in instances.astype(np.float64):  # OpenCV does not dilate int32
        largest = cv2.dilate(labels, disc)
        smallest = -cv2.dilate(np.where(labels > 0, -labels, -np.inf), disc)
        found |= (largest > 0) & (smallest < largest)
    return found


def with_contact(annotation: ImageAnnotation, distance: float) -> ImageAnnotation:
    """Return the annotation with the contact class as another, last class; its objects are connected components.

    Args:
        annotation: With instances of K - 1 classes.
        distance: See `contact_pixels`.

    Raises:
        DataError: If there are no instances.
    """
    instances = annotation.instances
    if instances is None or annotation.masks is None:
        raise DataError(
            "expected masks with numbered objects to find contacts between, got none; give them, set unlabelled: skip, "
            "or omit contact_class"
        )
    contact = contact_pixels(instances, distance)[None]
    return dataclasses.replace(
        annotation,
        masks=np.concatenate([annotation.masks, contact]),
        instances=np.concatenate([instances, components(contact)]),
        boxes=annotation.boxes and (*annotation.boxes, np.zeros((0, 4), np.float32)),
        points=annotation.points and (*annotation.points, np.zeros((0, 2), np.float32)),
    )
