"""`micraframe compare-annotators` on small files."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from table_files import rows_of

from micraframe.images import write_png, write_tiff


@pytest.fixture
def compare(command):
    return functools.partial(command, "compare-annotators")


def square(left, edge=6):
    mask = np.zeros((20, 30), np.uint8)
    mask[4 : 4 + edge, left : left + edge] = 1
    return mask


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Return the folders of three annotators: the second is three pixels off the first, the third six."""
    for annotator, left in (("ann", 4), ("ben", 7), ("cat", 10)):
        write_png(tmp_path / annotator / "a.png", square(left))
        write_png(tmp_path / annotator / "b.png", square(4))
    return [tmp_path / name for name in ("ann", "ben", "cat")]


def test_each_annotator_is_compared_with_the_others(compare, folders, tmp_path):
    code, out, _ = compare(*folders, "--output", tmp_path / "rows.csv", "--json")
    assert code == 0
    found = {(row["annotator"], row["metric"]): row for row in json.loads(out)}
    # On a: half of ben's square is ann's and half is cat's, and these two share nothing.
    one, other = 18 / 54, 0
    assert found["ann", "iou"]["value"] == pytest.approx(((one + other) / 2 + 1) / 2)
    assert found["ben", "iou"]["value"] == pytest.approx((one + 1) / 2)
    assert found["ben", "centroid_distance"]["value"] == pytest.approx(1.5)
    assert found["cat", "centroid_distance"]["value"] == pytest.approx((4.5 + 0) / 2)
    assert ("ann", "iou_if_present") not in found
    assert found["ann", "iou"]["images"] == 2
    assert found["ann", "iou"]["reduction"] == "mean over images"
    # Of two objects, ben shares the one on b with the others at an IoU of 0.5.
    assert found["ben", "object_f1_pooled@0.5"]["value"] == pytest.approx(1 / 2)
    assert found["ben", "object_f1_pooled@0.5"]["reduction"] == "pooled over images"
    rows = rows_of(tmp_path / "rows.csv")
    assert list(rows[0]) == ["annotator", "image", "class", "statistic", "value"]
    values = [float(row["value"]) for row in rows if row["annotator"] == "ann" and row["statistic"] == "iou"]
    assert np.mean(values) == pytest.approx(found["ann", "iou"]["value"])


def test_bad_files_do_not_end_the_batch(compare, folders):
    (folders[1] / "b.png").unlink()
    for folder, size in zip(folders, (20, 20, 21), strict=True):
        write_png(folder / "c.png", np.ones((size, 20), np.uint8))
        write_png(folder / "d.png", np.ones((20, 20), np.uint8))
    (folders[2] / "d.png").write_bytes(b"not an image")
    code, out, err = compare(*folders, "--json")
    assert code == 1
    assert {row["images"] for row in json.loads(out) if row["metric"] == "iou"} == {1}
    assert "3 failed, 1 done" in err
    assert "expected a mask b.* from every annotator, got none from ben; add one (all zeros" in err
    assert "got ann (1, 20, 20), ben (1, 20, 20), cat (1, 21, 20)" in err
    assert str(folders[2] / "d.png") in err


def test_every_plane_is_a_class_and_numbers_can_be_objects(compare, tmp_path):
    touching = square(4) + 2 * square(10)
    for annotator in ("one/masks", "two/masks"):
        write_tiff(tmp_path / annotator / "a.tif", np.stack([touching, np.zeros_like(touching)]))
    write_tiff(tmp_path / "two/masks" / "a.tif", np.stack([(touching == 1).astype(np.uint8), touching]))
    folders = tmp_path / "one/masks", tmp_path / "two/masks"
    code, _, err = compare(*folders)
    assert code == 2
    assert f"{folders[0] / 'a.tif'}: expected binary masks, got 2 values other than 0; add --instances" in err
    for flags, expected in ((("--binary",), 1.0), (("--instances",), 2 / 3)):
        code, out, _ = compare(*folders, *flags, "--json")
        found = {(row["annotator"], row["metric"], row["class"]): row for row in json.loads(out)}
        assert code == 0
        assert found[str(folders[0]), "object_f1@0.5", "1"]["value"] == pytest.approx(expected)
        assert found[str(folders[0]), "object_f1_pooled@0.5", "1"]["value"] == pytest.approx(expected)
        assert found[str(folders[0]), "precision", "2"]["value"] is None
        assert found[str(folders[0]), "recall", "2"]["value"] == 0


