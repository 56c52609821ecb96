from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from benchmarks.nuclei_sample import make
from micraframe import registry
from micraframe.datasets.nuclei_sample import FOLDER, NucleiSample
from micraframe.images import read_labels, read_planes
from micraframe.testing import check
from micraframe.types import SPLITS

WHOLE = NucleiSample(NucleiSample.Params(crop=None))


def test_it_keeps_a_datasets_promises() -> None:
    check("dataset", "nuclei-sample")


def test_the_package_holds_everything_in_less_than_two_megabytes_with_its_licence() -> None:
    folder = resources.files("micraframe.datasets") / "nuclei"
    names = {kind: {file.name for file in (folder / kind).iterdir()} for kind in ("images", "masks")}
    assert names["images"] == names["masks"] == {f"{source.name}.png" for source in WHOLE.sources()}
    files = [folder / "index.csv", folder / "LICENSE"] + [
        folder / kind / name for kind in names for name in names[kind]
    ]
    assert sum(len(file.read_bytes()) for file in files) < 2e6
    text = (folder / "LICENSE").read_text(encoding="utf-8")
    info = WHOLE.info()
    assert info.name == "nuclei-sample"
    assert info.licence in text
    assert info.citation.split(",")[0] in text


def test_every_image_shows_another_field_and_nuclei_and_no_crop_is_dropped_from_the_test() -> None:
    fields = [source.group for source in WHOLE.sources()]
    assert len(set(fields)) == len(fields) == 60
    for split in SPLITS:
        for sample in WHOLE.samples(split):
            assert sample.image.shape[0] == 1
            assert max(sample.image.shape) <= 256
            assert sample.masks.any()
            np.testing.assert_array_equal(np.unique(sample.instances), np.arange(sample.instances.max() + 1))
    whole = {sample.id: sample for sample in WHOLE.samples("test")}
    covered = {name: np.zeros(sample.image.shape[1:], bool) for name, sample in whole.items()}
    for sample in registry.build("dataset", "nuclei-sample").samples("test"):
        assert sample.image.shape == (1, 64, 64)
        np.testing.assert_array_equal(sample.labels, sample.masks.any((1, 2)))
        name, _, place = sample.id.partition("@y")
        y, x = map(int, place.split("x"))
        window = (slice(y, y + 64), slice(x, x + 64))
        np.testing.assert_array_equal(sample.image, whole[name].image[:, *window])
        np.testing.assert_array_equal(sample.masks, whole[name].masks[:, *window])
        covered[name][window] = True
    assert all(seen.all() for seen in covered.values())


def test_there_are_enough_crops_with_and_without_nuclei() -> None:
    dataset = NucleiSample(NucleiSample.Params(stride=48))
    for split, least in zip(SPLITS, (600, 150, 150), strict=True):
        present = [sample.labels.any() for sample in dataset.samples(split)]
        assert len(present) >= least
        assert 0.5 < np.mean(present) < 0.8


def test_it_is_made_again_from_the_whole_set(data: Path, tmp_path: Path) -> None:
    make(data / "nuclei_fluo", tmp_path)
    assert (tmp_path / "index.csv").read_bytes() == (FOLDER / "index.csv").read_bytes()
    for source in WHOLE.sources():
        for kind, read in (("images", read_planes), ("masks", read_labels)):
            again, embedded = (folder / kind / f"{source.name}.png" for folder in (tmp_path, FOLDER))
            np.testing.assert_array_equal(read(again), read(embedded))
