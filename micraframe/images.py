"""Reading and writing image files: TIFF, PNG and JPEG.

Images are read in the units of the file, as float32 (C, H, W); label images as int32 (H, W) or, if they have several
planes, (K, H, W). What is written is either the old file or the new one, and the same array gives the same bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
import tifffile

from micraframe.errors import DataError
from micraframe.files import atomic, digest
from micraframe.types import FloatArray, IntArray, check_image

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, ".png", ".jpg", ".jpeg")
"""The suffixes, in lower case, of the files that can be read."""

UNNAMED = 4
"""A TIFF axis without a name is taken for channels up to this length, and for a stack beyond it."""

Array = npt.NDArray[Any]


def read_image(path: Path) -> FloatArray:
    """Read an image in the units of its file.

    An opaque alpha channel is dropped; grey is one channel.

    Args:
        path: A TIFF (integers or floats, any number of channels, planar or not, ImageJ and OME axes), a PNG of 8 or 16
            bits, or a JPEG.

    Returns:
        float32 (C, H, W).

    Raises:
        DataError: If the file is missing, broken, empty or of another format, has a depth or time axis, is partly
            transparent, or holds NaN. The message begins with the path.
    """
    planes = read_planes(path)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which the check reports
        image = np.ascontiguousarray(planes, dtype=np.float32)
    check_image(image, str(path))
    return image


def read_planes(path: Path) -> Array:
    """Read an image as `read_image` does, in the type of its file, which may take a quarter of the memory.

    Returns:
        (C, H, W), perhaps not contiguous; floats may be NaN or infinite.

    Raises:
        DataError: As `read_image`, but for NaN.
    """
    planes, _ = _read(path)
    if np.iscomplexobj(planes):
        raise DataError(f"{path}: its values are complex; save their magnitude or phase as floats")
    return planes


def read_labels(path: Path) -> IntArray:
    """Read a label image: a mask, a stack of masks, or numbered objects.

    A picture in grey stored as colour counts as grey; of a PNG with a palette the indices are read.

    Returns:
        int32 (H, W), or (K, H, W) for a file of several planes.

    Raises:
        DataError: As `read_image`, and if the values are not whole numbers of 32 bits, or are colours.
    """
    planes, interleaved = _read(path, palette=True)
    if interleaved and len(planes) > 1:
        if any(not np.array_equal(planes[0], other) for other in planes[1:]):
            raise DataError(f"{path}: a colour picture; masks and objects want one number per pixel")
        planes = planes[:1]
    if planes.dtype.kind not in "biuf":
        raise DataError(f"{path}: masks and objects want whole numbers; this file holds {planes.dtype}")
    if planes.dtype.kind == "f" and not (np.isfinite(planes).all() and np.array_equal(planes, np.rint(planes))):
        raise DataError(f"{path}: masks and objects want whole numbers; this file holds fractions or NaN")
    limits = np.iinfo(np.int32)
    if planes.min() < limits.min or planes.max() > limits.max:
        raise DataError(f"{path}: masks and objects want numbers of 32 bits; these reach {planes.max()}")
    return np.ascontiguousarray(planes if len(planes) > 1 else planes[0], dtype=np.int32)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names that `write_tiff`, or another writer of OME-TIFF, gave to the planes; empty if there are none.

    Raises:
        DataError: If the file is missing or is not a TIFF.
    """
    try:
        with tifffile.TiffFile(path) as file:
            xml = file.ome_metadata
        channels = ElementTree.fromstring(xml).iterfind(".//{*}Channel") if xml else ()
        return tuple(channel.get("Name", "") for channel in channels)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def write_tiff(path: Path, array: Array, classes: Sequence[str] = ()) -> None:
    """Write an OME-TIFF, compressed without loss.

    Args:
        path: Where to.
        array: (H, W) or (K, H, W): bool, which becomes 0 and 255; integers, in 16 bits where they fit; or float32.
        classes: Names of the K planes, which `read_class_names` and image viewers show.

    Raises:
        DataError: If the array is none of these or the names are not one per plane.
    """
    planes = array if array.ndim == 3 else array[None]
    if planes.ndim != 3 or planes.size == 0 or planes.dtype.kind not in "biuf":
        raise DataError(f"{path}: {array.dtype} of shape {array.shape}; bool, integers or floats (K, H, W) are wanted")
    if classes and len(classes) != len(planes):
        raise DataError(f"{path}: {len(classes)} names {tuple(classes)} for {len(planes)} planes")
    if planes.dtype == np.bool_:
        planes = planes.astype(np.uint8) * np.uint8(255)
    elif planes.dtype.kind == "f":
        planes = planes.astype(np.float32)
    elif planes.dtype not in (np.uint8, np.uint16):
        low, high = int(planes.min()), int(planes.max())
        if low < 0 or high > np.iinfo(np.uint32).max:
            raise DataError(f"{path}: values from {low} to {high}; 0 to 2^32 - 1 are wanted")
        planes = planes.astype(np.uint16 if high <= np.iinfo(np.uint16).max else np.uint32)
    metadata: dict[str, Any] = {
        "axes": "CYX",
        # OME wants an identifier; one made from the content keeps equal files equal.
        "UUID": str(uuid.UUID(digest(planes.tobytes(), *classes)[:32])),
    }
    if classes:
        metadata["Channel"] = {"Name": list(classes)}
    with atomic(path) as temporary:
        tifffile.imwrite(temporary, planes, ome=True, photometric="minisblack", compression="zlib", metadata=metadata)


