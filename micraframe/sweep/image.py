"""Images larger than memory, read by rectangles: tiled TIFF, Zarr and OME-Zarr; also other formats and arrays."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from micraframe.errors import DataError, reason_of
from micraframe.images import ALPHA, TIFF_SUFFIXES, UNNAMED, read_planes
from micraframe.runtime.files import digest
from micraframe.types import FloatArray, check_image

SPILL = 64 * 2**20
"""Bytes of pixels of a PNG or JPEG above which they are kept in a temporary file rather than in memory."""

SMALLER = 4
"""The largest image of a file is used if every other image has less than a quarter of its pixels."""


@dataclass(frozen=True, eq=False)
class LargeImage:
    """An image that is read one rectangle at a time.

    Attributes:
        name: For messages and reports.
        array: Has `shape`, `dtype` and slicing, like a numpy, memory-mapped or Zarr array.
        axes: One letter for each axis of the array: Y, X, C, and others of length 1.
        fingerprint: Changes when the image changes.
        channels: Number of channels C, without an alpha channel, which comes last.
        notes: Assumptions that were made when it was opened, one sentence each.
    """

    name: str
    array: Any
    axes: str
    fingerprint: str
    channels: int
    notes: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Number of rows H."""
        return int(self.array.shape[self.axes.index("Y")])

    @property
    def width(self) -> int:
        """Number of columns W."""
        return int(self.array.shape[self.axes.index("X")])

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        """Return a rectangle, end exclusive, as float32 (C, h, w) in the units of the file.

        Raises:
            DataError: If it cannot be read, contains NaN, or is partly transparent.
        """
        slices: dict[str, Any] = {"Y": slice(top, bottom), "X": slice(left, right), "C": slice(None)}
        kept = [axis for axis in self.axes if axis in slices]
        where = f"{self.name}, rows {top} to {bottom}, columns {left} to {right}"
        try:
            # Only slices: with integers, Zarr takes a slower path.
            index = tuple(slices.get(axis, slice(0, 1)) for axis in self.axes)
            part = np.asarray(self.array[index])
        # Decoders raise all kinds of errors for broken files.
        except Exception as error:
            raise DataError(f"{where}: cannot be read: {error}") from error
        part = part.reshape([n for axis, n in zip(self.axes, part.shape, strict=True) if axis in slices])
        planes = part.transpose([kept.index(axis) for axis in "CYX" if axis in kept])
        planes = planes if "C" in kept else planes[None]
        if len(planes) > self.channels:
            opaque = np.iinfo(planes.dtype).max if planes.dtype.kind in "iu" else 1
            if not (planes[-1] == opaque).all():
                raise DataError(f"{where}: partly transparent; save it without an alpha channel")
        with np.errstate(over="ignore"):  # values that are too large become infinite, which the check reports
            image = np.ascontiguousarray(planes[: self.channels], dtype=np.float32)
        check_image(image, where)
        return image


