from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from micraframe import registry
from micraframe.datasets.crops import grid
from micraframe.errors import ConfigError, DataError
from micraframe.images import read_labels, write_png, write_tiff
from micraframe.testing import check
from micraframe.types import SPLITS, Sample

RNG = np.random.default_rng(0)


def build(**params: Any) -> Any:
    return registry.build("dataset", "folder", **params)


def every_sample(dataset: Any) -> list[Sample]:
    return [sample for split in SPLITS for sample in dataset.samples(split)]


@pytest.fixture
def cells(tmp_path: Path) -> dict[str, Any]:
    """Nine images of 40 x 33 with instance masks; number n has n objects of 5 x 5, image 0 none."""
    for number in range(9):
        mask = np.zeros((40, 33), np.uint16)
        for index in range(number):
            y, x = 1 + 8 * (index // 4), 1 + 8 * (index % 4)
            mask[y : y + 5, x : x + 5] = index + 1
        image = RNG.integers(0, 50, mask.shape) + 100 * (mask > 0)
        write_png(tmp_path / "images" / f"cell{number}.png", image.astype(np.uint8))
        write_png(tmp_path / "masks" / f"cell{number}.png", mask)
    return {
        "images": str(tmp_path / "images"),
        "masks": str(tmp_path / "masks"),
        "mask_kind": "instances",
        "normalisation": {"kind": "none"},
    }


def write_table(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_whole_images_with_instances(cells: dict[str, Any]) -> None:
    dataset = build(**cells)
    samples = {sample.id: sample for sample in every_sample(dataset)}
    assert sorted(samples) == [f"cell{number}" for number in range(9)]
    assert dataset.info().classes == ("object",)
    for number in range(9):
        sample = samples[f"cell{number}"]
        assert sample.image.shape == (1, 40, 33)
        assert sample.labels.tolist() == [number > 0]
        assert sample.instances.max() == number
        assert len(sample.points[0]) == len(sample.boxes[0]) == number
        np.testing.assert_array_equal(sample.masks, sample.instances > 0)
        np.testing.assert_array_equal(sample.instances[0], read_labels(Path(cells["masks"]) / f"{sample.id}.png"))
    assert samples["cell1"].points[0].tolist() == [[3, 3]]
    assert samples["cell1"].boxes[0].tolist() == [[1, 1, 6, 6]]


def test_it_keeps_a_datasets_promises(cells: dict[str, Any]) -> None:
    check("dataset", "folder", **cells)
    check("dataset", "folder", **cells, crop=16, stride=11)


def test_crops_are_cut_from_the_whole_image(cells: dict[str, Any]) -> None:
    whole = {sample.id: sample for sample in every_sample(build(**cells))}
    crops = every_sample(build(**cells, crop=16))
    assert len(crops) == 9 * len(grid((40, 33), 16, 16))
    for crop in crops:
        name, _, place = crop.id.partition("@y")
        y, x = map(int, place.split("x"))
        assert crop.group == name
        for array in ("image", "masks", "instances"):
            part = getattr(whole[name], array)[..., y : y + 16, x : x + 16]
            np.testing.assert_array_equal(getattr(crop, array), part)
        assert crop.labels.tolist() == crop.masks.any((1, 2)).tolist()


def test_a_sample_shares_no_memory(cells: dict[str, Any]) -> None:
    samples = build(**cells, crop=16).samples("train")
    before = samples[0].image.copy()
    assert not np.shares_memory(samples[0].image, samples[0].image)
    with pytest.raises(ValueError, match="read-only"):
        samples[0].image[:] = -1
    np.testing.assert_array_equal(samples[0].image, before)


@pytest.mark.parametrize("rule", [{"positive_rule": "share", "share": 0.12}, {"positive_rule": "object"}])
@pytest.mark.parametrize(("train", "test"), [("drop", "drop"), ("drop", "positive"), ("negative", "negative")])
def test_ambiguous_crops_are_dropped_or_kept_as_the_parameters_say(
    cells: dict[str, Any], rule: dict[str, Any], train: str, test: str
) -> None:
    everything = build(**cells, crop=12)
    dataset = build(**cells, crop=12, ambiguous_train_crops=train, ambiguous_test_crops=test, **rule)
    least = 0.12 * 12 * 12 if rule["positive_rule"] == "share" else 25
    for split in SPLITS:
        areas = {sample.id: int(sample.masks.sum()) for sample in everything.samples(split)}
        judged = {sample.id: bool(sample.labels[0]) for sample in dataset.samples(split)}
        middle = {name for name, area in areas.items() if 0 < area < least}
        assert middle
        handling = test if split == "test" else train
        assert judged.keys() == areas.keys() - (middle if handling == "drop" else set())
        for name, answer in judged.items():
            assert answer == (handling == "positive" if name in middle else areas[name] > 0)


def test_tables_of_labels(cells: dict[str, Any], tmp_path: Path) -> None:
    lines = "".join(f"cell{n}.png,{n % 2},{int(n > 3)},s{n // 3}\n" for n in range(9))
    labels = write_table(tmp_path / "labels.csv", "image,odd,large,slide\n" + lines)
    dataset = build(images=cells["images"], labels=labels, group="slide")
    assert dataset.info().classes == ("odd", "large")
    for sample in every_sample(dataset):
        number = int(sample.id[-1])
        assert sample.labels.tolist() == [number % 2 == 1, number > 3]
        assert sample.group == f"s{number // 3}"
        assert sample.masks is None
        assert sample.instances is None
    assert {len(dataset.samples(split)) for split in SPLITS} == {3}


def test_labels_with_masks_of_some_images(cells: dict[str, Any], tmp_path: Path) -> None:
    (Path(cells["masks"]) / "cell3.png").unlink()
    labels = write_table(tmp_path / "labels.csv", "name,cell\n" + "".join(f"cell{n},1\n" for n in range(9)))
    for sample in every_sample(build(**cells, labels=labels)):
        assert (sample.masks is None) == (sample.id == "cell3")
        assert sample.labels.tolist() == [True]


def test_one_folder_per_class(tmp_path: Path) -> None:
    for folder, count in (("ring", 3), ("fiber", 4), ("nothing", 5)):
        for number in range(count):
            write_tiff(tmp_path / folder / f"{number}.tif", RNG.random((2, 9, 8)).astype(np.float32))
    dataset = build(images=str(tmp_path), class_folders=True, negative_folder="nothing")
    assert (dataset.info().classes, dataset.info().channels) == (("fiber", "ring"), 2)
    samples = every_sample(dataset)
    assert len({sample.id for sample in samples}) == len(samples) == 12
    for sample in samples:
        assert sample.labels.tolist() == [sample.id.startswith("fiber/"), sample.id.startswith("ring/")]


def test_one_folder_of_masks_per_class_and_stacks_agree(cells: dict[str, Any], tmp_path: Path) -> None:
    for number in range(9):
        planes = RNG.random((2, 40, 33)) < 0.3
        write_tiff(tmp_path / "stacks" / f"cell{number}.tif", planes)
        for name, plane in zip(("a", "b"), planes, strict=True):
            write_png(tmp_path / name / f"cell{number}.png", plane)
    folders = {name: str(tmp_path / name) for name in ("b", "a")}
    apart = build(images=cells["images"], masks=folders, classes=("a", "b"))
    together = build(images=cells["images"], masks=str(tmp_path / "stacks"), classes=("a", "b"))
    for one, other in zip(every_sample(apart), every_sample(together), strict=True):
        assert one.instances is None
        np.testing.assert_array_equal(one.masks, other.masks)
    assert build(images=cells["images"], masks=folders).info().classes == ("b", "a")
    (tmp_path / "b" / "cell5.png").unlink()
    with pytest.raises(DataError, match="no mask for image 'cell5'"):
        build(images=cells["images"], masks=folders).info()


def test_groups_and_given_splits(cells: dict[str, Any], tmp_path: Path) -> None:
    rows = "".join(f"cell{n},{SPLITS[n % 3]},g{n % 3}\n" for n in range(9))
    index = write_table(tmp_path / "index.csv", "name,part,field\n" + rows)
    dataset = build(**cells, index=index, split="part", group="field", crop=20)
    for number, split in enumerate(SPLITS):
        assert {sample.group for sample in dataset.samples(split)} == {f"g{number}"}
    index = write_table(tmp_path / "cut.csv", "name,part,field\n" + rows.replace("cell3,train,g0", "cell3,train,g1"))
    with pytest.raises(DataError, match="group 'g1' is in both"):
        build(**cells, index=index, split="part", group="field").info()
    index = write_table(tmp_path / "odd.csv", "name,part\n" + "".join(f"cell{n},else\n" for n in range(9)))
    with pytest.raises(DataError, match=r"odd\.csv:2: expected train, valid, test or none in column 'part', got 'els"):
        build(**cells, index=index, split="part").info()


def test_an_image_whose_split_is_none_is_left_out(cells: dict[str, Any], tmp_path: Path) -> None:
    rows = "".join(f"cell{n},{'none' if n == 4 else SPLITS[n % 3]}\n" for n in range(9))
    (Path(cells["masks"]) / "cell4.png").unlink()  # it need not be annotated
    params = cells | {"index": write_table(tmp_path / "index.csv", "name,split\n" + rows)}
    assert {sample.id for sample in every_sample(build(**params))} == {f"cell{n}" for n in range(9) if n != 4}
    labels = "name,odd,part\n" + "".join(f"cell{n},{n % 2},{'none' if n < 3 else SPLITS[n % 3]}\n" for n in range(9))
    dataset = build(images=cells["images"], labels=write_table(tmp_path / "labels.csv", labels), split="part")
    assert {sample.id for sample in every_sample(dataset)} == {f"cell{n}" for n in range(3, 9)}


GROUPED = "image,nucleus,group\n" + "".join(f"cell{n}.png,{n % 2},f{n // 3}\n" for n in range(9))


@pytest.mark.parametrize("params", [{}, {"classes": ("nucleus",)}])
def test_a_column_named_group_keeps_its_images_together(
    cells: dict[str, Any], tmp_path: Path, params: dict[str, Any]
) -> None:
    labels = write_table(tmp_path / "labels.csv", GROUPED)
    dataset = build(images=cells["images"], labels=labels, **params)
    assert dataset.info().classes == ("nucleus",)
    groups = [{sample.group for sample in dataset.samples(split)} for split in SPLITS]
    assert sorted(map(sorted, groups)) == [["f0"], ["f1"], ["f2"]]


@pytest.mark.parametrize("class_folders", [False, True])
def test_without_a_column_of_groups_the_crops_of_an_image_stay_together(tmp_path: Path, class_folders: bool) -> None:
    names = [f"field{n}@y0x{16 * x}" for n in range(6) for x in range(5)]
    for number, name in enumerate(names):
        folder = tmp_path / "images" / (("no", "ring")[number % 2] if class_folders else "")
        write_png(folder / f"{name}.png", RNG.integers(0, 255, (16, 16)).astype(np.uint8))
    params: dict[str, Any] = {"images": str(tmp_path / "images"), "class_folders": class_folders}
    if class_folders:
        params["negative_folder"] = "no"
    else:
        rows = "".join(f"{name}.png,{number % 2}\n" for number, name in enumerate(names))
        params["labels"] = write_table(tmp_path / "labels.csv", "image,ring\n" + rows)
    groups = [{sample.group for sample in build(**params).samples(split)} for split in SPLITS]
    assert sorted(group for several in groups for group in several) == [f"field{n}" for n in range(6)]
    alone = {sample.group for sample in every_sample(build(**params, group=None))}
    assert len(alone) == len(names)


def test_a_column_of_groups_counts_more_than_the_names_of_crops(tmp_path: Path) -> None:
    rows = ""
    for number in range(9):
        write_png(tmp_path / "images" / f"a@y{number}x0.png", np.full((8, 8), number, np.uint8))
        rows += f"a@y{number}x0.png,{number % 2},g{number // 3}\n"
    labels = write_table(tmp_path / "labels.csv", "image,ring,group\n" + rows)
    samples = every_sample(build(images=str(tmp_path / "images"), labels=labels))
    assert {sample.group for sample in samples} == {"g0", "g1", "g2"}


def test_a_column_named_split_is_used(cells: dict[str, Any], tmp_path: Path) -> None:
    rows = "".join(f"cell{n},{SPLITS[n % 3]},g{n % 3}\n" for n in range(9))
    index = write_table(tmp_path / "index.csv", "name,split,group\n" + rows)
    dataset = build(**cells, index=index)
    for number, split in enumerate(SPLITS):
        assert {sample.id for sample in dataset.samples(split)} == {f"cell{n}" for n in range(number, 9, 3)}
        assert {sample.group for sample in dataset.samples(split)} == {f"g{number}"}
    labels = write_table(tmp_path / "labels.csv", GROUPED)
    index = write_table(tmp_path / "groups.csv", "name,width\n" + "".join(f"cell{n},33\n" for n in range(9)))
    both = build(images=cells["images"], labels=labels, index=index)
    assert {sample.group for sample in every_sample(both)} == {"f0", "f1", "f2"}


def test_default_columns_can_be_switched_off_or_be_classes(cells: dict[str, Any], tmp_path: Path) -> None:
    labels = write_table(tmp_path / "labels.csv", GROUPED)
    alone = build(images=cells["images"], labels=labels, group=None)
    assert {sample.group for sample in every_sample(alone)} == {f"cell{n}" for n in range(9)}
    rows = "".join(f"cell{n},{n % 2},{n % 2}\n" for n in range(9))
    labels = write_table(tmp_path / "classes.csv", "image,split,group\n" + rows)
    named = build(images=cells["images"], labels=labels, classes=("split", "group"))
    assert {sample.group for sample in every_sample(named)} == {f"cell{n}" for n in range(9)}
    with pytest.raises(DataError, match=r"got '0'; if the column is a class, list the classes"):
        build(images=cells["images"], labels=labels, classes=("group",)).info()


def test_limits_choose_at_random_but_always_the_same(cells: dict[str, Any]) -> None:
    few = [sample.id for sample in every_sample(build(**cells, limit=5))]
    assert len(few) == 5
    assert few == [sample.id for sample in every_sample(build(**cells, limit=5))]
    all_crops = {sample.id for sample in every_sample(build(**cells, crop=8))}
    crops = [sample.id for sample in every_sample(build(**cells, crop=8, max_crops_per_image=3))]
    assert len(crops) == 27
    assert set(crops) < all_crops
    # Which crops are chosen does not depend on which other images there are.
    limited = {sample.id for sample in every_sample(build(**cells, crop=8, max_crops_per_image=3, limit=5))}
    assert len(limited) == 15
    assert limited < set(crops)


def test_whole_images_are_normalised_before_they_are_cropped(cells: dict[str, Any]) -> None:
    cells = cells | {"normalisation": {"kind": "min-max"}}
    whole = {sample.id: sample for sample in every_sample(build(**cells))}
    for sample in whole.values():
        assert (sample.image.min(), sample.image.max()) == (0, 1)
    for crop in every_sample(build(**cells, crop=16)):
        name, _, place = crop.id.partition("@y")
        y, x = map(int, place.split("x"))
        np.testing.assert_array_equal(crop.image, whole[name].image[:, y : y + 16, x : x + 16])


def test_a_normalisation_fitted_to_the_training_images_travels(cells: dict[str, Any]) -> None:
    raw = build(**cells)
    fitted = build(**cells | {"normalisation": {"kind": "mean-sd", "scope": "train"}})
    pixels = np.concatenate([sample.image.ravel() for sample in fitted.samples("train")])
    assert pixels.mean() == pytest.approx(0, abs=1e-5)
    assert pixels.std() == pytest.approx(1, abs=1e-5)
    normalisation = fitted.info().normalisation
    assert normalisation.kind == "fixed"
    for one, other in zip(raw.samples("test"), fitted.samples("test"), strict=True):
        np.testing.assert_array_equal(normalisation.apply(one.image), other.image)


def test_the_fingerprint_follows_parameters_and_bytes_but_neither_place_nor_name(
    cells: dict[str, Any], tmp_path: Path
) -> None:
    fingerprint = build(**cells).info().fingerprint
    assert build(**cells).info().fingerprint == fingerprint
    for change in ({"crop": 16}, {"share": 0.1}, {"classes": ["nucleus"]}, {"limit": 8}):
        assert build(**cells, **change).info().fingerprint != fingerprint
    assert build(**cells, share=0, stride=None).info().fingerprint == fingerprint
    renamed = build(**cells | {"name": "Cells", "licence": "CC0 1.0", "citation": "Nobody"}).info()
    assert (renamed.fingerprint, renamed.name, renamed.licence, renamed.citation) == (
        fingerprint,
        "Cells",
        "CC0 1.0",
        "Nobody",
    )
    (tmp_path / "moved").mkdir()
    for folder in ("images", "masks"):
        (tmp_path / folder).rename(tmp_path / "moved" / folder)
    moved = cells | {folder: str(tmp_path / "moved" / folder) for folder in ("images", "masks")}
    assert build(**moved).info().fingerprint == fingerprint
    mask = read_labels(tmp_path / "moved" / "masks" / "cell0.png").astype(np.uint16)
    mask[0, 0] = 1
    write_png(tmp_path / "moved" / "masks" / "cell0.png", mask)
    assert build(**moved).info().fingerprint != fingerprint


def test_paths_begin_at_the_variable(cells: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = cells | {"images": "$MICRAFRAME_DATA/images", "masks": "$MICRAFRAME_DATA/masks"}
    monkeypatch.setenv("MICRAFRAME_DATA", str(tmp_path))
    assert build(**params).info().fingerprint == build(**cells).info().fingerprint
    monkeypatch.delenv("MICRAFRAME_DATA")
    with pytest.raises(ConfigError, match="MICRAFRAME_DATA is not set; set it"):
        build(**params).info()


def test_unlabelled_images_are_named_or_skipped(cells: dict[str, Any]) -> None:
    (Path(cells["masks"]) / "cell7.png").unlink()
    with pytest.raises(DataError, match=r"got none of 1: cell7\.png; .*unlabelled: skip"):
        build(**cells).info()
    assert "cell7" not in {sample.id for sample in every_sample(build(**cells, unlabelled="skip"))}
    for path in Path(cells["masks"]).iterdir():
        path.unlink()
    for unlabelled in ("error", "skip"):
        with pytest.raises(
            DataError, match=r"masks is empty; expected masks named like the images, such as cell0\.png"
        ):
            build(**cells, unlabelled=unlabelled).info()


@pytest.mark.parametrize("unlabelled", ["error", "skip", "negative"])
def test_masks_with_other_names_than_the_images_are_named(cells: dict[str, Any], unlabelled: str) -> None:
    for path in Path(cells["masks"]).iterdir():
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    message = r"9 masks found, none named like an image; the first is cell0_mask\.png, expected cell0\.png"
    with pytest.raises(DataError, match=rf"masks: {message}"):
        build(**cells, unlabelled=unlabelled).info()


def test_a_table_without_any_answer_is_named(cells: dict[str, Any], tmp_path: Path) -> None:
    labels = write_table(tmp_path / "labels.csv", "image,a,b\n" + "".join(f"cell{n}.png,,\n" for n in range(9)))
    with pytest.raises(DataError, match=r"labels\.csv: expected 0 or 1, got only empty cells; fill in some$"):
        build(images=cells["images"], labels=labels, unlabelled="skip").info()


@pytest.mark.parametrize(
    ("labelled", "message"),
    [
        (2, r"of at least 3 images to fill train, valid, test, got 10 crops of 2 images; label .*, or set test: 0$"),
        (1, r"got 5 crops of 1 image; label crops of other images$"),
    ],
)
def test_too_few_images_with_labelled_crops_are_counted(tmp_path: Path, labelled: int, message: str) -> None:
    rows = "image,group,ring\n"
    for field in range(3):
        for x in range(5):
            write_png(tmp_path / "images" / f"f{field}@y0x{x}.png", np.full((8, 8), x, np.uint8))
            rows += f"f{field}@y0x{x}.png,f{field},{x % 2 if field < labelled else ''}\n"
    labels = write_table(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match=message):
        build(images=str(tmp_path / "images"), labels=labels, unlabelled="skip").info()


def test_masks_of_another_kind_are_noticed(cells: dict[str, Any]) -> None:
    assert build(**cells).mask_warning() == ""
    text = build(**cells | {"mask_kind": "binary"}).mask_warning()
    assert re.match(r"7 of 9 masks have several values other than 0 \(first: \S+cell2\.png\)", text)
    assert "set mask_kind: instances" in text
    assert "one file per class" in text
    for path in Path(cells["masks"]).iterdir():
        write_png(path, read_labels(path) > 0)
    assert build(**cells | {"mask_kind": "binary"}).mask_warning() == ""
    assert build(**cells).mask_warning(most=3).endswith("if masks are binary, set mask_kind: binary")


def test_a_broken_image_is_named_and_the_others_are_read(cells: dict[str, Any]) -> None:
    path = Path(cells["images"]) / "cell4.png"
    path.write_bytes(path.read_bytes()[:200])
    dataset, read, failed = build(**cells), [], []
    for split in SPLITS:
        samples = dataset.samples(split)
        for number in range(len(samples)):
            try:
                read.append(samples[number].id)
            except DataError as error:
                failed.append(str(error))
    assert len(read) == 8
    assert len(failed) == 1
    assert str(path) in failed[0]


def test_a_mask_that_does_not_fit_its_image_is_named_with_both_sizes(cells: dict[str, Any]) -> None:
    write_png(Path(cells["masks"]) / "cell2.png", np.ones((40, 34), np.uint16))
    with pytest.raises(DataError, match=r"images/cell2\.png.*\(40, 33\).*\(40, 34\).*masks/cell2\.png"):
        every_sample(build(**cells))


def test_an_image_with_other_channels_is_named(cells: dict[str, Any]) -> None:
    write_png(Path(cells["images"]) / "cell6.png", np.ones((40, 33, 3), np.uint8))
    with pytest.raises(DataError, match=r"cell6\.png: expected 1 channel, as in .*cell0\.png, got 3"):
        every_sample(build(**cells))


def test_labels_of_images_that_are_not_there_are_named(cells: dict[str, Any], tmp_path: Path) -> None:
    labels = write_table(tmp_path / "labels.csv", "image,a\ncell1.png,1\nlost.png,0\n")
    with pytest.raises(DataError, match=r"labels\.csv:3: image 'lost' not found in .*images"):
        build(images=cells["images"], labels=labels).info()


def test_folders_without_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: image folder not found"):
        build(images=str(tmp_path / "nowhere"), masks=str(tmp_path)).info()
    with pytest.raises(DataError, match="holds no images"):
        build(images=str(tmp_path), masks=str(tmp_path)).info()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "at least one of labels"),
        ({"labels": "a", "class_folders": True}, "give one of them"),
        ({"labels": "a", "crop": 32}, "labels of crops follow from masks"),
        ({"labels": "a", "masks": "b", "crop": 32}, "do not hold for crops"),
        ({"masks": "b", "crop": 32, "stride": 33}, "would skip pixels"),
        ({"masks": "b", "scale": 0.5, "pixel_size_um": 1, "target_pixel_size_um": 2}, "give one of them"),
        ({"masks": "b", "target_pixel_size_um": 2}, "needs the pixel_size_um"),
        ({"masks": "b", "group": "slide"}, "columns of a table"),
        ({"masks": "b", "valid": 0.5, "test": 0.5}, "nothing for training"),
        ({"masks": "b", "negative_folder": "x"}, "negative_folder needs class_folders"),
        ({"masks": {"a": "x"}, "normalisation": {"kind": "best"}}, "normalisation.kind"),
        ({"mask": "b"}, "did you mean 'masks'"),
    ],
)
def test_parameters_that_contradict_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(images="images", **params)


