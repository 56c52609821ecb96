"""`docs/opens-in.md`: what predict writes, read by the libraries on which other programs build."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import geojson
import imageio.v3 as imageio
import numpy as np
import polars
import pytest
import roifile
import tifffile
from pydantic import BaseModel, ConfigDict, Field

from micraframe.batch import predict_files
from micraframe.config import Choice
from micraframe.images import read_class_names, read_labels, read_pixel_size, write_tiff
from micraframe.interfaces import Model
from micraframe.pipeline import Pipeline
from micraframe.registry import build
from micraframe.sweep.proposals import Proposal, write_geojson
from micraframe.types import DatasetInfo, Normalisation, Scores

PAGE = (Path(__file__).parents[2] / "docs" / "opens-in.md").read_text(encoding="utf-8")
CLASSES = ("cell", "nucleus")
SIZE = (40, 60)
INFO = DatasetInfo("two", CLASSES, 2, Normalisation("fixed", scale=(255.0,) * 2), "0" * 64)
PIXEL_UM = 0.25


class ChannelsAsMaps(Model):
    def score(self, images, rule):
        for image in images:
            presence = image.max(axis=(1, 2))
            yield Scores(presence, classes := tuple(rule(presence)), image[list(classes)])

    def state(self):
        return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Predictions of an image whose model was trained at half its size."""
    root = tmp_path_factory.mktemp("opens")
    image = np.zeros((2, *SIZE), np.uint8)
    image[0, 4:20, 4:20] = image[0, 24:36, 40:56] = image[1, 8:12, 8:12] = 200
    write_tiff(root / "NAME.tif", image)
    info = dataclasses.replace(INFO, scale=0.5, pixel_size_um=2 * PIXEL_UM)
    for head in ("instance", "detection"):
        decide = build("head", head, mask_threshold={"name": "fixed", "value": 0.5})
        pipeline = Pipeline(Choice(name="test/channels"), ChannelsAsMaps(), head, decide, info)
        done = predict_files(pipeline, [root / "NAME.tif"], root / head, scores=True)
        assert done == (1, {})
    return root


def test_the_page_lists_exactly_the_files_that_are_written(folder):
    of_predict, _ = PAGE.split("`micraframe sweep` writes")
    listed = set(re.findall(r"^\| `([^`]+)`", of_predict, re.MULTILINE))
    assert listed == {file.name for head in ("instance", "detection") for file in (folder / head).glob("[!.]*")}


@pytest.mark.parametrize(
    ("name", "dtype"), [("NAME.tif", "uint8"), ("NAME-labels.tif", "uint16"), ("NAME-scores.tif", "float32")]
)
def test_tiffs_are_stacks_of_named_planes_with_a_pixel_size(folder, name, dtype):
    path = folder / "instance" / name
    assert read_class_names(path) == CLASSES
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert f'PhysicalSizeX="{PIXEL_UM}"' in file.ome_metadata
        (series,) = file.series
        assert (series.axes, series.shape, series.dtype) == ("CYX", (2, *SIZE), dtype)
        # What ImageJ's own reader needs: as many equal pages, deflate without predictor, resolution per centimetre.
        assert (len(file.pages), file.is_bigtiff) == (2, False)
        for page in (one.aspage() for one in file.pages):
            assert page.compression in (tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.ADOBE_DEFLATE)
            assert page.predictor == tifffile.PREDICTOR.NONE
            assert page.tags.valueof("ResolutionUnit") == tifffile.RESUNIT.CENTIMETER
            for axis in "XY":
                pixels, centimetres = page.tags.valueof(f"{axis}Resolution")
                assert pixels / centimetres == pytest.approx(1e4 / PIXEL_UM)


def test_values_are_as_the_page_says(folder):
    masks, labels, scores = (
        tifffile.imread(folder / "instance" / f"NAME{end}.tif") for end in ("", "-labels", "-scores")
    )
    assert np.unique(masks).tolist() == [0, 255]
    assert np.array_equal(labels > 0, masks > 0)
    assert [plane.max() for plane in labels] == [2, 1]
    assert scores.min() == 0
    assert 0.5 < scores.max() <= 1
    assert imageio.imread(folder / "instance" / "NAME-overlay.png").shape == (*SIZE, 3)


