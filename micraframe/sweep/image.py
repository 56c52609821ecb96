"""Images larger than memory, read by rectangles: tiled TIFF, Zarr and OME-Zarr; other formats and arrays too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from micraframe.errors import DataError
from micraframe.files import digest
from micraframe.images import TIFF_SUFFIXES, UNNAMED, read_image
from micraframe.types import FloatArray, check_image

_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


@dataclass(frozen=True, eq=False)
class LargeImage:
    """An image of which only the rectangle that is asked for is read.

    Attributes:
        name: For messages and reports.
        array: Has `shape`, `dtype` and slices, as a numpy, memory-mapped or Zarr array has.
        axes: One letter for each axis of the array: Y, X, C, and others of length 1.
        fingerprint: Changes when the image does.
        channels: Number of channels C; an alpha channel, which comes last, is not one.
    """

    name: str
    array: Any
    axes: str
    fingerprint: str
    channels: int

    @property
    def height(self) -> int:
        """Number of rows H."""
        return int(self.array.shape[self.axes.index("Y")])

    @property
    def width(self) -> int:
        """Number of columns W."""
        return int(self.array.shape[self.axes.index("X")])

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        """Return the rectangle, ends not included, as float32 (C, h, w) in the units of the file.

        Raises:
            DataError: If it cannot be read, has NaN, or is partly transparent.
        """
        wanted: dict[str, Any] = {"Y": slice(top, bottom), "X": slice(left, right), "C": slice(None)}
        kept = [axis for axis in self.axes if axis in wanted]
        where = f"{self.name}, rows {top} to {bottom}, columns {left} to {right}"
        try:
            # Only slices: indices would tell Zarr to go another, slower way.
            index = tuple(wanted.get(axis, slice(0, 1)) for axis in self.axes)
            part = np.asarray(self.array[index])
        # Decoders fail on broken files with whatever comes to hand.
        except Exception as error:
            raise DataError(f"{where}: cannot be read: {error}") from error
        part = part.reshape([n for axis, n in zip(self.axes, part.shape, strict=True) if axis in wanted])
        planes = part.transpose([kept.index(axis) for axis in "CYX" if axis in kept])
        planes = planes if "C" in kept else planes[None]
        if len(planes) > self.channels:
            opaque = np.iinfo(planes.dtype).max if planes.dtype.kind in "iu" else 1
            if not (planes[-1] == opaque).all():
                raise DataError(f"{where}: partly transparent; save it without an alpha channel")
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which the check reports
            image = np.ascontiguousarray(planes[: self.channels], dtype=np.float32)
        check_image(image, where)
        return image


@contextmanager
def open_image(source: Path | npt.NDArray[Any]) -> Iterator[LargeImage]:
    """Give an image of which nothing is read yet; at the end its file is closed.

    Args:
        source: A TIFF (of a pyramid the finest level), the folder of a Zarr array or of an OME-Zarr image (likewise), a
            PNG or JPEG, which is read whole; or an array (H, W) or (C, H, W).

    Raises:
        DataError: If there is no such image, or it has a depth or time axis.
    """
    if isinstance(source, np.ndarray):
        content = (np.ascontiguousarray(row).tobytes() for row in source)
        fingerprint = digest(f"{source.dtype} {source.shape}", content)
        yield _checked("array", source, "CYX" if source.ndim == 3 else "YX", fingerprint)
        return
    with ExitStack() as opened:
        try:
            image = _open(source, opened)
        except DataError:
            raise
        # Decoders fail on broken files with whatever comes to hand.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{source}: cannot be read: {reason}") from error
        yield image


def _open(path: Path, opened: ExitStack) -> LargeImage:
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    alpha = False
    if path.is_dir():
        array, axes = _open_zarr(path)
    elif path.suffix.lower() in TIFF_SUFFIXES:
        array, axes, alpha = _open_tiff(path, opened)
    else:
        array, axes = read_image(path), "CYX"
    return _checked(str(path), array, axes, _stamp(path), alpha)


def _checked(name: str, array: Any, axes: str, fingerprint: str, alpha: bool = False) -> LargeImage:
    """Name the axis of channels, and make sure that there is nothing but rows, columns and channels."""
    shape = tuple(int(n) for n in array.shape)
    others = [i for i, axis in enumerate(axes) if axis not in "YX" and shape[i] != 1]
    if {"Y", "X"} - set(axes) or len(axes) != len(shape) or len(others) > 1:
        raise DataError(f"{name}: its axes are {axes!r} with lengths {shape}; rows, columns and channels are wanted")
    if 0 in shape:
        raise DataError(f"{name}: the image is empty: axes {axes!r} with lengths {shape}")
    if np.dtype(array.dtype).kind not in "biuf":
        raise DataError(f"{name}: holds {array.dtype}; numbers are wanted")
    for i in others:
        if axes[i] not in "CSQI" or (axes[i] in "QI" and shape[i] > UNNAMED):
            raise DataError(
                f"{name}: its axes are {axes!r} with lengths {shape}; only one image with channels can be swept: save "
                "each slice or time point, or a projection, as a file of its own"
            )
    named = "".join("C" if i in others else axis if axis in "YX" else "1" for i, axis in enumerate(axes))
    channels = shape[others[0]] if others else 1
    return LargeImage(name, array, named, fingerprint, channels - alpha)


def _open_tiff(path: Path, opened: ExitStack) -> tuple[Any, str, bool]:
    """Return the array, its axes, and whether its last sample says how opaque a pixel is."""
    file = opened.enter_context(tifffile.TiffFile(path))
    if len(file.series) != 1:
        shapes = ", ".join(str(series.shape) for series in file.series) or "none"
        raise DataError(f"{path}: holds {len(file.series)} images ({shapes}); save the one that is meant alone")
    series = file.series[0]
    axes = series.get_axes(squeeze=False)
    if series.dataoffset is not None and len(series.levels) == 1:
        array: Any = tifffile.memmap(path, mode="r").reshape(series.get_shape(squeeze=False))
    else:
        array = zarr.open_array(series.aszarr(level=0, squeeze=False), mode="r")
    extra = tuple(file.pages.first.extrasamples)
    return array, axes, "S" in axes and bool(extra) and extra[-1] in _ALPHA


def _open_zarr(path: Path) -> tuple[Any, str]:
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Group):
        attributes = dict(node.attrs)
        told: Any = attributes.get("ome", attributes)
        if not told.get("multiscales"):
            raise DataError(f"{path}: a Zarr group that is no OME-Zarr image; name the folder of its array")
        scales = told["multiscales"][0]
        array = node[scales["datasets"][0]["path"]]
        return array, "".join(axis["name"].upper() for axis in scales["axes"])
    names = getattr(node.metadata, "dimension_names", None)
    if names and all(names):
        return node, "".join(name[0].upper() for name in names)
    if node.ndim == 3:
        return node, "YXQ" if node.shape[2] <= UNNAMED < node.shape[0] else "QYX"
    return node, "YX" if node.ndim == 2 else "?" * node.ndim


def _stamp(path: Path) -> str:
    """Return the hash of names, sizes and times of all files at `path`: to read their content would take long."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files]
    return digest("\n".join(f"{file.absolute()} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats))