def test_classes_and_folders_of_masks_must_match(cells: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="masks of the classes a, got masks of b"):
        build(images=cells["images"], masks={"b": cells["masks"]}, classes=("a",)).info()
    with pytest.raises(DataError, match=r"cell\d\.png: expected masks .*for each of a, b, got shape \(40, 33\)"):
        build(images=cells["images"], masks=cells["masks"], classes=("a", "b")).samples("train")


@pytest.mark.parametrize("name", ["../../x", "/etc/x", ".hidden", "a/b", "a\nb", " a"])
def test_a_name_that_leads_out_of_a_folder_is_refused(cells: dict[str, Any], name: str) -> None:
    with pytest.raises(DataError, match="dataset name: expected letters"):
        build(**cells, name=name).info()


def test_the_default_name_is_always_a_valid_name(cells: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "images").rename(tmp_path / "cells (1)")
    assert build(**cells | {"images": str(tmp_path / "cells (1)")}).info().name == "cells _1_"
    assert build(**cells | {"images": str(tmp_path / "cells (1)"), "name": "Zellen 2.0"}).info().name == "Zellen 2.0"


BOXES = """image,class,xmin,ymin,xmax,ymax,difficult
cell1.png,ring,2,3,12,9,0
cell1.png,ring,-4,30,6,45,1
cell2,blob,8,8,24,24,0
cell3,,,,,,
"""


