from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from micraframe_paper.datasets.p_vivax import INFECTED, read_smears

from micraframe import registry
from micraframe.annotators.annotate import annotate_samples
from micraframe.datasets.crops import grid
from micraframe.errors import DataError
from micraframe.images import write_png
from micraframe.pipeline import fit
from micraframe.testing import check
from micraframe.types import Annotation, FitContext

SIZE = (70, 90)
CELLS = [
    ("red blood cell", (5, 5, 25, 25)),
    ("trophozoite", (10, 40, 30, 60)),
    ("leukocyte", (40, 40, 60, 60)),
    ("ring", (60, 80, 76, 96)),  # reaches beyond the image
    ("difficult", (40, 5, 60, 25)),
]
SMALL = {"crop": 32, "stride": 16, "valid": 0.34}


def entry(name, cells):
    corners = [{"minimum": {"r": y0, "c": x0}, "maximum": {"r": y1, "c": x1}} for _, (y0, x0, y1, x1) in cells]
    objects = [{"bounding_box": box, "category": cell[0]} for box, cell in zip(corners, cells, strict=True)]
    shape = {"r": SIZE[0], "c": SIZE[1], "channels": 3}
    return {"image": {"checksum": "0" * 32, "pathname": f"/images/{name}.png", "shape": shape}, "objects": objects}


def write_images(folder, names):
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate(names):
        image = np.random.default_rng(number).integers(0, 256, (*SIZE, 3)) * np.array([1, 0.5, 0.2])
        write_png(folder / "images" / f"{name}.png", image.astype(np.uint8))