class Classification(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    color: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]


class Properties(BaseModel):
    """What QuPath's importer reads of a feature's properties, and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    objectType: Literal["annotation", "detection"]
    name: str
    classification: Classification
    measurements: dict[str, float]


def objects_for_qupath(path: Path) -> list[tuple[geojson.Feature, Properties]]:
    collection = geojson.loads(path.read_text(encoding="utf-8"))
    assert isinstance(collection, geojson.FeatureCollection)
    assert collection.is_valid, collection.errors()
    assert len({UUID(one["id"]) for one in collection.features}) == len(collection.features)
    return [(one, Properties.model_validate(one.properties)) for one in collection.features]


def test_qupath_gets_detections_with_classes_and_measurements(folder):
    objects = objects_for_qupath(folder / "instance" / "NAME.geojson")
    table = polars.read_csv(folder / "instance" / "objects.csv")
    labels = read_labels(folder / "instance" / "NAME-labels.tif")
    assert len(objects) == len(table) == 3
    for (one, properties), row in zip(objects, table.iter_rows(named=True), strict=True):
        x, y = np.array(one.geometry.coordinates[0]).T
        area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
        assert area == row["area"] == (labels[CLASSES.index(row["class"])] == row["id"]).sum()
        assert (properties.objectType, properties.classification.name) == ("detection", row["class"])
        assert properties.measurements["area (px)"] == area
        assert properties.measurements["area (um^2)"] == area * PIXEL_UM**2


def test_qupath_gets_a_sweeps_proposals_as_annotations(tmp_path):
    write_geojson(tmp_path / "proposals.geojson", [Proposal(1, "nucleus", 4, 8, 64, 32, 0.5)], CLASSES)
    ((one, properties),) = objects_for_qupath(tmp_path / "proposals.geojson")
    assert properties.objectType == "annotation"
    assert properties.measurements == {"rank": 1, "score": 0.5}
    assert [list(corner) for corner in one.geometry.coordinates[0][:3]] == [[4, 8], [68, 8], [68, 40]]


def test_the_pages_scripts_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "masks").symlink_to(folder / "instance")
    rois, arrays = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(rois, "opens-in.md", "exec"), {})
    written = roifile.roiread("NAME-rois.zip")
    features = json.loads((folder / "instance" / "NAME.geojson").read_text())["features"]
    assert [roi.coordinates().tolist() for roi in written] == [
        one["geometry"]["coordinates"][0][:-1] for one in features
    ]
    found: dict[str, np.ndarray] = {}
    exec(compile(arrays, "opens-in.md", "exec"), found)
    assert found["labels"].shape == (2, *SIZE)
    y, x = found["positions"].astype(int).T
    assert (found["labels"][[0, 0, 1], y, x] == [1, 2, 1]).all()


def test_points_are_those_of_the_objects(folder):
    points = polars.read_csv(folder / "detection" / "points.csv")
    assert points.columns == ["image", "class", "y", "x", "score"]
    assert set(points["class"]) == set(CLASSES)
    assert polars.read_csv(folder / "detection" / "predictions.csv")["present"].to_list() == [1, 1]


@pytest.mark.parametrize(
    ("unit", "resolution", "pixel_size"),
    [
        ("um", (4, 4), 0.25),
        ("\\u00B5m", (4, 4), 0.25),
        ("nm", (0.25, 0.25), 0.004),
        ("um", (4, 2), None),
        ("pixel", (1, 1), None),
        ("inch", (72, 72), None),
    ],
)
def test_the_pixel_size_that_imagej_states_is_read(tmp_path, unit, resolution, pixel_size):
    array = np.zeros((4, 4), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, resolution=resolution, metadata={"unit": unit})
    assert read_pixel_size(tmp_path / "a.tif") == pixel_size


def test_a_resolution_per_centimetre_is_read_and_one_per_inch_is_not(tmp_path):
    for unit, expected in (("CENTIMETER", 0.5), ("INCH", None), ("NONE", None)):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8), resolution=(2e4, 2e4), resolutionunit=unit)
        assert read_pixel_size(tmp_path / "a.tif") == expected