def test_boxes_of_whole_images(cells: dict[str, Any], tmp_path: Path) -> None:
    boxes = write_table(tmp_path / "boxes.csv", BOXES)
    dataset = build(images=cells["images"], boxes=boxes, unlabelled="negative")
    assert dataset.info().classes == ("blob", "ring")
    samples = {sample.id: sample for sample in every_sample(dataset)}
    assert len(samples) == 9
    assert samples["cell1"].labels.tolist() == [False, True]
    assert [part.tolist() for part in samples["cell1"].boxes] == [[], [[3, 2, 9, 12], [30, 0, 40, 6]]]
    assert samples["cell2"].labels.tolist() == [True, False]
    for name in ("cell0", "cell3"):
        assert not samples[name].labels.any()
        assert [part.shape for part in samples[name].boxes] == [(0, 4)] * 2
        assert samples[name].masks is None
        assert samples[name].points is None
    with pytest.raises(DataError, match=r"got none of 6: cell0\.png.*or negative"):
        build(images=cells["images"], boxes=boxes).info()
    few = build(images=cells["images"], boxes=boxes, unlabelled="skip")
    assert sorted(sample.id for sample in every_sample(few)) == ["cell1", "cell2", "cell3"]


def test_crops_get_clipped_boxes_and_labels_by_the_rule(cells: dict[str, Any], tmp_path: Path) -> None:
    boxes = write_table(tmp_path / "boxes.csv", BOXES)
    params = {"images": cells["images"], "boxes": boxes, "unlabelled": "negative", "crop": 16}
    touching = {sample.id: sample for sample in every_sample(build(**params))}
    assert touching["cell2@y0x0"].labels.tolist() == [True, False]
    assert touching["cell2@y0x0"].boxes[0].tolist() == [[8, 8, 16, 16]]
    assert touching["cell2@y16x16"].boxes[0].tolist() == [[0, 0, 8, 8]]
    assert touching["cell2@y24x17"].boxes[0].tolist() == []
    for sample in touching.values():
        assert sample.labels.tolist() == [len(part) > 0 for part in sample.boxes]
    # A quarter of the box lies in each of four crops.
    for share, expected in ((0.25, True), (0.26, False)):
        rule = {"positive_rule": "visible", "visible": share}
        handling = {"ambiguous_train_crops": "negative", "ambiguous_test_crops": "negative"}
        judged = {sample.id: sample for sample in every_sample(build(**params, **rule, **handling))}
        assert judged["cell2@y0x0"].labels.tolist() == [expected, False]
        dropped = {sample.id for sample in every_sample(build(**params, **rule, ambiguous_test_crops="drop"))}
        assert ("cell2@y0x0" in dropped) == expected


