from __future__ import annotations

from pathlib import Path

import pytest

from micraframe.datasets.tables import (
    BOX_COLUMNS,
    POINT_COLUMNS,
    check_images,
    label_classes,
    named_classes,
    read_table,
    row_labels,
    row_objects,
    rows_of_classes,
    value_of,
)
from micraframe.errors import DataError


def table(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text, encoding="utf-8-sig")
    return folder / "labels.csv"


def test_names_lose_their_suffix_but_not_their_dots(tmp_path: Path) -> None:
    rows = read_table(table(tmp_path, "image, ring\na.tif, 1\nb.v2 , 0\n\nc.PNG,true\n"))
    assert list(rows) == ["a", "b.v2", "c"]
    assert [row.cells for row in rows["a"]] == [{"ring": "1"}]
    assert rows["c"][0].place.endswith("labels.csv:5")


def test_a_column_of_answers_for_each_class(tmp_path: Path) -> None:
    path = table(tmp_path, "slide,name,ring,fiber\n7,a,1,0\n7,b,No,TRUE\n")
    rows = read_table(path)
    assert label_classes(rows, ("slide", "")) == ("ring", "fiber")
    assert row_labels("a", rows["a"], ("fiber", "ring"), path) == (False, True)
    assert row_labels("b", rows["b"], ("ring", "fiber"), path) == (False, True)
    assert value_of("a", rows, "slide", path) == "7"


def test_a_column_that_names_classes(tmp_path: Path) -> None:
    path = table(tmp_path, "file,class\na,ring\na,fiber\nb,\nc,ring\n")
    rows = read_table(path)
    classes = label_classes(rows, ())
    assert classes == ("fiber", "ring")
    assert [row_labels(name, rows[name], classes, path) for name in "abc"] == [(1, 1), (0, 0), (0, 1)]
    with pytest.raises(
        DataError, match=r"labels\.csv:3: expected one of the classes ring, got 'fiber'; add it to .* 'classes'"
    ):
        row_labels("a", rows["a"], ("ring",), path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one row"),
        ("image,ring\n", "at least one row"),
        ("picture,ring\na,1\n", "a column 'image'.*got picture, ring"),
        ("image,ring\na\n", "expected 2 cells.*got 1"),
        ("image,ring,ring\na,1,0\n", "same name"),
        ("Image,ring\na,1\n", "got Image, ring; capital letters matter: set image_column: Image"),
        ("image\tring\na\t1\n", "separated by tabs"),
    ],
)
def test_broken_tables_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"labels\.csv:.*{message}"):
        read_table(table(tmp_path, text))


def test_semicolons_separate_cells_where_excel_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image;ring\na, b;1\n", encoding="utf-8-sig")
    assert read_table(path)["a, b"][0].cells == {"ring": "1"}
    assert read_table(table(tmp_path, "image,a;b\nc;d,1\n"))["c;d"][0].cells == {"a;b": "1"}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le"])
def test_tables_in_other_encodings_are_refused_with_advice(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image,größe\na,1\n", encoding=encoding)
    with pytest.raises(DataError, match=r"labels\.csv: expected a table in UTF-8, .*; save it as CSV UTF-8"):
        read_table(path)


def test_missing_tables_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: cannot be read"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"^nowhere\.csv: .*; paths are relative to the current folder, "):
        read_table(Path("nowhere.csv"))
    with pytest.raises(DataError, match="expected a column 'id'"):
        read_table(table(tmp_path, "image,ring\na,1\n"), "id")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,ring\na,\n", "0 or 1 for image 'a' in column 'ring', got ''"),
        ("image,ring\na,2\n", "0 or 1 for image 'a' in column 'ring', got '2'; .* set group: ring"),
        ("image,fiber\na,1\n", "a column for the class 'ring'"),
        ("image,ring\na,1\na,0\n", "3: expected one row for image 'a', got 2"),
    ],
)
def test_answers_that_cannot_be_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DataError, match=rf"labels\.csv:.*{message}"):
        row_labels("a", read_table(path)["a"], ("ring",), path)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("image,slide\na,1\n", "b", "a row for image 'b', found none"),
        ("image,field\na,1\n", "a", "a column 'slide'"),
        ("image,slide\na,\n", "a", "expected a 'slide' for image 'a', got an empty cell"),
        ("image,slide\na,1\na,2\n", "a", "one 'slide' for image 'a', got 2"),
    ],
)
def test_values_that_are_not_there_are_named(tmp_path: Path, text: str, name: str, message: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DataError, match=rf"labels\.csv:.*{message}"):
        value_of(name, read_table(path), "slide", path)