def write(folder):
    """Write six images in BBBC041's layout: the first has all kinds of cells, the others red blood cells."""
    train, test = ["t1", "t2", "t3", "t4"], ["e1", "e2"]
    write_images(folder, [*train, *test])
    for file, names in (("training", train), ("test", test)):
        entries = [entry(name, CELLS if name[1] == "1" else CELLS[:1]) for name in names]
        (folder / f"{file}.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "malaria")


def build(root, **params):
    return registry.build("dataset", "p-vivax", root=str(root), **(SMALL | params))


def test_conformance(root):
    check("dataset", "p-vivax", root=str(root), **SMALL)


def test_splits_are_those_of_the_files(root):
    dataset = build(root, crop=None, stride=None)
    names = {split: {sample.id for sample in dataset.samples(split)} for split in ("train", "valid", "test")}
    assert names["train"] | names["valid"] == {"t1", "t2", "t3", "t4"}
    assert (len(names["train"]), names["test"]) == (3, {"e1", "e2"})


def test_boxes_of_infected_cells_are_the_class(root):
    dataset = build(root, crop=None, stride=None, positive_rule="share")
    assert dataset.info().classes == ("infected",)
    first, second = dataset.samples("test")
    assert sorted(first.boxes[0].tolist()) == [[10, 40, 30, 60], [60, 80, 70, 90]]
    assert (first.labels.tolist(), second.labels.tolist(), len(second.boxes[0])) == ([True], [False], 0)
    (first, _) = build(root, crop=None, stride=None, infected=["leukocyte", "difficult"]).samples("test")
    assert first.boxes[0].tolist() == [[40, 40, 60, 60], [40, 5, 60, 25]]


def test_a_crop_with_five_percent_of_an_infected_cell_is_positive(root):
    samples = {sample.id: sample for sample in build(root).samples("test")}
    infected = [box for name, box in CELLS if name in ("trophozoite", "ring")]
    expected = {}
    for name, cells in (("e1", infected), ("e2", [])):
        for y, x, height, width in grid(SIZE, 32, 16):
            shares = [
                max(0, min(y1, y + height) - max(y0, y))
                * max(0, min(x1, x + width) - max(x0, x))
                / ((y1 - y0) * (x1 - x0))
                for y0, x0, y1, x1 in cells
            ]
            expected[f"{name}@y{y}x{x}"] = max(shares, default=0) >= 0.05
    assert {id_: sample.labels[0] for id_, sample in samples.items()} == expected
    assert 0 < sum(expected.values()) < len(expected)


def test_each_channel_of_each_image_is_whitened(root):
    for sample in build(root, crop=None, stride=None).samples("train"):
        np.testing.assert_allclose(sample.image.mean(axis=(1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(sample.image.std(axis=(1, 2)), 1, rtol=1e-5)


def test_the_folder_above_is_accepted_and_is_the_same_dataset(root):
    assert build(root.parent).info() == build(root).info()


def test_a_table_of_boxes_is_read_too(tmp_path):
    write_images(tmp_path, ["a", "b", "c", "d", "e"])
    (tmp_path / "boxes.csv").write_text("image,class,xmin,ymin,xmax,ymax\na,ring,40,10,60,30\na,leukocyte,1,2,3,4\n")
    dataset = build(tmp_path, crop=None, stride=None)
    check("dataset", "p-vivax", root=str(tmp_path), **SMALL)
    samples = [sample for split in ("train", "valid", "test") for sample in dataset.samples(split)]
    assert {sample.id: sample.boxes[0].tolist() for sample in samples} == {
        "a": [[10, 40, 30, 60]],
        **{name: [] for name in "bcde"},
    }


def test_a_table_without_categories_is_refused(tmp_path):
    write_images(tmp_path, ["a", "b", "c"])
    (tmp_path / "boxes.csv").write_text("image,xmin,ymin,xmax,ymax\na,40,10,60,30\n")
    with pytest.raises(DataError, match="expected a column 'class', got xmin, ymin, xmax, ymax; add it"):
        build(tmp_path).info()


@pytest.mark.parametrize("content", ["", "{}x", '{"image": 1}', '[{"image": {"pathname": "a"}}]', "[3]"])
def test_a_broken_annotation_is_named(tmp_path, content):
    (tmp_path / "test.json").write_text(content)
    with pytest.raises(DataError, match="test.json: expected BBBC041's annotation"):
        read_smears(tmp_path / "test.json")


def test_a_missing_annotation_is_an_error(tmp_path):
    with pytest.raises(DataError, match="test.json: cannot be read"):
        read_smears(tmp_path / "test.json")
    with pytest.raises(DataError, match="expected the files of p-vivax, found no malaria/training.json"):
        build(tmp_path).info()


def test_the_published_annotation_is_read(data):
    smears = read_smears(data / "pvivax_bbbc041_sample/bbbc041_test.json")
    counts = Counter({name: 0 for smear in smears for name in smear.boxes})
    for smear in smears:
        counts.update({name: len(boxes) for name, boxes in smear.boxes.items()})
    assert (len(smears), {smear.size for smear in smears}) == (120, {(1383, 1944)})
    assert counts == {
        "red blood cell": 5614,
        "ring": 169,
        "trophozoite": 111,
        "gametocyte": 12,
        "schizont": 11,
        "difficult": 5,
    }
    assert sum(counts[name] for name in INFECTED) == 303  # the paper's infected test cells
    for smear in smears:
        assert all((boxes[:, :2] < boxes[:, 2:]).all() for boxes in smear.boxes.values())


def test_the_shared_subset(data):
    dataset = registry.build("dataset", "p-vivax", root=str(data / "pvivax_bbbc041"))
    annotations = [source.read_annotation() for source in dataset.sources()]
    assert len(annotations) == 17
    assert sum(len(annotation.boxes[0]) for annotation in annotations) == 24  # and 4 that are difficult
    crops = dataset.samples("train")
    labels = [key.labels[0] for key in crops._keys]
    assert 0 < sum(labels) < len(labels) / 4
    sample = crops[labels.index(True)]
    assert (sample.image.shape, sample.labels.tolist(), len(sample.boxes[0]) > 0) == ((3, 256, 256), [True], True)


def test_a_window_slides_over_whole_smears(root):
    dataset = build(root, whole_images=["test"])
    labeller = registry.build("annotator", "image-level")
    train, valid = (
        annotate_samples(dataset.samples(split), labeller, frozenset({Annotation.LABELS}), 0)[0]
        for split in ("train", "valid")
    )
    training = {"epochs": 1, "batch_size": 8, "early_stopping": None}
    params = {"backbone": {"name": "unet-encoder", "params": {"widths": [4, 8]}}, "training": training}
    method = {"classifier": {"name": "micra-net", "params": params}}
    trained = fit({"name": "sliding-window", "params": method}, train, valid, dataset.info(), FitContext(device="cpu"))
    test = dataset.samples("test")
    found = list(trained.predict(sample.image for sample in test))
    assert [sample.image.shape[1:] for sample in test] == [SIZE, SIZE]
    assert [prediction.scores.maps.shape[1:] for prediction in found] == [SIZE, SIZE]
    assert {sample.id: len(sample.boxes[0]) for sample in test} == {"e1": 2, "e2": 0}