def test_points_of_images_and_crops(cells: dict[str, Any], tmp_path: Path) -> None:
    points = write_table(tmp_path / "points.csv", "image,x,y\ncell1,3,2\ncell1,20,30\ncell2,15,16\n")
    params = {"images": cells["images"], "points": points, "unlabelled": "negative", "classes": ["spot"]}
    whole = {sample.id: sample for sample in every_sample(build(**params))}
    assert whole["cell1"].points[0].tolist() == [[2, 3], [30, 20]]
    crops = {sample.id: sample for sample in every_sample(build(**params, crop=16))}
    assert crops["cell2@y16x0"].points[0].tolist() == [[0, 15]]
    assert sum(len(crop.points[0]) for name, crop in crops.items() if name.startswith("cell2@")) == 1
    for crop in crops.values():
        assert crop.labels.tolist() == [len(crop.points[0]) > 0]
    with pytest.raises(DataError, match="points have no area"):
        build(**params, positive_rule="object").samples("train")
    with pytest.raises(DataError, match="points have no area"):
        build(**params, share=0.1).samples("train")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("lost,ring,1,1,2,2,0", "image 'lost' not found"),
        ("cell4,,1,1,2,2,0", "expected one of the classes ring, blob, got ''"),
        ("cell4,ring,1,1,nan,2,0", "finite number"),
        ("cell4,ring,33,1,40,2,0", "lies outside its image of \\(H, W\\) = \\(40, 33\\)"),
        ("cell4,ring,1,1,2", "expected 7 cells"),
    ],
)
def test_wrong_rows_of_a_table_of_boxes_are_named(
    cells: dict[str, Any], tmp_path: Path, row: str, message: str
) -> None:
    boxes = write_table(tmp_path / "boxes.csv", BOXES + row + "\n")
    dataset = build(images=cells["images"], boxes=boxes, classes=("ring", "blob"), unlabelled="negative")
    with pytest.raises(DataError, match=rf"boxes\.csv:6: .*{message}"):
        every_sample(dataset)