def test_boxes_and_points_of_an_image(tmp_path: Path) -> None:
    rows = read_table(table(tmp_path, "image,class,xmin,ymin,xmax,ymax,x,y\na.png,b,1,2,3.5,4,7,-0.4\na.png,,,,,,,\n"))[
        "a"
    ]
    boxes = row_objects(rows, BOX_COLUMNS, ("a", "b"), (8, 8))
    assert [part.tolist() for part in boxes] == [[], [[2, 1, 4, 3.5]]]
    assert [part.shape for part in boxes] == [(0, 4), (1, 4)]
    points = row_objects(rows, POINT_COLUMNS, ("a", "b"), (8, 7))
    assert points[1].tolist() == [[0, 6]]


def test_objects_of_the_only_class_need_no_class_column(tmp_path: Path) -> None:
    rows = read_table(table(tmp_path, "image,x,y\na,1,2\na,3,4\n"))["a"]
    assert row_objects(rows, POINT_COLUMNS, ("spot",), (8, 8))[0].tolist() == [[2, 1], [4, 3]]
    with pytest.raises(DataError, match=r"labels\.csv:2: expected a column 'class'"):
        row_objects(rows, POINT_COLUMNS, ("spot", "ring"), (8, 8))


def test_rows_of_some_classes(tmp_path: Path) -> None:
    rows = read_table(table(tmp_path, "image,class,x,y\na,ring,1,2\na,blob,3,4\na,,,\nb,spot,5,6\n"))
    assert named_classes(rows) == {"ring", "blob", "spot"}
    assert [row.cells["class"] for row in rows_of_classes(rows["a"], ("ring", "spot"))] == ["ring", ""]
    assert rows_of_classes(rows["b"], ("ring",)) == []
    nameless = read_table(table(tmp_path, "image,x,y\na,1,2\n"))
    assert named_classes(nameless) == set()
    assert rows_of_classes(nameless["a"], ("ring",)) == nameless["a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,c,1,1,2,2", "expected one of the classes a, b, got 'c'"),
        ("a,,1,1,2,2", "got ''"),
        ("a,b,1,1,nan,2", "finite number in column 'xmax', got 'nan'"),
        ("a,b,1,1,,2", "number in column 'xmax', got ''"),
        ("a,b,1,1,two,2", "number in column 'xmax', got 'two'"),
        ("a,b,3,1,2,2", "xmin < xmax"),
        ("a,b,8,1,9,2", "outside its image"),
        ("a,b,-3,1,0,2", "outside its image"),
        ("a,b,1,9,2,11", "outside its image"),
    ],
)
def test_impossible_boxes_are_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    rows = read_table(table(tmp_path, f"image,class,xmin,ymin,xmax,ymax\na,b,0,0,1,1\n{line}\n"))["a"]
    with pytest.raises(DataError, match=rf"labels\.csv:3: .*{message}"):
        row_objects(rows, BOX_COLUMNS, ("a", "b"), (8, 8))


def test_points_outside_the_image_are_named(tmp_path: Path) -> None:
    rows = read_table(table(tmp_path, "image,x,y\na,1,8.5\n"))["a"]
    with pytest.raises(DataError, match=r"labels\.csv:2: the point lies outside its image of \(H, W\) = \(8, 9\)"):
        row_objects(rows, POINT_COLUMNS, ("spot",), (8, 9))
    with pytest.raises(DataError, match="expected the columns ymin, xmin"):
        row_objects(rows, BOX_COLUMNS, ("spot",), (8, 9))


def test_tables_about_unknown_images_are_named(tmp_path: Path) -> None:
    rows = read_table(table(tmp_path, "image,x\na,1\nb,1\nc,2\n"))
    check_images(rows, ["a", "b", "c", "d"], "images")
    with pytest.raises(DataError, match=r"labels\.csv:3: image 'b' and 1 other image not found in images"):
        check_images(rows, ["a"], "images")