def write_png(path: Path, array: Array) -> None:
    """Write a PNG.

    Args:
        path: Where to.
        array: (H, W) or (H, W, 3): bool, which becomes 0 and 255, uint8 or uint16.

    Raises:
        DataError: If the array is none of these.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype not in (np.uint8, np.uint16) or not fits or array.size == 0:
        raise DataError(
            f"{path}: {array.dtype} of shape {array.shape}; bool, uint8 or uint16, (H, W) or (H, W, 3), is wanted"
        )
    with atomic(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))


def _read(path: Path, palette: bool = False) -> tuple[Array, bool]:
    """Return the planes (C, H, W) of a file, and whether they are colours of one picture rather than planes apart.

    Args:
        path: The file.
        palette: Return the indices, not the colours, of a PNG with a palette.
    """
    if not path.exists():
        raise DataError(f"{path}: cannot be read: there is no such file")
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise DataError(f"{path}: cannot read {suffix or 'a file without suffix'}; wanted {', '.join(IMAGE_SUFFIXES)}")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        if suffix in TIFF_SUFFIXES:
            planes, interleaved = _read_tiff(path)
        else:
            planes, interleaved = _read_picture(path, suffix, palette)
    except DataError:
        raise
    # Decoders fail on broken files with whatever comes to hand.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as {suffix[1:]}: {reason}") from error
    if planes.size == 0:
        raise DataError(f"{path}: the image is empty: shape (C, H, W) = {planes.shape}")
    return planes, interleaved


def _read_tiff(path: Path) -> tuple[Array, bool]:
    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            shapes = ", ".join(str(series.shape) for series in file.series) or "none"
            raise DataError(f"{path}: holds {len(file.series)} images ({shapes}); save the one that is meant alone")
        series = file.series[0]
        axes, array = series.get_axes(squeeze=False), series.asarray(squeeze=False)
        extra = tuple(file.pages.first.extrasamples)
    for axis in reversed([i for i, name in enumerate(axes) if name not in "YX" and array.shape[i] == 1]):
        array, axes = array.take(0, axis), axes[:axis] + axes[axis + 1 :]
    others = axes.replace("Y", "").replace("X", "")
    if "Y" not in axes or "X" not in axes or len(axes) - len(others) != 2:
        raise DataError(f"{path}: its axes are {axes!r}; rows Y, columns X and perhaps channels C are wanted")
    if not others:
        return array[None] if axes == "YX" else array.T[None], False
    length = array.shape[axes.index(others[0])]
    named = others in ("C", "S") or (others in ("Q", "I") and length <= UNNAMED)
    if not named:
        raise DataError(
            f"{path}: its axes are {axes!r} with lengths {array.shape}; only one image with channels can be read: "
            "save each slice or time point, or a projection, as a file of its own"
        )
    planes = array.transpose([axes.index(name) for name in others + "YX"])
    alpha = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
    if others == "S" and extra and extra[-1] in alpha:
        planes = _without_alpha(planes, path)
    return planes, others == "S"


def _read_picture(path: Path, suffix: str, palette: bool) -> tuple[Array, bool]:
    content = path.read_bytes()
    # Pillow reads colours of 16 bits as 8, so that PNG is imagecodecs' work; of a JPEG cut short imagecodecs makes up
    # the rest, so that JPEG is Pillow's.
    if suffix == ".png":
        # The byte 25 of a PNG is its type of colour; 3 means a palette.
        indices = palette and content[25:26] == b"\x03"
        array = iio.imread(path, plugin="pillow", mode="P") if indices else imagecodecs.png_decode(content)
    else:
        array = iio.imread(path, plugin="pillow")
        if array.ndim == 3 and array.shape[2] == 4:
            raise DataError(f"{path}: a JPEG in printing colours (CMYK); save it as RGB")
    planes = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    if len(planes) in (2, 4):
        planes = _without_alpha(planes, path)
    return planes, len(planes) > 1


def _without_alpha(planes: Array, path: Path) -> Array:
    """Drop the last channel, which says how opaque a pixel is, if all of them are."""
    alpha = planes[-1]
    opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
    # Without a comparison of all pixels, which would be another plane in memory.
    if alpha.size and not alpha.min() == alpha.max() == opaque:
        raise DataError(f"{path}: partly transparent; save it without an alpha channel")
    return planes[:-1]
