"""Tables that say something of images: a CSV with a column of file names."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from micraframe.errors import DataError
from micraframe.images import IMAGE_SUFFIXES

IMAGE_COLUMNS = ("image", "name", "file", "filename")
"""The column of image names is the first of these that a table has, where none is named."""

CLASS_COLUMN = "class"
"""The one column of a table that names classes instead of answering for each."""

ANSWERS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

Rows = dict[str, list[dict[str, str]]]


def read_table(path: Path, image_column: str = "") -> Rows:
    """Read a CSV with a header line.

    Args:
        path: The file, in UTF-8.
        image_column: The column of image file names, with or without suffix; empty takes the first of `IMAGE_COLUMNS`.

    Returns:
        The rows of each image, by its name without suffix; the column of names is not in them.

    Raises:
        DataError: If the file cannot be read, is empty, has no such column, or a row has too few or too many cells.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from error
    lines = [[cell.strip() for cell in line] for line in lines if any(cell.strip() for cell in line)]
    if len(lines) < 2:
        raise DataError(f"{path}: a table with a header and at least one row is wanted")
    header, *rows = lines
    if len(set(header)) != len(header):
        raise DataError(f"{path}: two columns have the same name: {', '.join(header)}")
    column = image_column or next((name for name in IMAGE_COLUMNS if name in header), IMAGE_COLUMNS[0])
    if column not in header:
        raise DataError(f"{path}: there is no column {column!r} of image names; there are: {', '.join(header)}")
    table: Rows = {}
    for row in rows:
        if len(row) != len(header):
            raise DataError(f"{path}: the row {','.join(row)!r} has {len(row)} cells; the header has {len(header)}")
        cells = dict(zip(header, row, strict=True))
        table.setdefault(_without_suffix(cells.pop(column)), []).append(cells)
    return table


def label_classes(rows: Rows, other_columns: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that a table of labels answers for: its columns, or what its column `class` names, sorted.

    Args:
        rows: The table.
        other_columns: Columns that are no classes, such as the group.
    """
    header = list(next(iter(rows.values()))[0])
    if CLASS_COLUMN in header:
        return tuple(sorted({row[CLASS_COLUMN] for several in rows.values() for row in several} - {""}))
    return tuple(name for name in header if name not in other_columns)


def labels_of(name: str, rows: Sequence[Mapping[str, str]], classes: Sequence[str], path: Path) -> tuple[bool, ...]:
    """Return one image's labels.

    Args:
        name: The image.
        rows: Its rows: one with 0 or 1 for each class, or one for each class that it has, where an empty cell says that
            it has none.
        classes: The classes.
        path: The table, for errors.

    Raises:
        DataError: If an answer is missing or is neither 0 nor 1, a class is unknown, or an image has two rows of
            answers.
    """
    if CLASS_COLUMN in rows[0]:
        named = {row[CLASS_COLUMN] for row in rows} - {""}
        if unknown := sorted(named - set(classes)):
            raise DataError(
                f"{path}: image {name!r} has the class {unknown[0]!r}; the classes are {', '.join(classes)}"
            )
        return tuple(class_ in named for class_ in classes)
    if len(rows) > 1:
        raise DataError(f"{path}: image {name!r} has {len(rows)} rows; one is wanted")
    answers = []
    for class_ in classes:
        cell = rows[0].get(class_)
        if cell is None:
            raise DataError(f"{path}: there is no column for the class {class_!r}; there are: {', '.join(rows[0])}")
        if cell.lower() not in ANSWERS:
            raise DataError(
                f"{path}: image {name!r} has {cell!r} in column {class_!r}; 0 or 1 is wanted. "
                "If the column is no class, name the classes in the parameter 'classes'"
            )
        answers.append(ANSWERS[cell.lower()])
    return tuple(answers)


def value_of(name: str, rows: Rows, column: str, path: Path) -> str:
    """Return what a table says of an image in one column.

    Raises:
        DataError: If there is no row for the image, no such column, no value, or more than one.
    """
    if name not in rows:
        raise DataError(f"{path}: there is no row for the image {name!r}")
    values = {row.get(column) for row in rows[name]}
    value = values.pop()
    if values:
        raise DataError(f"{path}: image {name!r} has more than one {column!r}")
    if value is None:
        raise DataError(f"{path}: there is no column {column!r}; there are: {', '.join(rows[name][0])}")
    if not value:
        raise DataError(f"{path}: image {name!r} has no {column!r}")
    return value


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name
