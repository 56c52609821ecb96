from __future__ import annotations

from pathlib import Path

import imagecodecs
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from micraframe.errors import DataError
from micraframe.images import (
    nearest,
    read_class_names,
    read_image,
    read_labels,
    read_size,
    resize,
    scaled_size,
    write_png,
    write_tiff,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60_000, (7, 9)).astype(np.uint16)
RGB = RNG.integers(0, 255, (7, 9, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("array", "options", "shape"),
    [
        (GREY, {}, (1, 7, 9)),
        (GREY.astype(np.int16), {}, (1, 7, 9)),
        (GREY.astype(np.float32) / 7, {"compression": "zlib"}, (1, 7, 9)),
        (GREY.astype(np.float64), {}, (1, 7, 9)),
        (RGB, {"photometric": "rgb"}, (3, 7, 9)),
        (np.moveaxis(RGB, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}, (3, 7, 9)),
        (np.stack([GREY] * 2), {"imagej": True, "metadata": {"axes": "CYX"}}, (2, 7, 9)),
        (np.stack([GREY] * 6), {"ome": True, "metadata": {"axes": "CYX"}}, (6, 7, 9)),
        (np.stack([GREY] * 2), {"metadata": None}, (2, 7, 9)),
        (GREY[None, None], {"ome": True, "metadata": {"axes": "ZCYX"}}, (1, 7, 9)),
        (GREY.T[:1, :1], {}, (1, 1, 1)),
    ],
)
def test_tiffs_of_all_sorts_are_read_with_channels_first(
    tmp_path: Path, array: np.ndarray, options: dict, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, array, **options)
    image = read_image(path)
    assert image.dtype == np.float32
    assert image.shape == shape
    planes = np.moveaxis(array, -1, 0) if array.shape[-1] == 3 else array
    np.testing.assert_array_equal(image, planes.reshape(shape).astype(np.float32))


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_pngs_keep_their_depth(tmp_path: Path, depth: type, channels: int) -> None:
    array = RNG.integers(0, np.iinfo(depth).max, (7, 9, channels)).astype(depth).squeeze()
    write_png(tmp_path / "image.PNG", array)
    image = read_image(tmp_path / "image.PNG")
    np.testing.assert_array_equal(image, np.moveaxis(np.atleast_3d(array), -1, 0).astype(np.float32))


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path: Path) -> None:
    iio.imwrite(tmp_path / "image.jpg", RGB)
    expected = np.moveaxis(np.asarray(Image.open(tmp_path / "image.jpg")), -1, 0)
    np.testing.assert_array_equal(read_image(tmp_path / "image.jpg"), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_an_opaque_alpha_channel_is_dropped_and_another_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"

    def write(alpha: np.ndarray) -> None:
        array = np.concatenate([RGB, alpha[..., None]], axis=2)
        if suffix == ".png":
            path.write_bytes(imagecodecs.png_encode(array))
        else:
            tifffile.imwrite(path, array, photometric="rgb", extrasamples=["unassalpha"])

    write(np.full((7, 9), 255, np.uint8))
    np.testing.assert_array_equal(read_image(path), np.moveaxis(RGB, -1, 0))
    write(np.full((7, 9), 254, np.uint8))
    with pytest.raises(DataError, match=r"image\..*partly transparent"):
        read_image(path)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.stack([GREY] * 5), {"imagej": True, "metadata": {"axes": "ZYX"}}, "got the axes"),
        (np.stack([GREY] * 5), {"imagej": True, "metadata": {"axes": "TYX"}}, "got the axes"),
        (np.stack([GREY] * 5), {"metadata": None}, "got the axes"),
        (np.full((4, 4), np.nan, np.float32), {}, "NaN or infinite"),
        (np.full((4, 4), 1e300), {}, "NaN or infinite"),
        (np.zeros((4, 4), np.complex64), {}, "complex"),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, array: np.ndarray, options: dict, message: str) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", array, **options)
    with pytest.raises(DataError, match=rf"stack\.tif.*{message}"):
        read_image(tmp_path / "stack.tif")


def test_a_tiff_of_several_images_is_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(GREY, metadata=None)
        writer.write(RGB, metadata=None, photometric="rgb")
    with pytest.raises(DataError, match=r"two\.tif: expected one image, got 2"):
        read_image(tmp_path / "two.tif")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".tiff"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.8])
def test_broken_files_are_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"broken{suffix}"
    array = RNG.integers(0, 255, (64, 64), np.uint8)
    iio.imwrite(path, array) if suffix in (".png", ".jpg") else tifffile.imwrite(path, array, compression="zlib")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=rf"broken\{suffix}"):
        read_image(path)


