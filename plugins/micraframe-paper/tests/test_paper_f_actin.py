from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micraframe_paper.datasets.f_actin import FILES, intensity_scaling, windows_in_dendrite

from micraframe import registry
from micraframe.datasets.crops import Window, grid
from micraframe.errors import ConfigError, DataError
from micraframe.testing import check

SMALL = {"crop": 32, "stride": 24}
PADDING = 5000  # brighter than every image: reading it would change the scaling
SIZES = {"train": ((70, 60), (64, 80), (33, 47)), "valid": ((64, 64),), "test": ((50, 90), (70, 70))}


def images_of(split):
    """Return images with their true sizes, and planes of rings, fibers and dendrite."""
    generator = np.random.default_rng(len(split))
    images, labels = [], []
    for number, (height, width) in enumerate(SIZES[split]):
        images.append(generator.poisson(20 + 5 * number, (height, width)).astype(np.uint16))
        planes = np.zeros((3, height, width), np.uint8)
        planes[0, 4:20, 4 : 8 + 4 * number] = 1
        planes[1, height // 2 :, width // 2 :] = 1
        planes[2, :, : width // 3] = 1
        labels.append(planes)
    return images, labels


def write(folder):
    """Write the three files in the published layout: padded stacks in two groups."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, file in FILES.items():
        images, labels = images_of(split)
        path = folder / file.name
        path.parent.mkdir(exist_ok=True)
        with h5py.File(path, "w") as out:
            for name, which in (("a", slice(2)), ("b", slice(2, None))):
                if not images[which]:
                    continue
                sizes = np.array([image.shape for image in images[which]])
                size = sizes.max(axis=0)
                data = np.full((len(sizes), *size), PADDING, np.uint16)
                label = np.ones((len(sizes), 3, *size), np.uint8)
                for index, (image, planes) in enumerate(zip(images[which], labels[which], strict=True)):
                    data[index, : image.shape[0], : image.shape[1]] = image
                    label[index, :, : image.shape[0], : image.shape[1]] = planes
                group = out.create_group(name)
                group["data"] = data
                group["label"] = label
                group["label"].attrs["shapes"] = sizes
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("f-actin"))


def build(root, **params):
    return registry.build("dataset", "f-actin", root=str(root), **(SMALL | params))


def test_conformance(root):
    check("dataset", "f-actin", root=str(root), **SMALL)
    check("dataset", "f-actin", root=str(root), crop=None, dendrite_only=False)


@pytest.mark.parametrize("split", list(FILES))
def test_crops_labels_and_pixels_are_those_of_the_definition(root, split):
    dataset = build(root)
    scaling = dataset.info().normalisation
    expected = []
    for number, (image, planes) in enumerate(zip(*images_of(split), strict=True)):
        name = f"{split}-{'ab'[number // 2]}-{number % 2:03d}"
        for y, x, height, width in grid(image.shape, 32, 24):
            place = np.s_[..., y : y + height, x : x + width]
            rings, fibers, dendrite = planes[place] > 0
            if dendrite.mean() < 0.1:
                continue
            labels = [plane.mean() > 0.05 for plane in (rings, fibers)]
            expected.append((f"{name}@y{y}x{x}", name, image[place], np.stack([rings, fibers]), ~dendrite, labels))
    samples = dataset.samples(split)
    assert len(samples) == len(expected) > 0
    for sample, (id_, name, image, masks, ignore, labels) in zip(samples, expected, strict=True):
        assert (sample.id, sample.group, sample.pixel_size_um) == (id_, name, 0.02)
        assert sample.normalisation == scaling  # the metric low-intensity-share needs it
        np.testing.assert_array_equal(sample.image, scaling.apply(image[None].astype(np.float32)))
        np.testing.assert_array_equal(sample.masks, masks)
        np.testing.assert_array_equal(sample.ignore, ignore)
        assert sample.labels.tolist() == labels
        assert sample.part.image == name


def test_crops_without_dendrite_are_left_out(root):
    everything = build(root, dendrite_share=0.0)
    assert len(build(root).samples("train")) < len(everything.samples("train"))
    assert len(everything.samples("train")) == sum(len(grid(size, 32, 24)) for size in SIZES["train"])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_dendrite_rule_counts_pixels(seed, share):
    dendrite = np.random.default_rng(seed).random((12, 15)) < 0.4
    windows = grid(dendrite.shape, 5, 3)

    def enough(window: Window) -> bool:
        inside = [
            dendrite[y, x] for y in range(window.y, window.y + 5) for x in range(window.x, window.x + window.width)
        ]
        return sum(inside) / len(inside) >= share

    assert windows_in_dendrite(dendrite, windows, share) == list(filter(enough, windows))


def test_intensities_are_scaled_as_in_the_paper(root):
    images, _ = images_of("train")
    low = np.median([image.min() for image in images])
    maxima = [image.max() for image in images]
    high = np.median(maxima) + 3 * np.std(maxima)
    values = np.array([[[low, 40, high]]], np.float32)
    expected = (values - low) / (0.8 * (high - low))
    np.testing.assert_allclose(build(root).info().normalisation.apply(values), expected, rtol=1e-6)
    np.testing.assert_allclose(build(root, headroom=1).info().normalisation.apply(values), 0.8 * expected, rtol=1e-6)


def test_scaling_needs_images_with_contrast():
    with pytest.raises(DataError, match="expected training images to measure intensities of, got none"):
        intensity_scaling([], [], 0.8)
    with pytest.raises(DataError, match="expected training images with contrast"):
        intensity_scaling([3.0, 3.0], [3.0, 3.0], 0.8)


def test_pixels_outside_the_dendrite_count_if_asked_for(root):
    assert build(root, dendrite_only=False).samples("test")[0].ignore is None


def test_the_same_files_elsewhere_are_the_same_dataset(root, tmp_path):
    for file in FILES.values():
        shutil.copy(root / file.name, tmp_path / file.other_names[0])
    assert build(tmp_path).info() == build(root).info()
    assert build(tmp_path, crop=40).info().fingerprint != build(root).info().fingerprint


def test_a_stride_beyond_the_crop_is_refused(root):
    with pytest.raises(ConfigError, match="stride 40 would skip pixels between crops of 32 px"):
        build(root, stride=40)


@pytest.mark.parametrize("broken", ["text", "no label", "no shapes", "planes", "sizes", "too large"])
def test_a_broken_file_is_named(root, tmp_path, broken):
    shutil.copytree(root, tmp_path / "copy")
    path = tmp_path / "copy" / FILES["valid"].name
    if broken == "text":
        path.write_text("no HDF5")
    else:
        with h5py.File(path, "r+") as file:
            label = file["a"]["label"]
            if broken == "no label":
                del file["a"]["label"]
            elif broken == "no shapes":
                del label.attrs["shapes"]
            elif broken == "planes":
                del file["a"]["label"]
                file["a"]["label"] = np.ones((1, 2, 64, 64), np.uint8)
                file["a"]["label"].attrs["shapes"] = [[64, 64]]
            else:
                label.attrs["shapes"] = [64, 64] if broken == "sizes" else [[64, 65]]
    with pytest.raises(DataError, match=f"{path}: .*expected"):
        build(tmp_path / "copy").samples("valid")
