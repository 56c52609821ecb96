from __future__ import annotations

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import v04, v05

from micraframe.sweep.image import open_image
from micraframe.sweep.ome_zarr import write_map

PLANES = np.random.default_rng(0).random((2, 531, 700), np.float32)


VERSIONS = ("0.4", "0.5")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_level_lies_over_the_image(tmp_path, version):
    path = tmp_path / "probability.ome.zarr"
    write_map(path, PLANES, ("disc", "square"), 64, version)
    group = zarr.open_group(path, mode="r")
    content = group.attrs["ome"] if version == "0.5" else group.attrs
    scales = content["multiscales"][0]
    assert (content if version == "0.5" else scales)["version"] == version
    assert group.metadata.zarr_format == (3 if version == "0.5" else 2)
    assert [channel["label"] for channel in content["omero"]["channels"]] == ["disc", "square"]
    assert [axis["name"] for axis in scales["axes"]] == ["c", "y", "x"]
    assert len(scales["datasets"]) == 3
    for level, dataset in enumerate(scales["datasets"]):
        array = group[dataset["path"]]
        assert array.shape[1:] == tuple(-(-side // 2**level) for side in PLANES.shape[1:])
        (_, scale, _), (_, shift, _) = (
            [transform[transform["type"]][i] for i in range(3)] for transform in dataset["coordinateTransformations"]
        )
        # The left edge of the first pixel is that of the image's first pixel.
        assert scale == 64 * 2**level
        assert shift - scale / 2 == -0.5
    assert np.array_equal(group["0"][:], PLANES)
    np.testing.assert_allclose(group["1"][0, 3, 5], PLANES[0, 6:8, 10:12].mean(), rtol=1e-6)


def test_chunks_of_version_04_are_in_nested_folders(tmp_path):
    write_map(tmp_path / "map.ome.zarr", PLANES, ("disc", "square"), 64, "0.4")
    assert (tmp_path / "map.ome.zarr" / "0" / "1" / "2" / "0").is_file()


def test_our_reader_reads_it_and_a_second_map_replaces_it(tmp_path):
    path = tmp_path / "probability.ome.zarr"
    write_map(path, PLANES, ("disc", "square"), 64)
    write_map(path, PLANES[:, :20, :30], ("disc", "square"), 8)
    with open_image(path) as image:
        assert (image.channels, image.height, image.width) == (2, 20, 30)
        assert np.array_equal(image.read(0, 20, 0, 30), PLANES[:, :20, :30])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_reader_that_napari_uses_reads_it(tmp_path, version):
    path = tmp_path / "probability.ome.zarr"
    write_map(path, PLANES, ("disc", "square"), 64, version)
    location = parse_url(path)
    assert location.fmt.version == version
    (node,) = Reader(location)()
    assert [level.shape for level in node.data] == [(2, 531, 700), (2, 266, 350), (2, 133, 175)]
    assert np.array_equal(np.asarray(node.data[0]), PLANES)
    assert node.metadata["channel_names"] == ["disc", "square"]
    assert node.metadata["contrast_limits"] == [[0.0, 1.0]] * 2
    scale, translation = node.metadata["coordinateTransformations"][1]
    assert scale["scale"] == [1.0, 128.0, 128.0]
    assert translation["translation"] == [0.0, 63.5, 63.5]


@pytest.mark.parametrize(("version", "model"), [("0.4", v04.Image), ("0.5", v05.Image)])
def test_its_metadata_follow_the_specification(tmp_path, version, model):
    path = tmp_path / "probability.ome.zarr"
    write_map(path, PLANES, ("disc", "square"), 64, version)
    assert len(model.from_zarr(zarr.open_group(path, mode="r")).datasets[0]) == 3