def test_a_truncated_tiff_without_compression_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.tif"
    tifffile.imwrite(path, GREY)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"broken\.tif"):
        read_image(path)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.png: cannot be read"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"no-folder: cannot be read: there is no such file"):
        read_image(tmp_path / "no-folder")
    (tmp_path / "movie.avi").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"movie\.avi: expected a file ending in \.tif, .*, got \.avi"):
        read_image(tmp_path / "movie.avi")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png: cannot be read as png"):
        read_image(tmp_path / "text.png")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=hnp.arrays(
        st.sampled_from([np.bool_, np.uint8, np.uint16, np.int32, np.int64]),
        hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6),
        elements=st.integers(0, 1),
    ),
    factor=st.sampled_from([1, 200, 70_000]),
)
def test_label_stacks_come_back_as_they_were_written(tmp_path: Path, array: np.ndarray, factor: int) -> None:
    if array.dtype in (np.int32, np.int64):
        array = array * array.dtype.type(factor)
    names = tuple(f"class {index}" for index in range(len(array))) if array.ndim == 3 else ("only",)
    path = tmp_path / "mask.tif"
    write_tiff(path, array, names)
    expected = array.astype(np.int32) * (255 if array.dtype == np.bool_ else 1)
    expected = expected[0] if array.ndim == 3 and len(array) == 1 else expected
    np.testing.assert_array_equal(read_labels(path), expected)
    assert read_labels(path).dtype == np.int32
    assert read_class_names(path) == names


def test_float_maps_come_back(tmp_path: Path) -> None:
    maps = RNG.random((2, 5, 6)).astype(np.float32)
    write_tiff(tmp_path / "map.tif", maps, ("a", "b"))
    np.testing.assert_array_equal(read_image(tmp_path / "map.tif"), maps)


def test_equal_arrays_give_equal_files(tmp_path: Path) -> None:
    for name in ("one.tif", "two.tif"):
        write_tiff(tmp_path / name, GREY, ("cell",))
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.tif", "two.tif"]


@pytest.mark.parametrize(("highest", "dtype"), [(3, np.uint16), (65_535, np.uint16), (65_536, np.uint32)])
@pytest.mark.parametrize("count", [1, 2])
def test_labels_are_written_with_16_or_32_bits_and_come_back(
    tmp_path: Path, highest: int, dtype: type, count: int
) -> None:
    instances = RNG.integers(0, highest, (count, 7, 9)).astype(np.int32)
    instances[0, 0, 0] = highest
    names = ("cell", "nucleus")[:count]
    path = tmp_path / "labels.tif"
    write_tiff(path, instances, names)
    np.testing.assert_array_equal(read_labels(path).reshape(instances.shape), instances)
    assert read_class_names(path) == names
    # As a program sees it that knows nothing of micraframe.
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == count
        assert file.series[0].axes == ("CYX" if count > 1 else "YX")
        assert file.asarray().dtype == dtype


def test_masks_are_written_as_0_and_255_and_come_back(tmp_path: Path) -> None:
    masks = RNG.random((2, 7, 9)) < 0.5
    write_tiff(tmp_path / "masks.tif", masks, ("ring", "fiber"), pixel_size_um=0.25)
    written = tifffile.imread(tmp_path / "masks.tif")
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(written, np.where(masks, 255, 0))
    np.testing.assert_array_equal(read_labels(tmp_path / "masks.tif") > 0, masks)
    with tifffile.TiffFile(tmp_path / "masks.tif") as file:
        assert 'PhysicalSizeX="0.25"' in file.ome_metadata
        assert 'PhysicalSizeYUnit="µm"' in file.ome_metadata


def test_negative_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.tif"
    with pytest.raises(DataError, match="expected values from 0"):
        write_tiff(path, np.full((1, 2, 2), -1, np.int32))
    assert not path.exists()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_size_is_read_without_the_image(tmp_path: Path, suffix: str, channels: int) -> None:
    path = tmp_path / f"image{suffix}"
    array = RNG.integers(0, 255, (7, 9, channels)).astype(np.uint8).squeeze()
    iio.imwrite(path, array) if suffix != ".tif" else tifffile.imwrite(path, array)
    assert read_size(path) == read_image(path).shape[1:] == (7, 9)
    write_tiff(tmp_path / "planes.tif", RNG.random((5, 3, 4)))
    assert read_size(tmp_path / "planes.tif") == (3, 4)
    with pytest.raises(DataError, match=r"nowhere\.png: cannot be read"):
        read_size(tmp_path / "nowhere.png")


def test_images_that_are_too_large_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iio.imwrite(tmp_path / "large.jpg", np.zeros((64, 64), np.uint8))
    # Twice as large as Pillow likes, which warns, and more, which it refuses.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert read_image(tmp_path / "large.jpg").shape == (1, 64, 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    for read in (read_image, read_size, read_labels):
        with pytest.raises(DataError, match=r"large\.jpg: too large to read .*cut it into smaller images"):
            read(tmp_path / "large.jpg")


