"""Reading, resizing and writing image files: TIFF, PNG and JPEG.

Images are read in the units of the file, as float32 (C, H, W); label images as int32 (H, W) or, if they have several
planes, (K, H, W). Files are written atomically, and the same array gives the same bytes.

Masks and numbered objects are written as OME-TIFF with one plane per class, named after the class: masks as 8-bit 0 and
255, objects as 16-bit numbers (32-bit where there are more than 65,535). Fiji opens the planes as channels or slices,
napari as (K, H, W), ilastik as channels; of one class, all open a plain two-dimensional image.
"""

from __future__ import annotations

import struct
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from micraframe.errors import DataError, reason_of
from micraframe.runtime.files import atomic, digest
from micraframe.types import FloatArray, IntArray, check_image

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, ".png", ".jpg", ".jpeg")
"""The suffixes, in lower case, of files that can be read."""

PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
"""The first 16 bytes of every PNG; width and height follow, in 4 bytes each."""

LOSSY_SUFFIXES = (".jpg", ".jpeg")
"""Those of them in which pixels have other values than those that were written."""

UNNAMED = 4
"""A TIFF axis without a name is read as channels up to this length, and as a stack beyond it."""

MICROMETRES = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "\\u00B5m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
"""Micrometres per unit, by the unit's spellings in OME-TIFF (micro sign or Greek letter) and ImageJ."""

SQUARE = 0.01
"""Pixels whose edges differ by this share or less count as square."""

ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)

Array = npt.NDArray[Any]


def read_image(path: Path) -> FloatArray:
    """Read an image in the units of its file.

    An opaque alpha channel is dropped; grey images have one channel.

    Args:
        path: A TIFF (integers or floats, any number of channels, planar or not, ImageJ and OME axes), a PNG of 8 or 16
            bits, or a JPEG.

    Returns:
        float32 (C, H, W).

    Raises:
        DataError: If the file is missing, broken, empty, too large for memory or of another format, has a depth or time
            axis, is partly transparent, or holds NaN. The message begins with the path.
    """
    planes = read_planes(path)
    with _readable(path), np.errstate(over="ignore"):  # too large values become infinite, which the check reports
        image = np.ascontiguousarray(planes, dtype=np.float32)
    check_image(image, str(path))
    return image


def read_planes(path: Path) -> Array:
    """Read an image as `read_image` does, in the data type of its file, which may take a quarter of the memory.

    Returns:
        (C, H, W), not necessarily contiguous; floats may be NaN or infinite.

    Raises:
        DataError: As `read_image`, except for NaN.
    """
    planes, _ = _read(path)
    if np.iscomplexobj(planes):
        raise DataError(f"{path}: expected real numbers, got complex ones; save their magnitude or phase as floats")
    return planes


def read_labels(path: Path) -> IntArray:
    """Read a label image: a mask, a stack of masks, or numbered objects.

    A grey picture stored as RGB counts as grey; a PNG with a palette is read as its indices.

    Returns:
        int32 (H, W), or (K, H, W) for a file of several planes.

    Raises:
        DataError: As `read_image`, and if the values are colours, or not integers of 32 bits, or the file is a JPEG.
    """
    planes, interleaved = _read(path, palette=True)
    if path.suffix.lower() in LOSSY_SUFFIXES:
        raise DataError(f"{path}: expected a mask with exact values, got a JPEG; save masks as PNG or TIFF")
    if interleaved and len(planes) > 1:
        if any(not np.array_equal(planes[0], other) for other in planes[1:]):
            raise DataError(f"{path}: expected one number per pixel in a mask, got a colour picture; save it as grey")
        planes = planes[:1]
    if planes.dtype.kind not in "biuf":
        raise DataError(f"{path}: expected integers in a mask, got {planes.dtype}")
    if planes.dtype.kind == "f" and not (np.isfinite(planes).all() and np.array_equal(planes, np.rint(planes))):
        raise DataError(f"{path}: expected integers in a mask, got fractions or NaN")
    limits = np.iinfo(np.int32)
    if planes.min() < limits.min or planes.max() > limits.max:
        raise DataError(f"{path}: expected 32-bit integers in a mask, got values up to {planes.max()}")
    with _readable(path):
        return np.ascontiguousarray(planes if len(planes) > 1 else planes[0], dtype=np.int32)


def read_size(path: Path) -> tuple[int, int]:
    """Return the size (H, W) of an image, reading only the beginning of its file.

    Raises:
        DataError: If the file is missing, broken, empty or of another format. The message begins with the path.
    """
    with _readable(path):
        suffix = path.suffix.lower()
        if suffix == ".png":
            # Not Pillow, which refuses large pictures that `read_image` reads.
            with path.open("rb") as binary:
                signature, width, height = struct.unpack(">16s2I", binary.read(24))
            if signature != PNG_START:
                raise ValueError("it does not begin as one")
            return height, width
        if suffix not in TIFF_SUFFIXES:
            with Image.open(path) as picture:
                return picture.height, picture.width
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
            return shape[axes.index("Y")], shape[axes.index("X")]