def test_one_annotator_cannot_be_compared(compare, folders, tmp_path):
    assert compare(folders[0])[0] == 2
    code, _, err = compare(folders[0], folders[0])
    assert code == 2
    assert "at least two different folders" in err
    code, _, err = compare(folders[0], tmp_path / "absent")
    assert code == 1
    assert "absent" in err


def test_missing_masks_are_grouped(compare, folders):
    for name in "ef":
        write_png(folders[0] / f"{name}.png", square(4))
    code, _, err = compare(*folders)
    assert code == 1
    assert "2 images: expected a mask e.* from every annotator, got none from ben, cat; add one" in err
    assert err.endswith("(first: e)\n")


def test_classes_are_named_by_the_masks_or_their_folder(compare, tmp_path):
    for annotator in ("ann", "ben"):
        write_png(tmp_path / annotator / "nuclei" / "a.png", square(4))
        write_tiff(tmp_path / annotator / "both" / "a.tif", np.stack([square(4), square(7)]), ("axon", "ring"))
    for folder, classes in (("nuclei", {"nuclei"}), ("both", {"axon", "ring", "all"})):
        _, out, _ = compare(tmp_path / "ann" / folder, tmp_path / "ben" / folder, "--json")
        assert {row["class"] for row in json.loads(out)} == classes


def test_each_annotator_has_a_table(compare, folders):
    _, out, _ = compare(*folders)
    lines = out.splitlines()
    headings = [f"{name}, against the others" for name in ("ann", "ben", "cat")]
    assert [line for line in lines if "against" in line] == headings
    assert lines[1].split() == ["metric", "class", "value", "images", "reduction"]
    assert max(map(len, lines)) <= 80


def test_images_with_another_number_of_classes_are_named(compare, folders):
    for folder in folders:
        write_tiff(folder / "c.tif", np.stack([square(4), square(7)]))
    code, out, err = compare(*folders, "--json")
    assert code == 1
    assert "c: expected 1 class as in most images, got 2" in err
    assert {row["images"] for row in json.loads(out) if row["metric"] == "iou"} == {2}
    for folder in folders:  # the first image by name may be the odd one
        (folder / "c.tif").rename(folder / "0.tif")
    code, out, err = compare(*folders, "--json")
    assert code == 1
    assert "0: expected 1 class as in most images, got 2" in err
    assert {row["images"] for row in json.loads(out) if row["metric"] == "iou"} == {2}


def test_time_per_object(compare, folders, tmp_path):
    # Nobody timed cat; on b, ann marks two objects.
    write_png(folders[0] / "b.png", square(4) + square(20))
    (tmp_path / "times.csv").write_text("image,annotator,seconds\na.png,ann,10\nb.png,ann,30\nb,ben,8\n")
    code, out, _ = compare(*folders, "--times", tmp_path / "times.csv", "--json")
    assert code == 0
    found = {row["annotator"]: row for row in json.loads(out) if row["metric"] == "seconds_per_object"}
    assert {name: (row["value"], row["images"]) for name, row in found.items()} == {"ann": (12.5, 2), "ben": (8.0, 1)}
    for text, reason in (
        ("image,annotator,seconds\na,eve,10\n", "expected one of the folders ann, ben, cat, got 'eve'"),
        ("image,annotator,seconds\na,ann,soon\n", "expected a positive number of seconds, got 'soon'"),
        ("image,annotator,seconds\na,ann,0\n", "expected a positive number of seconds, got '0'"),
        ("image,annotator,seconds\naa,ann,10\n", "image 'aa' not found in the folders"),
        ("image,annotator,seconds\na,ann,10\na.png,ann,9\n", "expected one time of ann for a, got another"),
        ("image,seconds\na,10\n", "expected columns image, annotator and seconds, got seconds"),
    ):
        (tmp_path / "times.csv").write_text(text)
        code, _, err = compare(*folders, "--times", tmp_path / "times.csv")
        assert code == 1
        assert reason in err


def test_objects_are_associated(compare, folders):
    _, out, _ = compare(*folders, "--json")
    found = {(row["annotator"], row["metric"]): row["value"] for row in json.loads(out)}
    # On a, the others' squares are 3 px away on either side; on b all agree.
    assert found["ben", "object_centroid_distance"] == pytest.approx(1.5)
    assert found["cat", "object_centroid_distance"] == pytest.approx(2.25)
    assert 0 < found["ben", "object_contour_distance"] < found["cat", "object_contour_distance"]
