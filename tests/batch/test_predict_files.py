"""Batches of image files, in which one bad image costs nothing but itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from table_files import rows_of

from micraframe.batch import predict_files
from micraframe.batch.predict import restore_size
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError
from micraframe.images import read_image, read_labels, read_pixel_size, write_png, write_tiff
from micraframe.interfaces import Model
from micraframe.pipeline import Pipeline
from micraframe.registry import build
from micraframe.runtime.locks import exclusive
from micraframe.tiling import Tiling
from micraframe.types import DatasetInfo, Normalisation, Prediction, Progress, Scores

INFO = DatasetInfo("bright", ("bright",), 1, Normalisation("fixed", scale=(255.0,)), "0" * 64)


class Brightness(Model):
    """Uses the image itself as the map; raises an error for images that are `marked` in their first pixel."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def score(self, images, rule):
        for image in images:
            if self.error is not None and image[0, 0, 0] == np.float32(7 / 255):
                raise self.error
            presence = image.max(axis=(1, 2))
            classes = tuple(rule(presence))
            yield Scores(presence, classes, image[list(classes)])

    def state(self):
        return {}


def pipeline(
    head: str = "instance", error: BaseException | None = None, info: DatasetInfo = INFO, tiling: Tiling | None = None
) -> Pipeline:
    params = {} if head == "classification" else {"mask_threshold": {"name": "fixed", "value": 0.5}}
    return Pipeline(
        Choice(name="test/brightness"), Brightness(error), head, build("head", head, **params), info, tiling
    )


def picture(path, marked: bool = False, size: tuple[int, int] = (20, 30)):
    """Write a dark image with two bright squares."""
    image = np.zeros(size, np.uint8)
    image[4:8, 4:8] = image[10:16, 20:26] = 200
    image[0, 0] = 7 * marked
    write_png(path, image)
    return path


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory for 20 x 30 pixels; predict it in tiles: --tile"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "--tile"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), "--tile"),
        (ValueError("a component's own reason\nand more"), "ValueError: a component's own reason"),
    ],
)
@pytest.mark.parametrize("tiling", [None, Tiling(size=64, halo=0)])
def test_one_image_that_a_component_cannot_handle_does_not_end_the_batch(tmp_path, error, reason, tiling):
    files = [picture(tmp_path / f"{name}.png", name == "b") for name in "abc"]
    done, failures = predict_files(pipeline(error=error, tiling=tiling), files, tmp_path / "out")
    assert done == 2
    assert list(failures) == [str(files[1])]
    assert failures[str(files[1])].startswith(f"{files[1]}: ")
    assert reason.replace("in tiles", "in smaller tiles" if tiling else "in tiles") in failures[str(files[1])]
    assert [row["image"] for row in rows_of(tmp_path / "out" / "predictions.csv")] == ["a.png", "c.png"]
    assert not (tmp_path / "out" / "b.tif").exists()


def test_an_image_whose_outputs_do_not_fit_into_memory_leaves_none(tmp_path, monkeypatch):
    from micraframe.batch import predict

    real = predict.write_tiff

    def failing(path, *rest):
        if path.name == "b-labels.tif":
            raise MemoryError
        real(path, *rest)

    monkeypatch.setattr(predict, "write_tiff", failing)
    done, failures = predict_files(pipeline(), [picture(tmp_path / f"{name}.png") for name in "abc"], tmp_path / "out")
    assert (done, len(failures)) == (2, 1)
    assert not list((tmp_path / "out").glob("b*"))
    assert [row["image"] for row in rows_of(tmp_path / "out" / "predictions.csv")] == ["a.png", "c.png"]


def test_an_image_whose_outputs_would_have_too_long_names_does_not_end_the_batch(tmp_path):
    files = [picture(tmp_path / f"{name}.png") for name in "abc"]
    files[1] = files[1].rename(tmp_path / f"{'b' * 249}.png")
    done, failures = predict_files(pipeline(), files, tmp_path / "out")
    assert (done, list(failures)) == (2, [str(files[1])])
    assert "at most 240 bytes, got 261" in failures[str(files[1])]
    assert [row["image"] for row in rows_of(tmp_path / "out" / "predictions.csv")] == ["a.png", "c.png"]
    assert not list((tmp_path / "out").glob("b*"))


