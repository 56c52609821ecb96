"""Predictions in files against the truth: which metrics, and how they are averaged."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from micraframe.batch import evaluate_files
from micraframe.batch.evaluate import curve_points
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError, PluginError
from micraframe.images import read_labels, write_png, write_tiff

CLASSES = ("disc", "square")
PRESENCE = {"a": (0.9, 0.2), "b": (0.4, 0.8), "c": (0.7, 0.6)}
TRUE = {"a": (1, 0), "b": (1, 1), "c": (0, 1)}


def block(size: int) -> np.ndarray:
    mask = np.zeros((20, 30), bool)
    mask[4 : 4 + size, 4:10] = True
    return mask


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Return a folder of predictions of three images: half of each true mask is found, and on `c` all of it."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    lines = ["image,class,presence,present"]
    for name, presence in PRESENCE.items():
        lines += [f"{name}.png,{class_},{p},{int(p >= 0.5)}" for class_, p in zip(CLASSES, presence, strict=True)]
        masks = np.stack([block(6 if name == "c" else 3) & bool(present) for present in TRUE[name]])
        write_tiff(folder / f"{name}.tif", masks, CLASSES)
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    for name, present in TRUE.items():
        for class_, here in zip(CLASSES, present, strict=True):
            write_png(tmp_path / "truth" / class_ / f"{name}.png", (block(6) & bool(here)).astype(np.uint8))
    return tmp_path / "truth"


def numbers(found):
    return {(row["metric"], row["class"]): row["value"] for row in found.records}


def test_numbered_masks_are_not_taken_for_binary_ones(predictions, truth):
    binary = evaluate_files(predictions, truth, [Choice(name="objects")])
    labels = read_labels(truth / "disc" / "b.png").astype(np.uint8)
    labels[6:8] *= 2
    write_png(truth / "disc" / "b.png", labels)
    with pytest.raises(ConfigError, match="expected binary masks, got 2 values other than 0.*--instances.*--binary"):
        evaluate_files(predictions, truth)
    assert evaluate_files(predictions, truth, [Choice(name="objects")], instances=False).records == binary.records
    several = numbers(evaluate_files(predictions, truth, [Choice(name="objects")], instances=True))
    assert several["object_f1_pooled@0.5", "disc"] != numbers(binary)["object_f1_pooled@0.5", "disc"]


def test_values_are_counted_in_masks_without_background(predictions, truth):
    labels = read_labels(truth / "disc" / "a.png").astype(np.uint8)
    labels[:] = 5
    labels[3:8] = 9
    write_png(truth / "disc" / "a.png", labels)
    write_png(truth / "square" / "a.png", np.full_like(labels, 5))
    with pytest.raises(ConfigError, match="expected binary masks, got 2 values other than 0"):
        evaluate_files(predictions, truth)


def test_means_and_pooled_numbers_are_averaged_as_in_a_study(predictions, truth):
    found = evaluate_files(predictions, truth)
    values = numbers(found)
    assert (found.done, found.failures) == (3, {})
    assert [values["iou", class_] for class_ in CLASSES] == pytest.approx([0.5, 0.75])
    # Within each image over its classes, and then over images.
    assert values["iou", "all"] == pytest.approx(np.mean([0.5, 0.5, 1]))
    expected = [
        average_precision_score([TRUE[name][k] for name in TRUE], [PRESENCE[name][k] for name in TRUE]) for k in (0, 1)
    ]
    assert [values["average_precision", class_] for class_ in CLASSES] == pytest.approx(expected)
    assert values["average_precision", "all"] == pytest.approx(np.mean(expected))
    reductions = {row["metric"]: row["reduction"] for row in found.records}
    assert (reductions["iou"], reductions["average_precision"]) == ("mean over images", "pooled over images")
    counts = {(row["metric"], row["class"]): row["images"] for row in found.records}
    assert (counts["iou", "disc"], counts["iou", "all"]) == (2, 3)
    measured = [each.value for each in found.measured if (each.statistic, each.class_) == ("iou", "disc")]
    assert measured == pytest.approx([0.5, 0.5, math.nan], nan_ok=True)


def test_the_contact_class_is_left_out_of_means(predictions, truth):
    (predictions / "predict.json").write_text('{"roles": {"disc": "object", "square": "contact"}}')
    values = numbers(evaluate_files(predictions, truth))
    assert values["iou", "square"] == 0.75
    assert values["iou", "all"] == values["iou", "disc"] == 0.5
    assert values["average_precision", "all"] == values["average_precision", "disc"]


def test_metrics_are_chosen_by_name_and_parameters(predictions, truth):
    found = evaluate_files(predictions, truth, [Choice(name="objects", params={"iou": [0.4, 0.6]})])
    values = numbers(found)
    assert values["object_f1_pooled@0.4", "all"] == 1
    assert values["object_f1_pooled@0.6", "disc"] == 0
    assert values["object_f1_pooled@0.6", "square"] == 0.5
    assert values["panoptic_quality", "square"] == pytest.approx((0.5 + 1) / 2)
    assert ("iou", "all") not in values
    with pytest.raises(PluginError, match="no-such-metric"):
        evaluate_files(predictions, truth, [Choice(name="no-such-metric")])


def test_predicted_objects_are_those_that_predict_numbered(predictions, truth):
    labels = np.zeros((2, 20, 30), np.int32)
    labels[0, 4:10, 4:7], labels[0, 4:10, 7:10] = 1, 2
    objects = [Choice(name="objects", params={"iou": [0.5]})]
    assert numbers(evaluate_files(predictions, truth, objects))["object_f1@0.5", "disc"] == 1
    write_tiff(predictions / "a-labels.tif", labels, CLASSES)
    # On a, one of the two halves is a match.
    assert numbers(evaluate_files(predictions, truth, objects))["object_f1@0.5", "disc"] == pytest.approx(
        (2 / 3 + 1) / 2
    )


def test_a_metric_that_fails_on_an_image_leaves_the_others(predictions, truth, monkeypatch):
    from micraframe.metrics.overlap import OverlapMetric

    measure = OverlapMetric.measure

    def fails(self, prediction, sample):
        if sample.id == "b.png":
            raise ValueError("out of luck")
        return measure(self, prediction, sample)

    monkeypatch.setattr(OverlapMetric, "measure", fails)
    found = evaluate_files(predictions, truth)
    assert found.failures == {"b.png": "ValueError: out of luck"}
    assert found.done == 2
    assert numbers(found)["iou", "square"] == 1


def test_points_are_measured_where_there_are_any(predictions, truth):
    assert not evaluate_files(predictions, truth).curves
    centre = "6.5,6.5"
    rows = [
        f"a.png,disc,{centre},0.9",
        "a.png,disc,15,25,0.8",
        f"b.png,disc,{centre},0.7",
        f"c.png,square,{centre},0.6",
    ]
    (predictions / "points.csv").write_text("image,class,y,x,score\n" + "\n".join(rows) + "\n")
    found = evaluate_files(predictions, truth, distance=1)
    values = numbers(found)
    assert values["detection_average_precision_pooled", "disc"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert values["detection_average_precision_pooled", "square"] == pytest.approx(1 / 2)
    assert values["detection_f1_pooled", "disc"] == pytest.approx(2 * 2 / (3 + 2))
    curve = [(each.threshold, each.precision, each.recall) for each in curve_points(found.curves)]
    assert curve[:3] == [
        pytest.approx((0.9, 1, 0.5)),
        pytest.approx((0.8, 1 / 2, 0.5)),
        pytest.approx((0.7, 2 / 3, 1)),
    ]
    assert [each.class_ for each in curve_points(found.curves)] == ["disc"] * 3 + ["square"]


BOXES = "image,class,xmin,ymin,xmax,ymax\n"
# The first is where the mask of `disc` is; the classes of no interest are left out.
BOX_ROWS = ["a,disc,4,4,10,7", "a,disc,20,10,24,14", "a,rod,0,0,9,9", "b,square,4,4,10,7", "c,,,,,", "b,disc,4,4,10,7"]


def test_boxes_and_points_are_truth_for_counts_and_positions(predictions, tmp_path):
    boxes, points = tmp_path / "boxes.csv", tmp_path / "points.csv"
    boxes.write_text(BOXES + "\n".join(BOX_ROWS) + "\n")
    found = evaluate_files(predictions, boxes, distance=1)
    values = numbers(found)
    assert (found.done, found.failures) == (3, {})
    assert {row["component"] for row in found.records} == {
        "micraframe/classification",
        "micraframe/counts",
        "micraframe/detection",
    }
    assert values["detection_precision_pooled", "disc"] == 1
    assert values["detection_recall_pooled", "disc"] == pytest.approx(2 / 3)
    assert values["count_shortfall", "disc"] == pytest.approx(1 / 3)
    # On c, a square was found where there is none.
    assert values["detection_precision_pooled", "square"] == 1 / 2
    assert values["count_excess", "square"] == pytest.approx(1 / 3)
    # The centre of a box from 4 to 10 is that of its pixels: 6.5.
    points.write_text("image,class,x,y\na,disc,6.5,5\na,disc,21.5,11.5\nb,square,6.5,5\nb,disc,6.5,5\nc,,,\n")
    same = numbers(evaluate_files(predictions, points, distance=1))
    assert same == pytest.approx(values, nan_ok=True)


def test_objects_have_the_scores_of_their_table(predictions, truth):
    metrics = [Choice(name="detection")]
    without = numbers(evaluate_files(predictions, truth, metrics))
    assert math.isnan(without["detection_average_precision_pooled", "disc"])
    rows = ["a.png,disc,5,6.5,0.2", "b.png,disc,5,6.5,0.9", "b.png,disc,15,6.5,0.5", "c.png,square,6.5,6.5,0.8"]
    table = predictions / "objects.csv"
    table.write_text("image,class,y,x,score\n" + "\n".join(rows) + "\n")
    scored = numbers(evaluate_files(predictions, truth, metrics, distance=2))
    assert scored["detection_average_precision_pooled", "disc"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    table.write_text(table.read_text().replace("0.2", ""))
    assert numbers(evaluate_files(predictions, truth, metrics)) == pytest.approx(without, nan_ok=True)


def test_numbered_objects_are_counted_and_matched(predictions, truth):
    components = {row["component"] for row in evaluate_files(predictions, truth, instances=True).records}
    assert components == {f"micraframe/{name}" for name in ("classification", "overlap", "counts", "objects")}


def test_a_table_of_boxes_that_does_not_fit_is_named(predictions, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(BOXES + "a,disc,4,4,10,7\na,Square,4,4,10,7\n")
    with pytest.raises(DataError, match="the model's classes disc, square in column 'class', got Square, disc; rename"):
        evaluate_files(predictions, boxes)
    boxes.write_text("image,xmin,ymin,xmax,ymax\na,4,4,10,7\n")
    with pytest.raises(DataError, match=r"expected a column 'class' with disc, square"):
        evaluate_files(predictions, boxes)
    boxes.write_text(BOXES + "a,disc,4,4,10,7\nb,square,50,4,60,7\n")
    failures = evaluate_files(predictions, boxes).failures
    assert "the box lies outside" in failures["b.png"]
    assert "add a row, with empty cells if the image has no object" in failures["c.png"]


def test_tables_that_a_spreadsheet_saved_again_are_read(predictions, truth):
    before = evaluate_files(predictions, truth)
    for table in predictions.glob("*.csv"):
        table.write_text(table.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert repr(evaluate_files(predictions, truth).measured) == repr(before.measured)  # NaN is no equal of itself
    (predictions / "predictions.csv").write_bytes("größe".encode("latin-1"))
    with pytest.raises(DataError, match=r"predictions.csv: cannot be read: .*; name a folder"):
        evaluate_files(predictions, truth)


def test_a_broken_table_is_named(predictions, truth):
    table = predictions / "predictions.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    found = evaluate_files(predictions, truth)
    assert "expected one row of 'c.png' for each of disc, square" in found.failures["c.png"]
    assert found.done == 2
    table.write_text("image,class\n")
    with pytest.raises(DataError, match=r"predictions.csv: expected rows with the columns class, image"):
        evaluate_files(predictions, truth)


def test_without_a_single_image_there_are_no_numbers(predictions, tmp_path):
    (tmp_path / "empty").mkdir()
    found = evaluate_files(predictions, tmp_path / "empty")
    assert found.failures["a.png"].endswith("got none, and no other mask; name masks like the images")
    write_png(tmp_path / "empty" / "a_mask.png", block(6))
    found = evaluate_files(predictions, tmp_path / "empty")
    assert found.failures["b.png"].endswith("got none; the first of 1 mask is a_mask.png; name masks like the images")
    assert (found.records, found.measured, found.curves, found.done) == ([], [], {}, 0)
    assert set(found.failures) == {"a.png", "b.png", "c.png"}
