from __future__ import annotations

import numpy as np
import pytest
import zarr

from micraframe.sweep.image import open_image
from micraframe.sweep.ome_zarr import write_map

PLANES = np.random.default_rng(0).random((2, 531, 700), np.float32)


def test_every_level_lies_over_the_image(tmp_path):
    path = tmp_path / "probability.ome.zarr"
    write_map(path, PLANES, ("disc", "square"), 64)
    group = zarr.open_group(path, mode="r")
    told = group.attrs["ome"]
    assert told["version"] == "0.5"
    assert [channel["label"] for channel in told["omero"]["channels"]] == ["disc", "square"]
    scales = told["multiscales"][0]
    assert [axis["name"] for axis in scales["axes"]] == ["c", "y", "x"]
    assert len(scales["datasets"]) == 3
    for level, dataset in enumerate(scales["datasets"]):
        array = group[dataset["path"]]
        assert array.metadata.dimension_names == ("c", "y", "x")
        assert array.shape[1:] == tuple(-(-side // 2**level) for side in PLANES.shape[1:])
        (_, scale, _), (_, shift, _) = (
            [transform[transform["type"]][i] for i in range(3)] for transform in dataset["coordinateTransformations"]
        )
        # The left edge of the first pixel is the left edge of the image's first.
        assert scale == 64 * 2**level
        assert shift - scale / 2 == -0.5
    assert np.array_equal(group["0"][:], PLANES)
    np.testing.assert_allclose(group["1"][0, 3, 5], PLANES[0, 6:8, 10:12].mean(), rtol=1e-6)


def test_our_own_reader_reads_it_and_a_second_one_replaces_it(tmp_path):
    path = tmp_path / "probability.ome.zarr"
    write_map(path, PLANES, ("disc", "square"), 64)
    write_map(path, PLANES[:, :20, :30], ("disc", "square"), 8)
    with open_image(path) as image:
        assert (image.channels, image.height, image.width) == (2, 20, 30)
        assert np.array_equal(image.read(0, 20, 0, 30), PLANES[:, :20, :30])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_ome_zarrs_own_reader_reads_it(tmp_path):
    reader = pytest.importorskip("ome_zarr.reader")
    parse_url = pytest.importorskip("ome_zarr.io").parse_url
    path = tmp_path / "probability.ome.zarr"
    write_map(path, PLANES, ("disc", "square"), 64)
    nodes = list(reader.Reader(parse_url(path))())
    assert [level.shape for level in nodes[0].data] == [(2, 531, 700), (2, 266, 350), (2, 133, 175)]