def test_what_was_done_before_an_interruption_stays_and_is_replaced_later(tmp_path):
    files = [picture(tmp_path / f"{name}.png", size=(400, 3000)) for name in "abc"]  # too large to go together

    class Interrupting(Progress):
        def advance(self, label, done, total, numbers=None):
            if done == 2:
                raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict_files(pipeline(), files, out, progress=Interrupting())
    assert [row["image"] for row in rows_of(out / "predictions.csv")] == ["a.png", "b.png"]
    assert {row["image"] for row in rows_of(out / "objects.csv")} == {"a.png", "b.png"}
    assert predict_files(pipeline(), files[2:], out) == (1, {})
    assert [row["image"] for row in rows_of(out / "predictions.csv")] == ["c.png"]
    assert not list(out.glob("a*"))


def test_objects_are_numbered_measured_and_outlined(tmp_path):
    predict_files(
        pipeline(info=dataclasses.replace(INFO, pixel_size_um=0.5)), [picture(tmp_path / "a.png")], tmp_path / "o"
    )
    labels = read_labels(tmp_path / "o" / "a-labels.tif")
    assert np.unique(labels).tolist() == [0, 1, 2]
    rows = rows_of(tmp_path / "o" / "objects.csv")
    assert [(row["id"], row["area"], row["y"], row["x"], row["pixel_size_um"]) for row in rows] == [
        ("1", "16", "5.5", "5.5", "0.5"),
        ("2", "36", "12.5", "22.5", "0.5"),
    ]
    assert {row["score"] for row in rows} == {"0.784313738"}
    first, second = json.loads((tmp_path / "o" / "a.geojson").read_text())["features"]
    assert {tuple(corner) for corner in first["geometry"]["coordinates"][0]} == {(4, 4), (8, 4), (8, 8), (4, 8)}
    assert second["properties"]["measurements"]["area (um^2)"] == 9


def test_objects_of_masks_are_their_connected_components(tmp_path):
    predict_files(pipeline("semantic"), [picture(tmp_path / "a.png")], tmp_path / "o")
    assert [row["area"] for row in rows_of(tmp_path / "o" / "objects.csv")] == ["16", "36"]
    assert not (tmp_path / "o" / "a-labels.tif").exists()
    (row,) = rows_of(tmp_path / "o" / "predictions.csv")
    assert (row["area"], row["objects"]) == ("52", "2")


def test_a_head_without_masks_writes_tables_only(tmp_path):
    predict_files(pipeline("classification"), [picture(tmp_path / "a.png")], tmp_path / "o")
    assert {file.name for file in (tmp_path / "o").glob("[!.]*")} == {"predict.json", "predictions.csv"}
    (row,) = rows_of(tmp_path / "o" / "predictions.csv")
    assert (row["present"], row["area"], row["objects"]) == ("1", "", "")


def test_score_maps_of_a_head_without_masks_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--scores: expected a head that uses score maps, got classification"):
        predict_files(pipeline("classification"), [picture(tmp_path / "a.png")], tmp_path / "o", scores=True)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_outputs_are_in_pixels_of_the_file_where_images_are_resized(tmp_path, scale):
    info = dataclasses.replace(INFO, scale=scale, pixel_size_um=1.0)
    files = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", size=(21, 33))]
    predict_files(pipeline("detection", info=info), files, tmp_path / "o", scores=True)
    for name, size in (("a", (20, 30)), ("b", (21, 33))):
        image = read_image(tmp_path / f"{name}.png")
        assert read_image(tmp_path / "o" / f"{name}.tif").shape == (1, *size)
        assert read_image(tmp_path / "o" / f"{name}-overlay.png").shape == (3, *size)
        assert np.abs(read_image(tmp_path / "o" / f"{name}-scores.tif") - image / 255).mean() < 0.05
    for table in ("objects", "points"):
        rows = [row for row in rows_of(tmp_path / "o" / f"{table}.csv") if row["image"] == "a.png"]
        found = sorted((float(row["y"]), float(row["x"])) for row in rows)
        assert np.allclose(found, [(5.5, 5.5), (12.5, 22.5)], atol=0.3)
    assert {row["pixel_size_um"] for row in rows_of(tmp_path / "o" / "objects.csv")} == {f"{scale:g}"}
    # Interpolation rounds the corners of the two squares off.
    differ = (read_image(tmp_path / "o" / "a.tif") > 0) != (read_image(tmp_path / "a.png") > 100)
    assert differ.sum() <= 8


def test_the_pixels_of_a_resized_prediction_lie_where_they_lay_before():
    scores = Scores(np.ones(1, np.float32), (), np.zeros((0, 2, 2), np.float32))
    masks = np.array([[[True, False], [False, False]]])
    points = (np.array([[0, 1, 0.5]], np.float32),)
    restored = restore_size(Prediction(scores, np.ones(1, bool), masks, masks.astype(np.int32), points), (4, 6))
    assert restored.masks.sum() == 6
    assert restored.instances[0, :2, :3].all()
    assert restored.points[0].tolist() == [[0.5, 4.0, 0.5]]
    assert restored.scores.size == (4, 6)


