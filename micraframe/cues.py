"""Cues: what an image itself may show of where a class is, without having learned it.

A bright nucleus, a dark vessel, a rough cell on a smooth background: each of these can be segmented by one threshold,
and its outline is then that of the image. Which cue belongs to a class, if any, is not known beforehand. What shows
it is how well a cue's masks agree with the maps of a model that learned the class from image-level labels: the model
knows *what* the class is, the cue knows *where it ends*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final, Literal, final, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from micraframe.erasing import dilated
from micraframe.thresholds import otsu
from micraframe.types import BoolArray, FloatArray

CueName = Literal["bright", "dark", "deviation", "edges", "dark-edges", "bright-edges"]

CUES: Final[tuple[CueName, ...]] = get_args(CueName)

EXACT: Final[frozenset[CueName]] = frozenset({"bright", "dark"})
"""Cues whose outlines are those of the image; the others are local averages, and blur outlines by some pixels."""

ONE_SIDED: Final[frozenset[CueName]] = frozenset({"dark-edges", "bright-edges"})
"""Edges counted only where the image is darker, or only where it is brighter, than its median."""

_PIXELS: Final = 4096
"""Most pixels of an image among which a common threshold is chosen."""

_NEIGHBOURS: Final = np.ones((3, 3))
"""Of a pixel of an object: all eight."""

_LEAST_COVER: Final = 0.05
"""Least share of a connected component of a mask that its class's objects cover, for the component to outline them."""

_RING: Final = 3
"""Width, in pixels, of what counts as around a cue's mask: the distance over which one-sided cues are averaged."""

_SATURATED: Final = 0.999
"""Quantile of the pixels of all images above which values count as equal, so that a few do not move the threshold."""


@final
@dataclasses.dataclass(frozen=True)
class Cue:
    """A quantity of the image and the threshold that makes a mask of it.

    Attributes:
        name: The quantity; see `cue_map`.
        threshold: In units of the quantity; None: each image's own Otsu threshold.
        whole: Whether an object that the cue outlines belongs as a whole to the only class that is found in a part of
            it.
    """

    name: CueName
    threshold: float | None = None
    whole: bool = False

    def mask(self, image: FloatArray) -> BoolArray:
        """Return where the quantity is above the threshold: bool (H, W), of an image (C, H, W)."""
        return self.above(cue_map(image, self.name))

    def above(self, values: FloatArray) -> BoolArray:
        """Return where the values of the quantity, (H, W), are above the threshold."""
        return values > (otsu(values) if self.threshold is None else self.threshold)


def cue_map(image: FloatArray, name: CueName) -> FloatArray:
    """Return a cue's quantity at every pixel of an image (C, H, W): float32 (H, W), in units of the image.

    With I the mean over channels and m its median, it is

    - `bright`, `dark`: I - m and m - I, smoothed by a Gaussian of half a pixel;
    - `deviation`: |I - m|, averaged by a Gaussian of two pixels;
    - `edges`: g averaged by a Gaussian of four pixels, g being the magnitude of I's gradient at a scale of one pixel;
    - `dark-edges`: g where I < m and 0 elsewhere, averaged by a Gaussian of three pixels: it leaves out the bright halo
      around objects in phase contrast or out of focus;
    - `bright-edges`: the same where I > m.
    """
    relative = relative_intensity(image)
    if name == "edges" or name in ONE_SIDED:
        gradient = ndimage.gaussian_gradient_magnitude(relative, 1)
        if name == "edges":
            return np.asarray(ndimage.gaussian_filter(gradient, 4))
        side = relative < 0 if name == "dark-edges" else relative > 0
        return np.asarray(ndimage.gaussian_filter(np.where(side, gradient, 0), 3))
    if name == "deviation":
        return np.asarray(ndimage.gaussian_filter(np.abs(relative), 2))
    smooth = ndimage.gaussian_filter(relative, 0.5)
    return np.asarray(smooth if name == "bright" else -smooth)


def relative_intensity(image: FloatArray) -> FloatArray:
    """Return the mean over channels of an image (C, H, W), less its median over pixels: float32 (H, W)."""
    intensity = image.mean(axis=0, dtype=np.float32)
    return np.asarray(intensity - np.median(intensity))