def test_the_size_of_a_png_is_read_however_large_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    write_png(tmp_path / "large.png", RGB)
    assert read_size(tmp_path / "large.png") == read_image(tmp_path / "large.png").shape[1:] == (7, 9)
    for name, content in (("cut.png", b"\x89PNG"), ("other.png", b"GIF89a" + bytes(30))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: cannot be read as png"):
            read_size(tmp_path / name)


def test_memory_errors_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "large.tif", GREY)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 3 TiB")

    for place in ("tifffile.TiffFile", "micraframe.images.np.ascontiguousarray"):
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            for read in (read_image, read_labels):
                with pytest.raises(DataError, match=r"large\.tif: too large to read \(Unable to allocate 3 TiB\)"):
                    read(tmp_path / "large.tif")


def test_shrinking_averages_and_enlarging_interpolates() -> None:
    image = RNG.random((3, 8, 12)).astype(np.float32)
    small = resize(image, (4, 3))
    np.testing.assert_allclose(small, image.reshape(3, 4, 2, 3, 4).mean((2, 4)), rtol=1e-5)
    large = resize(image, (16, 24))
    assert (large.shape, large.dtype) == ((3, 16, 24), np.float32)
    assert image.min() <= large.min() <= large.max() <= image.max()
    assert resize(image, (8, 12)) is image
    assert scaled_size((8, 11), 0.5) == (4, 6)
    assert scaled_size((1, 1), 0.1) == (1, 1)


def test_labels_are_resized_to_the_nearest() -> None:
    labels = RNG.integers(0, 9, (2, 5, 6)).astype(np.int32)
    np.testing.assert_array_equal(nearest(labels, (10, 18)), labels.repeat(2, 1).repeat(3, 2))
    np.testing.assert_array_equal(nearest(nearest(labels, (15, 18)), (5, 6)), labels)
    assert nearest(labels > 3, (3, 3)).dtype == bool


def test_a_tiff_without_names_has_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", GREY)
    assert read_class_names(tmp_path / "plain.tif") == ()
    with pytest.raises(DataError, match=r"nowhere\.tif"):
        read_class_names(tmp_path / "nowhere.tif")


def test_arrays_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    for array in (np.zeros(3), np.zeros((0, 3)), np.zeros((2, 2), complex), np.full((2, 2), -1)):
        with pytest.raises(DataError, match="expected"):
            write_tiff(tmp_path / "no.tif", array)
    with pytest.raises(DataError, match="names of 1 planes, got 2"):
        write_tiff(tmp_path / "no.tif", GREY, ("a", "b"))
    for array in (np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)):
        with pytest.raises(DataError, match="expected"):
            write_png(tmp_path / "no.png", array)
    assert not list(tmp_path.iterdir())


def test_a_palette_is_read_as_indices_for_labels_and_as_colours_for_images(tmp_path: Path) -> None:
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette(bytes(range(255, -1, -1)) * 3)
    picture.save(tmp_path / "voc.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "voc.png"), indices)
    assert read_image(tmp_path / "voc.png").shape == (3, 3, 4)


def test_labels_stored_as_grey_colours_are_labels_and_colours_are_not(tmp_path: Path) -> None:
    write_png(tmp_path / "grey.png", np.repeat(RGB[..., :1], 3, axis=2))
    np.testing.assert_array_equal(read_labels(tmp_path / "grey.png"), RGB[..., 0])
    write_png(tmp_path / "colour.png", RGB)
    with pytest.raises(DataError, match=r"colour\.png: .*got a colour picture"):
        read_labels(tmp_path / "colour.png")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((3, 3), 0.5, np.float32), "fractions"),
        (np.full((3, 3), np.nan, np.float32), "fractions or NaN"),
        (np.full((3, 3), 2**31, np.uint32), "32-bit integers"),
        (np.zeros((3, 3), np.complex64), "expected integers"),
    ],
)
def test_labels_that_are_not_whole_numbers_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", array)
    with pytest.raises(DataError, match=rf"mask\.tif.*{message}"):
        read_labels(tmp_path / "mask.tif")


def test_lossy_masks_are_refused(tmp_path: Path) -> None:
    iio.imwrite(tmp_path / "mask.jpg", np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match=r"mask\.jpg: expected .*, got a JPEG; save masks as PNG or TIFF"):
        read_labels(tmp_path / "mask.jpg")


def test_real_images_are_read(data: Path) -> None:
    nucleus = next((data / "nuclei_fluo" / "images").iterdir())
    assert read_image(nucleus).shape[0] == 1
    assert read_labels(data / "nuclei_fluo" / "masks" / nucleus.name).shape == read_image(nucleus).shape[1:]
    assert read_image(data / "pfc_neurons" / "images" / "img_003.jpg").shape == (3, 960, 1280)
    blood = read_image(next((data / "pvivax_bbbc041_sample" / "images").glob("*.tif")))
    assert blood.shape == (3, 512, 512)
    assert blood.min() < 0