def test_many_objects_take_32_bits(tmp_path):
    rows, columns = np.mgrid[:520, :520]
    write_png(tmp_path / "many.png", ((rows % 2 == 0) & (columns % 2 == 0)).astype(np.uint8) * np.uint8(200))
    predict_files(pipeline(), [tmp_path / "many.png"], tmp_path / "o")
    assert read_labels(tmp_path / "o" / "many-labels.tif").max() == 260**2


def test_outputs_that_would_replace_one_another_are_refused(tmp_path):
    names = ["a.png", "A.png", "a-labels.png", "b.png"]
    files = [picture(tmp_path / str(number) / name) for number, name in enumerate(names)]
    same = tmp_path / "0" / ".." / "0" / "a.png"
    done, failures = predict_files(pipeline(), [*files, same], tmp_path / "out")
    assert done == 2
    assert list(failures) == [str(files[1]), str(files[2])]
    assert all(f"would replace those of {files[0]}" in reason for reason in failures.values())


@pytest.mark.parametrize("given", ["absent.png", "empty", "two.tif"])
def test_earlier_predictions_stay_until_an_image_is_predicted(tmp_path, given):
    predict_files(pipeline(), [picture(tmp_path / "a.png")], tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    (tmp_path / "empty").mkdir()
    write_tiff(tmp_path / "two.tif", np.zeros((2, 8, 8), np.uint8))
    if given == "two.tif":
        done, failures = predict_files(pipeline(), [tmp_path / given], tmp_path / "out")
        assert (done, len(failures)) == (0, 1)
        predict_files(pipeline(), [tmp_path / given], tmp_path / "new")
    else:
        reason = f"{given}: no such file or folder" if given == "absent.png" else "found none"
        with pytest.raises(DataError, match=reason):
            predict_files(pipeline(), [tmp_path / "a.png", tmp_path / given][given == "empty" :], tmp_path / "out")
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_an_image_with_other_channels_is_named(tmp_path):
    write_tiff(tmp_path / "two.tif", np.zeros((2, 8, 8), np.uint8))
    _, failures = predict_files(pipeline(), [tmp_path / "two.tif"], tmp_path / "out")
    assert failures[str(tmp_path / "two.tif")].startswith(f"{tmp_path / 'two.tif'}: expected 1 channel")


def test_a_prediction_that_was_killed_while_it_cleared_the_folder_leaves_nothing_behind(tmp_path, monkeypatch):
    files, out = [picture(tmp_path / f"{name}.png") for name in "ab"], tmp_path / "out"
    predict_files(pipeline(), files[:1], out)
    remove = Path.unlink

    def killed(path, missing_ok=False):
        if path.name in ("a.tif", "a.geojson"):
            raise KeyboardInterrupt
        remove(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_files(pipeline(), files[1:], out)
    assert predict_files(pipeline(), files[1:], out) == (1, {})
    assert not list(out.glob("a*"))


def test_folders_that_are_in_use_hold_other_files_or_are_none_are_refused(tmp_path):
    image, out = picture(tmp_path / "a.png"), tmp_path / "out"
    with exclusive(out / ".lock", lambda: None), pytest.raises(ConfigError, match="another process"):
        predict_files(pipeline(), [image], out)
    assert not list(out.glob("[!.]*"))
    (out / "a.geojson").write_text("drawn by hand")
    with pytest.raises(ConfigError, match=r"would replace \(a.geojson\)"):
        predict_files(pipeline(), [image], out)
    assert (out / "a.geojson").read_text() == "drawn by hand"
    with pytest.raises(ConfigError, match="expected a folder"):
        predict_files(pipeline(), [image], image)


def test_the_pixel_size_of_the_file_goes_before_that_of_the_training_files(tmp_path):
    square = np.full((8, 8), 200, np.uint8)
    write_tiff(tmp_path / "states.tif", square, pixel_size_um=0.25)
    write_tiff(tmp_path / "silent.tif", square)
    info = dataclasses.replace(INFO, scale=0.5, pixel_size_um=1.0)
    predict_files(pipeline(info=info), [tmp_path / "states.tif", tmp_path / "silent.tif"], tmp_path / "o")
    for name, size in (("states", 0.25), ("silent", 0.5)):
        (row,) = (row for row in rows_of(tmp_path / "o" / "objects.csv") if row["image"] == f"{name}.tif")
        assert float(row["pixel_size_um"]) == read_pixel_size(tmp_path / "o" / f"{name}.tif") == size