@pytest.mark.parametrize("kind", ["boxes", "points"])
def test_classes_choose_rows_of_a_table(cells: dict[str, Any], tmp_path: Path, kind: str) -> None:
    text = BOXES if kind == "boxes" else "image,class,x,y\ncell1,ring,3,2\ncell1,ring,4,4\ncell2,blob,9,9\ncell3,,,\n"
    table = write_table(tmp_path / f"{kind}.csv", text)
    dataset = build(images=cells["images"], **{kind: table}, classes=("ring",), unlabelled="skip")
    assert dataset.info().classes == ("ring",)
    samples = {sample.id: sample for sample in every_sample(dataset)}
    # cell2 has rows of the other class only: somebody has looked at it, and it has no ring
    assert {name: sample.labels.tolist() for name, sample in samples.items()} == {
        "cell1": [True],
        "cell2": [False],
        "cell3": [False],
    }
    assert [len(getattr(samples[name], kind)[0]) for name in ("cell1", "cell2", "cell3")] == [2, 0, 0]


def test_classes_choose_rows_of_a_table_of_labels(cells: dict[str, Any], tmp_path: Path) -> None:
    labels = write_table(tmp_path / "labels.csv", "image,class\ncell0,ring\ncell0,blob\ncell1,blob\ncell2,\n")
    dataset = build(images=cells["images"], labels=labels, classes=("ring",), unlabelled="skip")
    assert {sample.id: sample.labels.tolist() for sample in every_sample(dataset)} == {
        "cell0": [True],
        "cell1": [False],
        "cell2": [False],
    }


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("Ring",),
            "expected rows of the classes Ring, got blob, ring; write the names in 'classes' as the table does",
        ),
        (("ring", "Blob"), "expected rows of the classes Blob, got blob, ring"),
    ],
)
def test_a_class_that_a_table_calls_otherwise_is_named(
    cells: dict[str, Any], tmp_path: Path, classes: tuple[str, ...], message: str
) -> None:
    boxes = write_table(tmp_path / "boxes.csv", BOXES)
    with pytest.raises(DataError, match=rf"boxes\.csv: {message}"):
        build(images=cells["images"], boxes=boxes, classes=classes, unlabelled="negative").info()