def candidates(images: Iterable[FloatArray], names: Sequence[CueName]) -> tuple[Cue, ...]:
    """Return each of the named cues twice: with the threshold of each image, and with one common to all images.

    Args:
        images: At least one, each (C, H, W): a sample of those to be segmented, with and without the class. The common
            threshold is Otsu's of their pixels, clipped at the 99.9th percentile.
        names: In order of preference where cues agree equally well.
    """
    pixels: dict[CueName, list[FloatArray]] = {name: [] for name in names}
    for image in images:
        for name in names:
            pixels[name].append(_thinned(cue_map(image, name)))
    found = []
    for name, parts in pixels.items():
        values = np.concatenate(parts)
        found += [Cue(name), Cue(name, otsu(np.minimum(values, np.quantile(values, _SATURATED))))]
    return tuple(found)


def agreements(
    examples: Iterable[tuple[FloatArray, BoolArray, BoolArray]], cues: Sequence[Cue]
) -> dict[Cue, npt.NDArray[np.float64]]:
    """Return how well each cue agrees with the masks of each class: (K,), a mean over the images that contain it.

    By pixels, the agreement is the IoU of the class's mask and the cue's. Pixels that the cue marks only in the masks
    of other classes are left out: there, it outlines those.

    For a cue of whole objects, a mask only has to say which objects belong to the class, so it may be coarse, or cover
    parts of them. With T the objects of the cue that the class's mask touches, C those of them that no other class's
    mask touches (`claimed_objects`), U the objects that no mask touches, and S the connected components of the class's
    mask of which C covers less than 5 %, the agreement is

        |C| / |T or U or S|,  in pixels.

    It is 0 where both masks are empty, or no object is claimed, and for a class that is in no image.

    Args:
        examples: At least one image, each (C, H, W), the masks of its classes, bool (K, H, W), and which of them it
            contains, bool (K,).
        cues: The cues.
    """
    found: dict[Cue, list[npt.NDArray[np.float64]]] = {cue: [] for cue in cues}
    for image, masks, present in examples:
        maps = {name: cue_map(image, name) for name in {cue.name for cue in cues}}
        components = [ndimage.label(mask, _NEIGHBOURS)[0] for mask in masks] if any(cue.whole for cue in cues) else []
        for cue, rows in found.items():
            marked = cue.above(maps[cue.name])
            row = _agreement_by_objects(masks, components, marked) if cue.whole else _agreement_by_pixels(masks, marked)
            rows.append(np.where(present, row, np.nan))
    return {cue: _mean_of_known(np.array(rows)) for cue, rows in found.items()}


def _agreement_by_pixels(masks: BoolArray, marked: BoolArray) -> npt.NDArray[np.float64]:
    """Return the agreement of masks (K, H, W) with what a cue marks, (H, W): (K,)."""
    unclaimed = marked & ~masks.any(axis=0)
    return _shares(masks & marked, masks | unclaimed)


def _agreement_by_objects(
    masks: BoolArray, components: Sequence[npt.NDArray[np.int32]], marked: BoolArray
) -> npt.NDArray[np.float64]:
    """Return the agreement, in whole objects, of masks (K, H, W) with what a cue marks, (H, W): (K,).

    The connected components of each mask, (H, W), are those that all cues are compared with.
    """
    objects, touched = _touched(marked, masks)
    found, claimed = (table[:, objects] for table in (touched, _alone(touched)))
    stray = np.zeros_like(masks)
    for index in np.flatnonzero(masks.any(axis=(1, 2))).tolist():
        areas = np.bincount(components[index].ravel())
        covered = np.bincount(components[index][claimed[index]], minlength=len(areas))
        stray[index] = masks[index] & (covered < _LEAST_COVER * areas)[components[index]]
    return _shares(claimed, found | stray | (marked & ~found.any(axis=0)))


def _shares(parts: BoolArray, wholes: BoolArray) -> npt.NDArray[np.float64]:
    """Return the area of each mask (K, H, W) as a share of that of the mask around it: (K,), 0 where both are empty."""
    part, whole = (np.count_nonzero(masks, axis=(1, 2)) for masks in (parts, wholes))
    return np.asarray(part / np.maximum(whole, 1))


