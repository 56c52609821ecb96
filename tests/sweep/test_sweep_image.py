from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from micraframe.errors import DataError
from micraframe.images import write_png
from micraframe.sweep.image import open_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60000, (70, 90), np.uint16)
RGB = RNG.integers(0, 255, (70, 90, 3), np.uint8)
PLANES = RNG.integers(0, 255, (2, 70, 90), np.uint8)


def grey_tiff(folder):
    tifffile.imwrite(folder / "image.tif", GREY)
    return folder / "image.tif", GREY[None]


def tiled_tiff(folder):
    tifffile.imwrite(folder / "image.tif", GREY, tile=(32, 32), compression="zlib")
    return folder / "image.tif", GREY[None]


def rgb_tiff(folder):
    tifffile.imwrite(folder / "image.tif", RGB, tile=(32, 32), compression="lzw", photometric="rgb")
    return folder / "image.tif", np.moveaxis(RGB, -1, 0)


def rgba_tiff(folder):
    opaque = np.concatenate([RGB, np.full((70, 90, 1), 255, np.uint8)], 2)
    tifffile.imwrite(folder / "image.tif", opaque, photometric="rgb", extrasamples=["unassalpha"])
    return folder / "image.tif", np.moveaxis(RGB, -1, 0)


def planar_tiff(folder):
    tifffile.imwrite(folder / "image.tif", PLANES, photometric="minisblack", metadata={"axes": "CYX"}, ome=True)
    return folder / "image.tif", PLANES


def planar_compressed_tiff(folder):
    tifffile.imwrite(folder / "image.tif", PLANES, photometric="minisblack", metadata={"axes": "CYX"}, compression=8)
    return folder / "image.tif", PLANES


def pyramid_tiff(folder):
    with tifffile.TiffWriter(folder / "image.tif", ome=True) as writer:
        writer.write(GREY, subifds=1, tile=(32, 32))
        writer.write(GREY[::2, ::2], subfiletype=1, tile=(32, 32))
    return folder / "image.tif", GREY[None]


def png(folder):
    write_png(folder / "image.png", RGB)
    return folder / "image.png", np.moveaxis(RGB, -1, 0)


def zarr_array(folder):
    zarr.create_array(folder / "image.zarr", data=GREY, chunks=(32, 32))
    return folder / "image.zarr", GREY[None]


def zarr_channels_last(folder):
    zarr.create_array(folder / "image.zarr", data=RGB, chunks=(32, 32, 3))
    return folder / "image.zarr", np.moveaxis(RGB, -1, 0)


def zarr_named(folder):
    zarr.create_array(folder / "image.zarr", data=PLANES.transpose(2, 0, 1), dimension_names=("x", "c", "y"))
    return folder / "image.zarr", PLANES


def ome_zarr_04(folder):
    group = zarr.create_group(folder / "image.zarr", zarr_format=2)
    group.create_array("full", data=PLANES[None, :, None], chunks=(1, 1, 1, 32, 32))
    axes = [{"name": name} for name in "tczyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "full"}]}]
    return folder / "image.zarr", PLANES


def ome_zarr_05(folder):
    group = zarr.create_group(folder / "image.zarr")
    group.create_array("0", data=GREY, chunks=(32, 32))
    axes = [{"name": name} for name in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    return folder / "image.zarr", GREY[None]


def array(folder):
    return PLANES, PLANES


FORMATS = [
    grey_tiff,
    tiled_tiff,
    rgb_tiff,
    rgba_tiff,
    planar_tiff,
    planar_compressed_tiff,
    pyramid_tiff,
    png,
    zarr_array,
    zarr_channels_last,
    zarr_named,
    ome_zarr_04,
    ome_zarr_05,
    array,
]


@pytest.mark.parametrize("write", FORMATS)
def test_any_rectangle_of_any_format(write, tmp_path):
    source, wanted = write(tmp_path)
    with open_image(source) as image:
        assert (image.channels, image.height, image.width) == wanted.shape
        for top, bottom, left, right in ((0, 70, 0, 90), (31, 33, 5, 90), (69, 70, 0, 1)):
            part = image.read(top, bottom, left, right)
            assert part.dtype == np.float32
            assert np.array_equal(part, wanted[:, top:bottom, left:right])


def fingerprint(source):
    with open_image(source) as image:
        return image.fingerprint


def test_fingerprint_changes_with_the_image(tmp_path):
    path, _ = grey_tiff(tmp_path)
    before = fingerprint(path)
    assert fingerprint(path) == before
    tifffile.imwrite(path, GREY[:60])
    assert fingerprint(path) != before
    assert fingerprint(GREY) != fingerprint(GREY + 1)


def test_what_is_no_image_is_named(tmp_path):
    broken = tmp_path / "broken.tif"
    tifffile.imwrite(broken, GREY)
    broken.write_bytes(broken.read_bytes()[:100])
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, np.zeros((9, 8, 8), np.uint8), metadata={"axes": "TYX"})
    zarr.create_group(tmp_path / "group.zarr")
    for path in (broken, stack, tmp_path / "group.zarr", tmp_path / "missing.tif"):
        with pytest.raises(DataError, match=path.name), open_image(path):
            pass
    with pytest.raises(DataError, match="axes"), open_image(np.zeros((2, 3, 4, 5))):
        pass


def test_bad_values_are_found_where_they_are_read():
    values = np.zeros((40, 40), np.float32)
    values[30, 30] = np.nan
    with open_image(values) as image:
        assert not image.read(0, 20, 0, 20).any()
        with pytest.raises(DataError, match="rows 20 to 40"):
            image.read(20, 40, 20, 40)


def test_a_broken_tile_is_named(tmp_path):
    path, _ = tiled_tiff(tmp_path)
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[-1]
    content = bytearray(path.read_bytes())
    content[offset : offset + 50] = b"\xff" * 50
    path.write_bytes(content)
    with open_image(path) as image:
        assert image.read(0, 32, 0, 32).any()
        with pytest.raises(DataError, match="rows 64 to 70"):
            image.read(64, 70, 64, 90)
