from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from micraframe import registry
from micraframe.datasets.folder import Folder, FolderFiles
from micraframe.errors import DataError
from micraframe.images import write_png
from micraframe.testing import check
from micraframe.types import SPLITS, Sample

RNG = np.random.default_rng(0)

STUDIES = Path(__file__).parents[3] / "benchmarks" / "studies"


@pytest.fixture
def real_data(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let datasets find the real images, or skip the test."""
    monkeypatch.setenv("MICRAFRAME_DATA", str(data))


def build(name: str, /, **params: Any) -> Any:
    return registry.build("dataset", name, **params)


def every_sample(dataset: Any) -> list[Sample]:
    return [sample for split in SPLITS for sample in dataset.samples(split)]


@pytest.mark.parametrize(
    ("name", "study"),
    [
        ("nuclei-fluo", "weak_nuclei"),
        ("nuclei-fluo", "nuclei_fluo"),
        ("t98g-phase", "weak_t98g"),
        ("t98g-phase", "t98g_phase"),
        ("pfc-neurons", "weak_neurons"),
        ("pfc-neurons", "pfc_neurons"),
    ],
)
def test_settings_are_those_of_the_committed_studies(name: str, study: str) -> None:
    (entry,) = YAML(typ="safe").load(STUDIES / study / "study.yaml")["datasets"]
    written = Folder.Params(**entry["params"])
    dataset = build(name)
    for key in Folder.Params.model_fields:
        if key != "name":
            known = dataset.folder.params if key in FolderFiles.model_fields else dataset.params
            assert getattr(known, key) == getattr(written, key), key
    assert dataset.default_name() == name


def write_nuclei(root: Path) -> str:
    """Write images of two sizes, with two nuclei that touch in every second, in the layout of `nuclei_fluo`."""
    rows = ["name,width,height,field_group"]
    for number in range(12):
        size = (40, 33) if number % 2 else (24, 24)
        cells = np.zeros(size, np.uint16)
        cells[2:8, 2:8] = 1
        cells[2:8, (8 if number % 2 else 14) : 20] = 2
        write_png(root / "masks" / f"{number:02}.png", cells)
        write_png(root / "images" / f"{number:02}.png", (cells * 60 + RNG.integers(0, 50, size)).astype(np.uint8))
        rows.append(f"{number:02},{size[1]},{size[0]},field{number % 6}")
    (root / "index.csv").write_text("\n".join(rows))
    return str(root)


def test_one_size_of_nuclei_is_one_device_and_keeps_fields_together(tmp_path: Path) -> None:
    root = write_nuclei(tmp_path)
    large = build("nuclei-fluo", root=root, sizes=["33x40"], crop=None)
    small = build("nuclei-fluo", root=root, sizes=["24x24"], crop=None)
    both = build("nuclei-fluo", root=root, crop=None)
    names = [{sample.id for sample in every_sample(each)} for each in (large, small, both)]
    assert names[0] == {f"{number:02}" for number in range(1, 12, 2)}
    assert names[0] | names[1] == names[2]
    assert not names[0] & names[1]
    assert large.info().fingerprint != both.info().fingerprint
    assert {sample.group for sample in every_sample(large)} == {"field1", "field3", "field5"}
    check("dataset", "nuclei-fluo", root=root, sizes=["33x40"], crop=16)
    with pytest.raises(DataError, match="expected sizes among 24x24, 33x40, got 9x9"):
        build("nuclei-fluo", root=root, sizes=["24x24", "9x9"]).info()


def test_contacts_of_nuclei_are_made_from_instances(tmp_path: Path) -> None:
    dataset = build("nuclei-fluo", root=write_nuclei(tmp_path), contact_class="contact", crop=None)
    assert dataset.info().classes == ("nucleus", "contact")
    assert dataset.info().roles == ("object", "contact")
    for sample in every_sample(dataset):
        assert sample.labels.tolist() == [True, int(sample.id) % 2 == 1]


def test_a_dataset_that_is_moved_stays_the_same(tmp_path: Path) -> None:
    root = Path(write_nuclei(tmp_path / "a"))
    first = build("nuclei-fluo", root=str(root)).info()
    assert build("nuclei-fluo", root=str(root.rename(tmp_path / "b"))).info() == first


def test_cells_and_neurons_in_their_layouts(tmp_path: Path) -> None:
    for number in range(6):
        cells = np.zeros((40, 64), np.uint16)
        cells[8:24, 8:24] = number % 3
        for name, mask in (("cells", cells), ("neurons", np.uint8(255) * (cells > 0))):
            write_png(tmp_path / name / "masks" / f"{number}.png", mask)
        image = (cells * 50 + RNG.integers(0, 40, cells.shape)).astype(np.uint8)
        write_png(tmp_path / "cells" / "images" / f"{number}.png", image)
        write_png(tmp_path / "neurons" / "images" / f"{number}.png", np.stack([image] * 3, axis=2))
    for name, folder, channels in (("t98g-phase", "cells", 1), ("pfc-neurons", "neurons", 3)):
        params = {"root": str(tmp_path / folder), "scale": 0.5, "crop": 16}
        check("dataset", name, **params)
        dataset = build(name, **params)
        assert (dataset.info().channels, dataset.info().scale) == (channels, 0.5)
        for sample in every_sample(dataset):
            number, _, place = sample.id.partition("@")
            assert sample.labels.tolist() == [int(number) % 3 > 0 and place.endswith("x0")]
            assert (sample.instances is None) == (name == "pfc-neurons")


def test_kinds_of_blood_cells(tmp_path: Path) -> None:
    rows = ["image,class,xmin,ymin,xmax,ymax,truncated,difficult"]
    for number in range(6):
        write_png(tmp_path / "images" / f"{number}.png", np.full((32, 48, 3), number * 9, np.uint8))
        rows += [f"{number},RBC,0,0,16,16,0,0", f"{number},WBC,{20 + number},12,{40 + number},30,1,0"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    params = {"root": str(tmp_path), "scale": 1, "crop": None}
    check("dataset", "blood-cells", **params)
    assert build("blood-cells", **params).info().classes == ("RBC", "WBC", "Platelets")
    for sample in every_sample(build("blood-cells", **params)):
        assert sample.labels.tolist() == [True, True, False]
    chosen = build("blood-cells", **params, kinds=["Platelets", "WBC"])
    assert chosen.info().classes == ("Platelets", "WBC")
    for sample in every_sample(chosen):
        left = 20 + int(sample.id)
        assert [part.tolist() for part in sample.boxes] == [[], [[12, left, 30, left + 20]]]
    with pytest.raises(ValidationError):
        type(chosen).Params(root=str(tmp_path), kinds=())


def test_real_nuclei_are_those_of_the_study_and_its_sizes_are_disjoint(real_data: None) -> None:
    (entry,) = YAML(typ="safe").load(STUDIES / "weak_nuclei" / "study.yaml")["datasets"]
    written, dataset = build("folder", **entry["params"]), build("nuclei-fluo")
    known, read = written.samples("test"), dataset.samples("test")
    assert len(known) == len(read)
    for index in (0, len(read) // 2, len(read) - 1):
        assert (known[index].id, known[index].labels.tolist()) == (read[index].id, read[index].labels.tolist())
        np.testing.assert_array_equal(known[index].image, read[index].image)
    groups = [
        {source.group for source in build("nuclei-fluo", sizes=[size]).sources()} for size in ("256x256", "696x520")
    ]
    assert [len(several) for several in groups] == [80, 35]
    assert not groups[0] & groups[1]


def test_real_nuclei_touch_in_some_crops(real_data: None) -> None:
    dataset = build("nuclei-fluo", contact_class="contact", limit=20)
    labels = np.array([sample.labels for sample in every_sample(dataset)])
    assert 0.5 < labels[:, 0].mean() < 0.95
    assert 0.1 < labels[:, 1].mean() < 0.9


@pytest.mark.parametrize("name", ["t98g-phase", "pfc-neurons", "blood-cells"])
def test_real_folders_keep_a_datasets_promises(real_data: None, name: str) -> None:
    check("dataset", name, limit=6, max_crops_per_image=5)