def test_a_class_may_be_absent_or_known_from_elsewhere(cells: dict[str, Any], tmp_path: Path) -> None:
    boxes = write_table(tmp_path / "boxes.csv", BOXES)
    params = {"images": cells["images"], "boxes": boxes, "unlabelled": "negative"}
    absent = build(**params, classes=("ring", "blob", "spot"))
    assert [absent.info().classes, sum(sample.labels[2] for sample in every_sample(absent))] == [
        ("ring", "blob", "spot"),
        0,
    ]
    points = write_table(tmp_path / "points.csv", "image,class,x,y\ncell1,spot,3,2\ncell1,ring,3,2\n")
    assert build(**params, points=points, classes=("spot", "ring")).info().classes == ("spot", "ring")
    lines = "".join(f"cell{number},{number % 2},1\n" for number in range(9))
    labels = write_table(tmp_path / "labels.csv", f"image,spot,ring\n{lines}")
    assert build(**params, labels=labels, classes=("spot", "ring")).info().classes == ("spot", "ring")
    only = write_table(tmp_path / "only.csv", "image,class,x,y\ncell1,dust,3,2\n")
    with pytest.raises(DataError, match=r"only\.csv: expected rows of the classes ring, got dust"):
        build(**params, points=only, classes=("ring",)).info()


