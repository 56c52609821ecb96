from __future__ import annotations

from pathlib import Path

import pytest

from micraframe.datasets.tables import label_classes, labels_of, read_table, value_of
from micraframe.errors import DataError


def table(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text, encoding="utf-8-sig")
    return folder / "labels.csv"


def test_names_lose_their_suffix_but_not_their_dots(tmp_path: Path) -> None:
    rows = read_table(table(tmp_path, "image, ring\na.tif, 1\nb.v2 , 0\n\nc.PNG,true\n"))
    assert list(rows) == ["a", "b.v2", "c"]
    assert rows["a"] == [{"ring": "1"}]


def test_a_column_of_answers_for_each_class(tmp_path: Path) -> None:
    path = table(tmp_path, "slide,name,ring,fiber\n7,a,1,0\n7,b,No,TRUE\n")
    rows = read_table(path)
    assert label_classes(rows, ("slide", "")) == ("ring", "fiber")
    assert labels_of("a", rows["a"], ("fiber", "ring"), path) == (False, True)
    assert labels_of("b", rows["b"], ("ring", "fiber"), path) == (False, True)
    assert value_of("a", rows, "slide", path) == "7"


def test_a_column_that_names_classes(tmp_path: Path) -> None:
    path = table(tmp_path, "file,class\na,ring\na,fiber\nb,\nc,ring\n")
    rows = read_table(path)
    classes = label_classes(rows, ())
    assert classes == ("fiber", "ring")
    assert [labels_of(name, rows[name], classes, path) for name in "abc"] == [(1, 1), (0, 0), (0, 1)]
    with pytest.raises(DataError, match=r"labels\.csv: image 'a' has the class 'fiber'; the classes are ring"):
        labels_of("a", rows["a"], ("ring",), path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one row"),
        ("image,ring\n", "at least one row"),
        ("picture,ring\na,1\n", "no column 'image'.*there are: picture, ring"),
        ("image,ring\na\n", "1 cells; the header has 2"),
        ("image,ring,ring\na,1,0\n", "same name"),
    ],
)
def test_broken_tables_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"labels\.csv: .*{message}"):
        read_table(table(tmp_path, text))


def test_missing_tables_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: cannot be read"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="no column 'id'"):
        read_table(table(tmp_path, "image,ring\na,1\n"), "id")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,ring\na,\n", "'a' has '' in column 'ring'; 0 or 1"),
        ("image,ring\na,2\n", "'a' has '2' in column 'ring'"),
        ("image,fiber\na,1\n", "no column for the class 'ring'"),
        ("image,ring\na,1\na,0\n", "'a' has 2 rows"),
    ],
)
def test_answers_that_cannot_be_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DataError, match=rf"labels\.csv: .*{message}"):
        labels_of("a", read_table(path)["a"], ("ring",), path)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("image,slide\na,1\n", "b", "no row for the image 'b'"),
        ("image,field\na,1\n", "a", "no column 'slide'"),
        ("image,slide\na,\n", "a", "has no 'slide'"),
        ("image,slide\na,1\na,2\n", "a", "more than one 'slide'"),
    ],
)
def test_values_that_are_not_there_are_named(tmp_path: Path, text: str, name: str, message: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DataError, match=rf"labels\.csv: .*{message}"):
        value_of(name, read_table(path), "slide", path)
