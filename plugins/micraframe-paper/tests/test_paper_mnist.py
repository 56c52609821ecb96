from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from micraframe_paper.datasets.mnist import FILES, read_digits, read_idx

from micraframe import registry
from micraframe.datasets.composer import DigitScene, GlyphSet, compose
from micraframe.errors import DataError
from micraframe.testing import check

SMALL = {"size": 64, "counts": [1, 2, 3], "train": 9, "valid": 9, "test": 9}
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder, compressed=True, names=lambda name: name):
    """Write digits in MNIST's layout: 0 to 4, then in the last sixth of the training digits 5 to 8, and 9 for tests."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"train": np.repeat([0, 1, 2, 3, 4, 5, 6, 7, 8], [10, 10, 10, 10, 10, 3, 3, 3, 1]), "test": np.full(20, 9)}
    for split, (image_file, label_file) in FILES.items():
        generator = np.random.default_rng(len(labels[split]))
        images = np.zeros((len(labels[split]), 28, 28), np.uint8)
        images[:, 6:22, 6:22] = generator.integers(100, 256, (len(images), 16, 16))
        for file, array in ((image_file, images), (label_file, labels[split].astype(np.uint8))):
            content = idx(array)
            name = names(file.name if compressed else file.name.removesuffix(".gz"))
            (folder / name).write_bytes(gzip.compress(content) if compressed else content)
    return folder


def build(root, **params):
    return registry.build("dataset", "modified-mnist", root=str(root), **(SMALL | params))


def test_conformance(tmp_path):
    check("dataset", "modified-mnist", root=str(write(tmp_path)), **SMALL)


def test_the_papers_numbers_are_the_defaults():
    params = registry.build("dataset", "modified-mnist").params
    assert (params.train, params.valid, params.test, params.size, params.radius) == (2000, 1000, 1000, 256, 25)


def test_no_digit_is_in_two_splits(tmp_path):
    dataset = build(write(tmp_path), counts=["max"])
    present = {
        split: set(np.flatnonzero(np.any([s.labels for s in dataset.samples(split)], axis=0)))
        for split in ("train", "valid", "test")
    }
    assert present == {"train": {0, 1, 2, 3, 4}, "valid": {5, 6, 7, 8}, "test": {9}}


def test_images_are_composed_as_core_composes_them(tmp_path):
    dataset = build(write(tmp_path), seed=5)
    digits = read_digits(*(tmp_path / file.name for file in FILES["test"]))
    scene = DigitScene(size=64, counts=(1, 2, 3))
    image, instances = compose(digits, scene, np.random.default_rng([5, 2, 7]))
    sample = dataset.samples("test")[7]
    np.testing.assert_array_equal(sample.image[0], image)
    np.testing.assert_array_equal(sample.instances, instances)


@pytest.mark.parametrize(
    ("compressed", "names"),
    [
        (False, lambda name: name),
        (False, lambda name: name.replace("-idx", ".idx")),
        (True, lambda name: name),
    ],
)
def test_compressed_or_not_it_is_the_same_dataset(tmp_path, compressed, names):
    one, other = build(write(tmp_path / "a")), build(write(tmp_path / "b", compressed, names))
    assert one.info() == other.info()


def test_the_folder_of_torchvision_is_read(tmp_path):
    write(tmp_path / "MNIST/raw", compressed=False)
    assert len(build(tmp_path).samples("train")[0].image) == 1


def test_other_digits_are_another_dataset(tmp_path):
    one = build(write(tmp_path / "a"))
    write(tmp_path / "b")
    path = tmp_path / "b" / FILES["test"][1].name
    path.write_bytes(gzip.compress(idx(np.arange(20, dtype=np.uint8) % 10)))
    assert build(tmp_path / "b").info().fingerprint != one.info().fingerprint


def test_reads_idx(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)
    for name, content in (("plain", idx(array)), ("packed", gzip.compress(idx(array)))):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(read_idx(tmp_path / name, 3), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an IDX file that begins with 00 00 08 01, got "),
        (idx(np.zeros((2, 2, 2), np.uint8)), "expected an IDX file that begins with 00 00 08 01, got 00 00 08 03"),
        (idx(np.zeros(5, np.uint8))[:-1], r"expected 13 bytes for shape \[5\], got 12"),
        (gzip.compress(idx(np.zeros(5, np.uint8)), mtime=0)[:-9], "cannot be read"),
        (b"\x1f\x8b" + bytes(30), "cannot be read"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(DataError, match=f"labels: {message}"):
        read_idx(tmp_path / "labels", 1)


def test_a_missing_file_and_labels_of_other_digits_are_errors(tmp_path):
    with pytest.raises(DataError, match="found no train-images-idx3-ubyte.gz"):
        build(tmp_path).info()
    write(tmp_path)
    (tmp_path / FILES["train"][1].name).write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match="expected labels of the 60 digits of .*, got 3"):
        build(tmp_path).info()


def test_the_weak_outlines_of_the_paper_contain_the_digits(tmp_path):
    sample = build(write(tmp_path)).samples("train")[0]
    areas = []
    for pixels in (5, 10, 25):
        weak, _ = registry.build("annotator", "dilated", size=pixels).annotate(sample, 0)
        assert not (sample.masks & ~weak.masks).any()
        areas.append(weak.masks.sum())
    assert sample.masks.sum() < areas[0] < areas[1] < areas[2]


def test_real_files(data):
    dataset = build(data / "mnist", size=256, counts=["max"], train=1, valid=1, test=1)
    images, labels = (data / "mnist" / file.name for file in FILES["test"])
    assert np.bincount(read_digits(images, labels).labels).tolist() == TEST_COUNTS
    assert len(read_idx(data / "mnist" / FILES["train"][0].name, 3)) == 60_000
    for split in ("train", "valid", "test"):
        (sample,) = dataset.samples(split)
        assert sample.image.shape == (1, 256, 256)
        assert sum(map(len, sample.points)) > 30
        assert isinstance(dataset._digits(split), GlyphSet)