def test_rows_of_other_classes_are_counted(cells: dict[str, Any], tmp_path: Path) -> None:
    boxes = write_table(tmp_path / "boxes.csv", BOXES)
    params = {"images": cells["images"], "boxes": boxes, "unlabelled": "negative"}
    named = [row.split(",")[1] for row in BOXES.splitlines()[1:]]
    assert build(**params, classes=("ring",)).other_classes() == {"blob": named.count("blob")}
    assert build(**params).other_classes() == {}


def test_the_fingerprint_follows_boxes_and_groups(cells: dict[str, Any], tmp_path: Path) -> None:
    params = {"images": cells["images"], "unlabelled": "negative"}
    prints = {
        build(**params, boxes=write_table(tmp_path / "boxes.csv", text)).info().fingerprint
        for text in (BOXES, BOXES.replace("-4", "-3"))
    }
    rows = "".join(f"cell{n},g{n}\n" for n in range(9))
    for text in (rows, rows.replace("g8", "g7")):
        index = write_table(tmp_path / "index.csv", "name,field\n" + text)
        prints.add(build(**cells, index=index, group="field").info().fingerprint)
    assert len(prints) == 4


@pytest.mark.parametrize("mask_kind", ["binary", "instances"])
def test_unlabelled_images_can_be_negative(cells: dict[str, Any], mask_kind: str) -> None:
    (Path(cells["masks"]) / "cell7.png").unlink()
    dataset = build(**cells | {"mask_kind": mask_kind}, unlabelled="negative", crop=16)
    crops = [sample for sample in every_sample(dataset) if sample.id.startswith("cell7@")]
    assert len(crops) == len(grid((40, 33), 16, 16))
    for crop in crops:
        assert not crop.labels.any()
        assert not crop.masks.any()
        assert (crop.instances is None) == (mask_kind == "binary")


def test_images_that_a_table_of_labels_leaves_out_can_be_negative(cells: dict[str, Any], tmp_path: Path) -> None:
    labels = write_table(tmp_path / "labels.csv", "image,ring,blob\ncell1,1,0\n")
    samples = every_sample(build(images=cells["images"], labels=labels, unlabelled="negative"))
    assert len(samples) == 9
    for sample in samples:
        assert sample.labels.tolist() == [sample.id == "cell1", False]


def test_boxes_and_points_keep_a_datasets_promises(cells: dict[str, Any], tmp_path: Path) -> None:
    params = {
        "images": cells["images"],
        "boxes": write_table(tmp_path / "boxes.csv", BOXES),
        "points": write_table(tmp_path / "points.csv", "image,class,x,y\ncell4,ring,3,2\n"),
        "unlabelled": "negative",
        "scale": 0.7,
    }
    check("dataset", "folder", **params)
    check("dataset", "folder", **params, crop=16, positive_rule="visible")


def test_images_and_annotation_are_resized_and_the_factor_recorded(cells: dict[str, Any], tmp_path: Path) -> None:
    boxes = write_table(tmp_path / "boxes.csv", "image,xmin,ymin,xmax,ymax\ncell1,1,1,6,6\n")
    points = write_table(tmp_path / "points.csv", "image,x,y\ncell1,3,3\n")
    raw = {sample.id: sample for sample in every_sample(build(**cells))}
    size = {"pixel_size_um": 0.2, "target_pixel_size_um": 0.1}
    for params, scale, pixel in ((size, 2.0, 0.1), ({"scale": 2}, 2.0, None), ({"scale": 0.5}, 0.5, None)):
        dataset = build(**cells, **params, boxes=boxes, points=points)
        assert (dataset.info().scale, dataset.info().pixel_size_um) == (scale, pixel)
        samples = {sample.id: sample for sample in every_sample(dataset)}
        for name, sample in samples.items():
            assert sample.image.shape == (1, round(40 * scale), round(33 * scale))
            assert sample.masks.shape == sample.image.shape
            assert sample.pixel_size_um == pixel
            assert sample.image.mean() == pytest.approx(raw[name].image.mean(), rel=0.1)
            if scale == 2:
                np.testing.assert_array_equal(sample.instances[..., ::2, ::2], raw[name].instances)
        np.testing.assert_allclose(
            samples["cell1"].boxes[0], [[scale, scale * 33 / 33, 6 * scale, 6 * scale]], atol=0.2 * scale
        )
        np.testing.assert_allclose(samples["cell1"].points[0], [[3.5 * scale - 0.5] * 2], atol=0.1)
    assert build(**cells).info().scale == 1


def test_a_pattern_finer_than_the_new_pixels_does_not_alias(cells: dict[str, Any]) -> None:
    stripes = np.zeros((40, 33), np.uint8)
    stripes[:, ::2] = 200
    write_png(Path(cells["images"]) / "cell5.png", stripes)
    sample = next(sample for sample in every_sample(build(**cells, scale=0.25)) if sample.id == "cell5")
    assert np.ptp(sample.image[..., :-1]) < 40