def exposures(images: Iterable[FloatArray], cues: Sequence[Cue]) -> dict[Cue, float]:
    """Return how much the outlines of each cue's masks border on background, in [0, 1].

    It is the share of the pixels around its masks, up to three pixels away, that none of the cues marks, over all
    images together; 1 if it marks nothing.

    Args:
        images: Each (C, H, W).
        cues: The cues.
    """
    around, bare = np.zeros(len(cues)), np.zeros(len(cues))
    for image in images:
        masks = np.stack([cue.mask(image) for cue in cues])
        background = ~masks.any(axis=0)
        for index, mask in enumerate(masks):
            ring = dilated(mask, _RING) & ~mask
            around[index] += np.count_nonzero(ring)
            bare[index] += np.count_nonzero(ring & background)
    shares = np.where(around > 0, bare / np.maximum(around, 1), 1.0)
    return dict(zip(cues, shares.tolist(), strict=True))


def claimed_objects(masks: BoolArray, cues: BoolArray) -> BoolArray:
    """Return each class's objects: those outlined by its cue that its mask touches and no other class's mask does.

    An object is a connected component (8 neighbours) of the cue's mask. One that the masks of two classes touch belongs
    to neither.

    Args:
        masks: bool (K, H, W).
        cues: bool (K, H, W): the mask of each class's cue.

    Returns:
        bool (K, H, W).
    """
    claimed = np.zeros_like(masks)
    for index in np.flatnonzero(masks.any(axis=(1, 2)) & cues.any(axis=(1, 2))).tolist():
        objects, touched = _touched(cues[index], masks)
        claimed[index] = _alone(touched)[index, objects]
    return claimed


def consensus(masks: BoolArray, cues: BoolArray, has_cue: BoolArray, whole: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Return what masks and cues agree on, and where they do not.

    With M_c the mask of a class and Q_c its cue, the class is certain in M_c and Q_c, or, where objects are taken
    whole, in those objects of Q_c that M_c alone claims (`claimed_objects`), except where the objects of two classes
    overlap outside both masks. A pixel is uncertain if it is in M_c and the class is not certain there, for any class
    c, or if it is in Q_c and no class has it: what stands out belongs to one of the classes. Classes without a cue keep
    their masks.

    Args:
        masks: bool (K, H, W).
        cues: bool (K, H, W), empty for classes that are absent or have no cue.
        has_cue: bool (K,).
        whole: bool (K,): the classes whose objects are taken whole; each has a cue.

    Returns:
        Masks, bool (K, H, W), and uncertain pixels, bool (H, W).
    """
    certain = masks & (cues | ~has_cue[:, None, None])
    if whole.any():
        certain[whole] = claimed_objects(masks, cues)[whole]
        certain &= np.count_nonzero(certain & ~masks, axis=0) < 2
    unclaimed = cues.any(axis=0) & ~(masks | certain).any(axis=0)
    return certain, np.asarray((masks & ~certain).any(axis=0) | unclaimed)


def _touched(mask: BoolArray, others: BoolArray) -> tuple[npt.NDArray[np.int32], BoolArray]:
    """Return the connected components of a mask (H, W), 8 neighbours, and which of them each other mask touches.

    Args:
        mask: bool (H, W).
        others: bool (K, H, W).

    Returns:
        The components, numbered from 1, int32 (H, W), and bool (K, number of components + 1), of which the first, the
        background, counts as untouched.
    """
    components, number = ndimage.label(mask, _NEIGHBOURS)
    touched = np.zeros((len(others), number + 1), np.bool_)
    for row, other in zip(touched, others, strict=True):
        row[components[other]] = True
    touched[:, 0] = False
    return components, touched


def _alone(touched: BoolArray) -> BoolArray:
    """Return where only one of K masks touches an object, bool (K, N), given where each does."""
    return np.asarray(touched & (np.count_nonzero(touched, axis=0) == 1))


def _mean_of_known(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the means of columns (N, K) without NaN; 0 for a column that has nothing else."""
    number = np.count_nonzero(~np.isnan(values), axis=0)
    return np.asarray(np.nansum(values, axis=0) / np.maximum(number, 1))


def _thinned(values: FloatArray) -> FloatArray:
    flat = values.ravel()
    return flat[:: -(-flat.size // _PIXELS)]
