"""Image files as samples for a trained model: with masks, or known to be negative."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from micraframe.batch.evaluate import truth_masks
from micraframe.batch.predict import expand, read_file
from micraframe.errors import DataError
from micraframe.images import nearest
from micraframe.objects import is_numbered
from micraframe.types import DatasetInfo, Sample


def labelled_images(info: DatasetInfo, images: Path, masks: Path | None) -> tuple[Sample, ...]:
    """Return the images of a folder as samples, prepared as the model's training images were.

    Masks are named as the images are, in a folder as `evaluate_files` reads it; those with several values other than 0
    also number objects. Without such a folder, no image has any class.

    Raises:
        DataError: If there is no image, a file cannot be read, an image has no mask, or one of another size.
    """
    found = []
    for file in expand([images]):
        image = read_file(file, info)
        if isinstance(image, str):
            raise DataError(image)
        absent = np.zeros(len(info.classes), np.bool_)
        if masks is None:
            found.append(Sample(file.name, image.scored, labels=absent))
            continue
        outlined = truth_masks(masks, file.stem, info.classes)
        if outlined.shape[1:] != image.shown.shape[1:]:
            raise DataError(
                f"{file}: expected masks of its size {image.shown.shape[1:]}, got {outlined.shape[1:]} in {masks}"
            )
        outlined = nearest(outlined, (image.scored.shape[1], image.scored.shape[2]))
        found.append(
            Sample(
                file.name,
                image.scored,
                labels=np.asarray(outlined.any((1, 2))),
                masks=outlined != 0,
                instances=outlined if is_numbered(outlined) else None,
            )
        )
    if not found:
        raise DataError(f"{images}: expected a folder with one or more images, got none")
    return tuple(found)