@final
class _Spilled:
    """Planes (C, H, W) in a file of interleaved pixels; only the requested part is in memory."""

    def __init__(self, stream: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._stream = stream

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        channels, height, width = self.shape
        # Mapped again each time; otherwise all pages ever read would count as memory.
        pixels = np.memmap(self._stream, self.dtype, "r", shape=(height, width, channels))
        return np.array(np.moveaxis(pixels, -1, 0)[index])


def _spilled(planes: npt.NDArray[Any], path: Path, opened: ExitStack) -> Any:
    """Return the same planes, in a temporary file if they are large; it disappears even if the process is killed."""
    if planes.nbytes <= SPILL:
        return planes
    try:
        stream = opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the image
        for row in np.moveaxis(planes, 0, -1):
            stream.write(row.tobytes())
        stream.flush()
    except OSError as error:
        raise DataError(
            f"{path}: cannot write its {planes.nbytes >> 20} MiB of pixels to {tempfile.gettempdir()}: {error}; set "
            "TMPDIR to a folder with more space, or save the image as a tiled TIFF"
        ) from error
    return _Spilled(stream, planes.shape, planes.dtype)


@contextmanager
def open_image(source: Path | npt.NDArray[Any]) -> Iterator[LargeImage]:
    """Open an image without reading its pixels, and close its file at the end.

    Args:
        source: A TIFF (the finest level of a pyramid; the slide rather than its thumbnail or label), the folder of a
            Zarr array or of an OME-Zarr image (its finest level), a PNG or JPEG, which is decoded as a whole and kept
            in a temporary file if it is large; or an array (H, W) or (C, H, W).

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
        # Decoders raise all kinds of errors for broken files.
        except Exception as error:
            raise DataError(f"{source}: cannot be read: {reason_of(error)}") from error
        yield image


def _open(path: Path, opened: ExitStack) -> LargeImage:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    alpha = False
    notes: tuple[str, ...] = ()
    if path.is_dir():
        array, axes, notes = _open_zarr(path)
    elif path.suffix.lower() in TIFF_SUFFIXES:
        array, axes, alpha, notes = _open_tiff(path, opened)
    else:
        array, axes = _spilled(read_planes(path), path, opened), "CYX"
    return replace(_checked(str(path), array, axes, _stamp(path), alpha), notes=notes)


def _checked(name: str, array: Any, axes: str, fingerprint: str, alpha: bool = False) -> LargeImage:
    """Return the image with its channel axis named; it has rows, columns and channels only."""
    shape = tuple(int(n) for n in array.shape)
    others = [i for i, axis in enumerate(axes) if axis not in "YX" and shape[i] != 1]
    if {"Y", "X"} - set(axes) or len(axes) != len(shape) or len(others) > 1:
        raise DataError(f"{name}: expected axes for rows, columns and channels, got {axes!r} with lengths {shape}")
    if 0 in shape:
        raise DataError(f"{name}: the image is empty: axes {axes!r} with lengths {shape}")
    if np.dtype(array.dtype).kind not in "biuf":
        raise DataError(f"{name}: expected numbers, got {array.dtype}")
    for i in others:
        if axes[i] not in "CSQI" or (axes[i] in "QI" and shape[i] > UNNAMED):
            raise DataError(
                f"{name}: expected a single image with channels, got axes {axes!r} with lengths {shape}; save each "
                "slice or time point, or a projection, as a file of its own"
            )
    named = "".join("C" if i in others else axis if axis in "YX" else "1" for i, axis in enumerate(axes))
    channels = shape[others[0]] if others else 1
    return LargeImage(name, array, named, fingerprint, channels - alpha)


def main_series(pixels: Sequence[int]) -> int | None:
    """Return the index of the image of a file to use, by numbers of pixels; None if the largest does not stand out."""
    order = sorted(range(len(pixels)), key=pixels.__getitem__, reverse=True)
    stands_out = len(order) == 1 or (len(order) > 1 and SMALLER * pixels[order[1]] < pixels[order[0]])
    return order[0] if stands_out else None


def _open_tiff(path: Path, opened: ExitStack) -> tuple[Any, str, bool, tuple[str, ...]]:
    """Return the array, its axes, whether its last channel is alpha, and notes."""
    file = opened.enter_context(tifffile.TiffFile(path))
    number = main_series([_pixels(series) for series in file.series])
    if number is None:
        shapes = ", ".join(str(series.shape) for series in file.series) or "none"
        raise DataError(f"{path}: expected one image, got {len(file.series)} ({shapes}); save only that to sweep")
    series = file.series[number]
    notes: tuple[str, ...] = ()
    if len(file.series) > 1:
        left = ", ".join(str(other.shape) for other in file.series if other is not series)
        notes = (f"{path}: contains {len(file.series)} images; the largest, {series.shape}, is swept, not {left}",)
    axes = series.get_axes(squeeze=False)
    if series.dataoffset is not None and len(series.levels) == 1:
        array: Any = tifffile.memmap(path, series=number, mode="r").reshape(series.get_shape(squeeze=False))
    else:
        array = zarr.open_array(series.aszarr(level=0, squeeze=False), mode="r")
    extra = tuple(series.keyframe.extrasamples)
    return array, axes, "S" in axes and bool(extra) and extra[-1] in ALPHA, notes


def _pixels(series: tifffile.TiffPageSeries) -> int:
    return math.prod(length for axis, length in zip(series.axes, series.shape, strict=True) if axis in "YX")


def _open_zarr(path: Path) -> tuple[Any, str, tuple[str, ...]]:
    """Return the array, its axes, and notes."""
    node = zarr.open(path, mode="r")
    array, axes = _open_multiscale(node, path) if isinstance(node, zarr.Group) else (node, _axes_of(node))
    present, total = _chunks(array)
    if present == total:
        return array, axes, ()
    unit = "chunks" if array.shards is None else "shards"
    note = (
        f"{path}: {total - present} of {total} {unit} are absent and read as {array.fill_value}; unless they were "
        "omitted because they are empty, files are missing: copy the image again"
    )
    return array, axes, (note,)


def _chunks(array: Any) -> tuple[int, int]:
    """Return how many chunks, or shards, an array has on disk, and how many it should have."""
    if array.shards is None:
        return array.nchunks_initialized, array.nchunks
    # zarr counts all chunks of a shard, even those beyond the end of the array.
    each = math.prod(shard // chunk for shard, chunk in zip(array.shards, array.chunks, strict=True))
    total = math.prod(-(-side // shard) for side, shard in zip(array.shape, array.shards, strict=True))
    return array.nchunks_initialized // each, total


def _open_multiscale(group: zarr.Group, path: Path) -> tuple[Any, str]:
    """Return the finest level of an OME-Zarr image, and its axes."""
    attributes = dict(group.attrs)
    ome: Any = attributes.get("ome", attributes)
    # bioformats2raw puts images into subgroups, even a single one.
    if ome.get("bioformats2raw.layout") == 3 and not ome.get("multiscales"):
        names = _series(group)
        if len(names) != 1:
            found = ", ".join(str(path / name) for name in names) or "none"
            raise DataError(f"{path}: expected one image, got {len(names)} ({found}); give the folder of one")
        inner = group[names[0]]
        if not isinstance(inner, zarr.Group):
            raise DataError(f"{path / names[0]}: expected an OME-Zarr image, as bioformats2raw writes it, got an array")
        return _open_multiscale(inner, path / names[0])
    if not ome.get("multiscales"):
        raise DataError(f"{path}: expected an OME-Zarr image, got another Zarr group; give the folder of its array")
    scales = ome["multiscales"][0]
    # Up to version 0.2 there are always these five; in 0.3 axes are names, from 0.4 on objects.
    axes = scales.get("axes", "tczyx")
    letters = "".join(axis if isinstance(axis, str) else axis["name"] for axis in axes).upper()
    return group[scales["datasets"][0]["path"]], letters


def _series(group: zarr.Group) -> list[str]:
    """Return the names of the images in a group written by bioformats2raw, in its order."""
    listed: dict[str, Any] = dict(group["OME"].attrs) if "OME" in group else {}
    named = listed.get("ome", listed).get("series")
    return list(named) if named else sorted((name for name in group.group_keys() if name.isdecimal()), key=int)


def _axes_of(array: Any) -> str:
    """Return the axes of an array outside any OME-Zarr image, from its names or else from its lengths."""
    names = getattr(array.metadata, "dimension_names", None)
    if names and all(names):
        return "".join(name[0].upper() for name in names)
    if array.ndim == 3:
        return "YXQ" if array.shape[2] <= UNNAMED < array.shape[0] else "QYX"
    return "YX" if array.ndim == 2 else "?" * int(array.ndim)


def _stamp(path: Path) -> str:
    """Return a hash of the names, sizes and times of all files at `path`; reading their content would take long."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files]
    return digest("\n".join(f"{file.absolute()} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats))