def test_crops_are_cut_from_resized_images(cells: dict[str, Any]) -> None:
    whole = {sample.id: sample for sample in every_sample(build(**cells, scale=0.6))}
    for crop in every_sample(build(**cells, scale=0.6, crop=8)):
        name, _, place = crop.id.partition("@y")
        y, x = map(int, place.split("x"))
        np.testing.assert_array_equal(crop.image, whole[name].image[:, y : y + 8, x : x + 8])
        np.testing.assert_array_equal(crop.masks, whole[name].masks[:, y : y + 8, x : x + 8])


def test_a_contact_class_has_a_role(cells: dict[str, Any], tmp_path: Path) -> None:
    folders = {"cell": cells["masks"], "contact": cells["masks"]}
    dataset = build(images=cells["images"], masks=folders, contact_class="contact")
    assert dataset.info().roles == ("object", "contact")
    with pytest.raises(ConfigError, match="contact_class: expected one of the classes cell, contact, got 'touch'"):
        build(images=cells["images"], masks=folders, contact_class="touch").info()


def test_a_contact_class_is_made_from_instances(cells: dict[str, Any], tmp_path: Path) -> None:
    params = cells | {"contact_class": "contact"}
    assert build(**params).info().classes == ("object", "contact")
    # Objects of 5 px are 3 px apart.
    for sample in every_sample(build(**params)):
        number = int(sample.id[-1])
        assert sample.labels.tolist() == [number > 0, number > 1]
        assert [part.max() for part in sample.instances] == [number, (number > 1) * sample.instances[1].max()]
    assert not any(sample.labels[1] for sample in every_sample(build(**params, contact_distance=1)))
    labels = write_table(
        tmp_path / "labels.csv", "name,contact,cell\n" + "".join(f"cell{n},{n % 2},1\n" for n in range(9))
    )
    dataset = build(**params, labels=labels)
    assert dataset.info().classes == ("cell", "contact")
    for sample in every_sample(dataset):  # what an annotator saw counts
        assert sample.labels.tolist() == [True, int(sample.id[-1]) % 2 == 1]
        assert len(sample.masks) == 2
    boxes = write_table(tmp_path / "boxes.csv", "image,xmin,ymin,xmax,ymax\ncell0,1,1,6,6\n")
    (Path(cells["masks"]) / "cell0.png").unlink()
    with pytest.raises(DataError, match=r"cell0.*expected masks with numbered objects"):
        every_sample(build(**params, boxes=boxes))


def test_an_image_that_is_too_large_is_a_data_error(cells: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("micraframe.datasets.sources.resize", too_large)
    with pytest.raises(DataError, match=r"cell\d\.png: too large for memory"):
        every_sample(build(**cells))


@pytest.mark.parametrize(
    ("name", "params", "positive"),
    [
        ("nuclei_fluo", {"mask_kind": "instances", "crop": 64, "group": "field_group", "limit": 40}, (0.4, 0.95)),
        ("t98g_phase", {"mask_kind": "instances", "crop": 128, "positive_rule": "object", "limit": 4}, (0.3, 0.95)),
        ("pfc_neurons", {"crop": 128, "share": 0.05, "limit": 4, "max_crops_per_image": 20}, (0.1, 0.6)),
    ],
)
def test_real_images_give_positive_and_negative_crops(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str, params: dict[str, Any], positive: tuple[float, float]
) -> None:
    monkeypatch.setenv("MICRAFRAME_DATA", str(data))
    root = f"$MICRAFRAME_DATA/{name}"
    dataset = build(images=f"{root}/images", masks=f"{root}/masks", index=f"{root}/index.csv", **params)
    labels = [sample.labels[0] for split in SPLITS for sample in dataset.samples(split)]
    assert positive[0] < np.mean(labels) < positive[1]
    assert dataset.info().name == name


@pytest.mark.parametrize(
    ("name", "params", "positive"),
    [
        ("bccd_blood", {"crop": 160, "limit": 30}, {"WBC": (0.2, 0.5), "Platelets": (0.05, 0.25), "RBC": (0.7, 1)}),
        ("bccd_blood", {"crop": 160, "limit": 30, "classes": ["WBC"]}, {"WBC": (0.2, 0.5)}),
        ("pvivax_bbbc041", {"crop": 256, "classes": ["schizont", "trophozoite", "difficult", "gametocyte"]}, {}),
        ("pvivax_bbbc041_sample", {"crop": 128, "test": 0.25, "valid": 0.25}, {"red blood cell": (0.5, 1)}),
    ],
)
def test_real_tables_of_boxes(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str, params: dict[str, Any], positive: dict[str, Any]
) -> None:
    monkeypatch.setenv("MICRAFRAME_DATA", str(data))
    root = f"$MICRAFRAME_DATA/{name}"
    dataset = build(images=f"{root}/images", boxes=f"{root}/boxes.csv", **params, unlabelled="negative")
    samples = every_sample(dataset)
    shares = dict(zip(dataset.info().classes, np.mean([sample.labels for sample in samples], axis=0), strict=True))
    for class_, (low, high) in positive.items():
        assert low < shares[class_] < high
    for sample in samples[:50]:
        for boxes, label in zip(sample.boxes, sample.labels, strict=True):
            assert (len(boxes) > 0) == label
            assert (boxes[:, :2] >= 0).all()
            assert (boxes[:, 2:] <= sample.image.shape[1:]).all()
