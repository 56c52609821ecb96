from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from micraframe.errors import DataError
from micraframe.images import write_png
from micraframe.sweep.image import main_series, open_image

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


def ome_zarr_03(folder):
    group = zarr.create_group(folder / "image.zarr", zarr_format=2)
    group.create_array("0", data=PLANES, chunks=(1, 32, 32))
    group.attrs["multiscales"] = [{"version": "0.3", "axes": list("cyx"), "datasets": [{"path": "0"}]}]
    return folder / "image.zarr", PLANES


def ome_zarr_02(folder):
    group = zarr.create_group(folder / "image.zarr", zarr_format=2)
    group.create_array("0", data=PLANES[None, :, None], chunks=(1, 1, 1, 32, 32))
    group.attrs["multiscales"] = [{"version": "0.2", "datasets": [{"path": "0"}]}]
    return folder / "image.zarr", PLANES


def bioformats2raw(folder, series=("0",), listed=False, version=2):
    group = zarr.create_group(folder / "image.zarr", zarr_format=version)
    attributes = {"bioformats2raw.layout": 3}
    group.attrs.update(attributes if version == 2 else {"ome": attributes | {"version": "0.5"}})
    if listed:
        names = {"series": list(series)}
        group.create_group("OME").attrs.update(names if version == 2 else {"ome": names})
    for name in series:
        inner = group.create_group(name)
        inner.create_array("0", data=PLANES[None, :, None], chunks=(1, 1, 1, 32, 32))
        scales = [{"axes": [{"name": axis} for axis in "tczyx"], "datasets": [{"path": "0"}]}]
        inner.attrs.update({"multiscales": scales} if version == 2 else {"ome": {"multiscales": scales}})
    return folder / "image.zarr", PLANES


def bioformats2raw_listed(folder):
    return bioformats2raw(folder, ("first",), listed=True)


def bioformats2raw_05(folder):
    return bioformats2raw(folder, version=3)


def sharded(folder):
    zarr.create_array(folder / "image.zarr", data=GREY, chunks=(16, 16), shards=(32, 32))
    return folder / "image.zarr", GREY[None]


def labelled(folder, first=False, label=(15, 20), compression=None, alpha=False):
    """Write a picture with a label beside it, as slide scanners do."""
    small = RGB[: label[0], : label[1]]
    large = np.concatenate([RGB, np.full((70, 90, 1), 255, np.uint8)], 2) if alpha else RGB
    extra = ["unassalpha"] if alpha else None
    pages = [(large, extra), (small, None)]
    with tifffile.TiffWriter(folder / "image.tif") as writer:
        for page, samples in reversed(pages) if first else pages:
            writer.write(page, photometric="rgb", extrasamples=samples, compression=compression, metadata=None)
    return folder / "image.tif", np.moveaxis(RGB, -1, 0)


def label_first(folder):
    return labelled(folder, first=True, alpha=True)


def label_compressed(folder):
    return labelled(folder, compression="zlib")


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
    ome_zarr_03,
    ome_zarr_02,
    bioformats2raw,
    bioformats2raw_listed,
    bioformats2raw_05,
    sharded,
    labelled,
    label_first,
    label_compressed,
    array,
]


@pytest.mark.parametrize("write", FORMATS)
def test_any_rectangle_of_any_format(write, tmp_path):
    source, expected = write(tmp_path)
    with open_image(source) as image:
        assert (image.channels, image.height, image.width) == expected.shape
        for top, bottom, left, right in ((0, 70, 0, 90), (31, 33, 5, 90), (69, 70, 0, 1)):
            part = image.read(top, bottom, left, right)
            assert part.dtype == np.float32
            assert np.array_equal(part, expected[:, top:bottom, left:right])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_keeps_the_type_of_its_file(tmp_path, dtype):
    write_png(tmp_path / "image.png", RGB.astype(dtype))
    with open_image(tmp_path / "image.png") as image:
        assert image.array.dtype == dtype
        assert np.array_equal(image.read(3, 5, 7, 90), np.moveaxis(RGB, -1, 0)[:, 3:5, 7:90])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_large_picture_is_kept_in_a_file(tmp_path, monkeypatch, channels):
    monkeypatch.setattr("micraframe.sweep.image.SPILL", 100)
    opaque = np.concatenate([RGB, np.full((70, 90, 1), 255, np.uint8)], 2)[:, :, :channels].squeeze()
    (tmp_path / "image.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(opaque)))
    with open_image(tmp_path / "image.png") as image:
        assert not isinstance(image.array, np.ndarray)
        expected = np.moveaxis(RGB, -1, 0)[: image.channels]
        assert image.channels == min(channels, 3)
        for top, bottom, left, right in ((0, 70, 0, 90), (31, 33, 5, 90), (69, 70, 0, 1)):
            assert np.array_equal(image.read(top, bottom, left, right), expected[:, top:bottom, left:right])


def test_a_full_disk_is_reported(tmp_path, monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("micraframe.sweep.image.SPILL", 100)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    path, _ = png(tmp_path)
    with pytest.raises(DataError, match="No space left on device; set TMPDIR"), open_image(path):
        pass


@pytest.mark.parametrize(
    ("pixels", "index"), [([5], 0), ([100, 24], 0), ([3, 100, 24], 1), ([100, 25], None), ([7, 7], None), ([], None)]
)
def test_the_largest_image_is_used_if_it_stands_out(pixels, index):
    assert main_series(pixels) == index


def test_images_that_are_not_swept_are_noted(tmp_path):
    path, _ = labelled(tmp_path)
    with open_image(path) as image:
        assert image.notes == (f"{path}: contains 2 images; the largest, (70, 90, 3), is swept, not (15, 20, 3)",)
    path, _ = labelled(tmp_path, label=(40, 60))
    with pytest.raises(DataError, match="expected one image, got 2"), open_image(path):
        pass


@pytest.mark.parametrize("listed", [False, True])
def test_several_series_are_rejected(tmp_path, listed):
    path, _ = bioformats2raw(tmp_path, ("0", "1", "10"), listed)
    with (
        pytest.raises(DataError, match=r"expected one image, got 3 \(.*image.zarr/0, .*/1, .*/10\); give the folder"),
        open_image(path),
    ):
        pass
    with open_image(path / "1") as image:
        assert image.channels == 2


@pytest.mark.parametrize(("write", "missing", "unit"), [(zarr_array, 2, "9 chunks"), (sharded, 1, "9 shards")])
def test_missing_chunks_are_counted(tmp_path, write, missing, unit):
    path, _ = write(tmp_path)
    with open_image(path) as image:
        assert image.notes == ()
    for column in range(missing):
        (path / "c" / "1" / str(column)).unlink()
    with open_image(path) as image:
        (note,) = image.notes
        assert f"{path}: {missing} of {unit} are absent and read as 0" in note
        assert not image.read(32, 64, 0, 32).any()


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


def test_a_file_that_is_no_image_is_named(tmp_path):
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


def test_bad_values_are_reported_with_their_place():
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