def read_pixel_size(path: Path) -> float | None:
    """Return the edge of a pixel in micrometres, from OME's or ImageJ's metadata or the resolution per centimetre.

    A resolution per inch is ignored: most programs write one that describes print, not the specimen.

    Returns:
        None if the file is not a TIFF or does not state it, or if pixels are not square.

    Raises:
        DataError: If the file is missing or broken.
    """
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return None
    with _readable(path), tifffile.TiffFile(path) as file:
        xml, imagej, tags = file.ome_metadata, file.imagej_metadata or {}, file.pages.first.tags
        unit = imagej.get("unit", "cm" if tags.valueof("ResolutionUnit") == tifffile.RESUNIT.CENTIMETER else "")
        try:
            if xml:
                pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
                attributes = {} if pixels is None else pixels.attrib
                across, down = (
                    float(attributes[f"PhysicalSize{axis}"])
                    * MICROMETRES[attributes.get(f"PhysicalSize{axis}Unit", "µm")]
                    for axis in "XY"
                )
            else:
                resolutions = (tags.valueof(f"{axis}Resolution") for axis in "XY")
                across, down = (MICROMETRES[unit] * divisor / number for number, divisor in resolutions)
        except (ElementTree.ParseError, KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
    return across if 0 < across < np.inf and abs(across - down) <= SQUARE * across else None


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return the size (H, W) of an image resized by a factor, at least one pixel."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(image: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Resize an image, float32 (C, H, W), to a size (H, W): mean over areas to shrink it, bilinear to enlarge it.

    The mean is over the area of each new pixel, which avoids aliasing. Edges of the image stay edges.
    """
    if image.shape[1:] == size:
        return image
    shrinks = size[0] < image.shape[1] or size[1] < image.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([np.asarray(cv2.resize(plane, size[::-1], interpolation=how), np.float32) for plane in image])


def nearest(array: Array, size: tuple[int, int]) -> Array:
    """Resize masks or labels (..., H, W) to a size (H, W): each new pixel has the value at its centre."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in zip(size, array.shape[-2:], strict=True)
    )
    return np.ascontiguousarray(array[..., rows[:, None], columns])


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names of an OME-TIFF's planes, such as `write_tiff` gives them; empty if there are none.

    Raises:
        DataError: If the file is missing or is not a TIFF.
    """
    with _readable(path):
        with tifffile.TiffFile(path) as file:
            xml = file.ome_metadata
        channels = ElementTree.fromstring(xml).iterfind(".//{*}Channel") if xml else ()
        return tuple(channel.get("Name", "") for channel in channels)


def write_tiff(path: Path, array: Array, classes: Sequence[str] = (), pixel_size_um: float | None = None) -> None:
    """Write an OME-TIFF, losslessly compressed.

    Args:
        path: The file to write.
        array: (H, W) or (K, H, W): bool, written as 0 and 255; integers, in 16 bits where they fit; or float32.
        classes: Names of the K planes, which `read_class_names` and image viewers show.
        pixel_size_um: Edge of a pixel in micrometres.

    Raises:
        DataError: If the array has another type or shape, or the names are not one per plane.
    """
    planes = array if array.ndim == 3 else array[None]
    if planes.ndim != 3 or planes.size == 0 or planes.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: expected bool, integers or floats (K, H, W), got {array.dtype} of shape {array.shape}"
        )
    if classes and len(classes) != len(planes):
        raise DataError(f"{path}: expected names of {len(planes)} planes, got {len(classes)}: {tuple(classes)}")
    if planes.dtype == np.bool_:
        planes = planes.astype(np.uint8) * np.uint8(255)
    elif planes.dtype.kind == "f":
        planes = planes.astype(np.float32)
    elif planes.dtype not in (np.uint8, np.uint16):
        low, high = int(planes.min()), int(planes.max())
        if low < 0 or high > np.iinfo(np.uint32).max:
            raise DataError(f"{path}: expected values from 0 to 2^32 - 1, got {low} to {high}")
        planes = planes.astype(np.uint16 if high <= np.iinfo(np.uint16).max else np.uint32)
    metadata: dict[str, Any] = {
        "axes": "CYX",
        # OME requires an identifier; one made from the content keeps equal files equal.
        "UUID": str(uuid.UUID(digest(planes.tobytes(), *classes)[:32])),
    }
    if classes:
        metadata["Channel"] = {"Name": list(classes)}
    if pixel_size_um is not None:
        metadata |= {f"PhysicalSize{axis}": pixel_size_um for axis in "XY"}
        metadata |= {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    # ImageJ's own reader takes the pixel size from the resolution, Bio-Formats from the metadata.
    resolution: dict[str, Any] = (
        {} if pixel_size_um is None else {"resolution": (1e4 / pixel_size_um,) * 2, "resolutionunit": "CENTIMETER"}
    )
    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary, planes, ome=True, photometric="minisblack", compression="zlib", metadata=metadata, **resolution
        )


def write_png(path: Path, array: Array) -> None:
    """Write a PNG.

    Args:
        path: The file to write.
        array: (H, W) or (H, W, 3): bool, written as 0 and 255, uint8 or uint16.

    Raises:
        DataError: If the array has another type or shape.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype not in (np.uint8, np.uint16) or not fits or array.size == 0:
        raise DataError(
            f"{path}: expected bool, uint8 or uint16 of shape (H, W) or (H, W, 3), got {array.dtype} of shape "
            f"{array.shape}"
        )
    with atomic(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))


def _read(path: Path, palette: bool = False) -> tuple[Array, bool]:
    """Return the planes (C, H, W) of a file, and whether they are the colours of one picture.

    Args:
        path: The file.
        palette: Return the indices, not the colours, of a PNG with a palette.
    """
    with _readable(path):
        suffix = path.suffix.lower()
        planes, interleaved = _read_tiff(path) if suffix in TIFF_SUFFIXES else _read_picture(path, suffix, palette)
    if planes.size == 0:
        raise DataError(f"{path}: the image is empty: shape (C, H, W) = {planes.shape}")
    return planes, interleaved


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Make every failure to read an image a `DataError` that begins with the path."""
    suffix = path.suffix.lower()
    try:
        if not path.exists():
            raise DataError(f"{path}: cannot be read: there is no such file")
        if suffix not in IMAGE_SUFFIXES:
            raise DataError(
                f"{path}: expected a file ending in {', '.join(IMAGE_SUFFIXES)}, got {suffix or 'one without suffix'}"
            )
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        with warnings.catch_warnings():
            # Pillow warns of large pictures, which micrographs are, before it refuses even larger ones.
            warnings.filterwarnings("ignore", "Image size", Image.DecompressionBombWarning)
            yield
    except DataError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: too large to read ({reason_of(error)}); cut it into smaller images") from error
    # Decoders raise all kinds of errors on broken files.
    except Exception as error:
        raise DataError(f"{path}: cannot be read as {suffix[1:]}: {reason_of(error)}") from error


def _read_tiff(path: Path) -> tuple[Array, bool]:
    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            shapes = ", ".join(str(series.shape) for series in file.series) or "none"
            raise DataError(
                f"{path}: expected one image, got {len(file.series)} ({shapes}); save the right one by itself"
            )
        series = file.series[0]
        axes, array = series.get_axes(squeeze=False), series.asarray(squeeze=False)
        extra = tuple(file.pages.first.extrasamples)
    for axis in reversed([i for i, name in enumerate(axes) if name not in "YX" and array.shape[i] == 1]):
        array, axes = array.take(0, axis), axes[:axis] + axes[axis + 1 :]
    others = axes.replace("Y", "").replace("X", "")
    if "Y" not in axes or "X" not in axes or len(axes) - len(others) != 2:
        raise DataError(f"{path}: expected the axes Y and X and perhaps C, got {axes!r}")
    if not others:
        return array[None] if axes == "YX" else array.T[None], False
    length = array.shape[axes.index(others[0])]
    named = others in ("C", "S") or (others in ("Q", "I") and length <= UNNAMED)
    if not named:
        raise DataError(
            f"{path}: expected one image with channels, got the axes {axes!r} of lengths {array.shape}; save each "
            "slice or time point, or a projection, as a separate file"
        )
    planes = array.transpose([axes.index(name) for name in others + "YX"])
    if others == "S" and extra and extra[-1] in ALPHA:
        planes = _without_alpha(planes, path)
    return planes, others == "S"


def _read_picture(path: Path, suffix: str, palette: bool) -> tuple[Array, bool]:
    content = path.read_bytes()
    # Pillow reduces 16-bit colours to 8 bits, so imagecodecs reads PNG; imagecodecs makes up the rest of a truncated
    # JPEG, so Pillow reads JPEG.
    if suffix == ".png":
        # Byte 25 of a PNG is its colour type; 3 means a palette.
        indices = palette and content[25:26] == b"\x03"
        array = _read_pillow(path) if indices else imagecodecs.png_decode(content)
    else:
        array = _read_pillow(path)
        if array.ndim == 3 and array.shape[2] == 4:
            raise DataError(f"{path}: expected a JPEG in RGB or grey, got CMYK; save it as RGB")
    planes = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    if len(planes) in (2, 4):
        planes = _without_alpha(planes, path)
    return planes, len(planes) > 1


def _read_pillow(path: Path) -> Array:
    with Image.open(path) as picture:
        return np.asarray(picture)


def _without_alpha(planes: Array, path: Path) -> Array:
    """Drop the last channel, the opacity, if every pixel is opaque."""
    alpha = planes[-1]
    opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
    # Comparing all pixels would take another plane of memory.
    if alpha.size and not alpha.min() == alpha.max() == opaque:
        raise DataError(
            f"{path}: expected an opaque image, got a partly transparent one; save it without alpha channel"
        )
    return planes[:-1]
