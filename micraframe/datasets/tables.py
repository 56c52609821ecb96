"""Tables about images: CSV files with a column of image names, holding labels, splits, boxes or points."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from micraframe.errors import DataError, counted
from micraframe.images import IMAGE_SUFFIXES
from micraframe.types import FloatArray

IMAGE_COLUMNS = ("image", "name", "file", "filename")
"""Default columns of image names: the first of these that a table has."""

CLASS_COLUMN = "class"
"""The column that names classes."""

SPLIT_COLUMN, GROUP_COLUMN = "split", "group"
"""The default columns of each image's split and group."""

CROP_COLUMNS = ("source", "y", "x")
"""Where `micraframe crops` cut an image out; together, these columns are not classes."""

BOX_COLUMNS = ("ymin", "xmin", "ymax", "xmax")
POINT_COLUMNS = ("y", "x")
"""The columns of coordinates in pixels, in the order of a `Sample`'s boxes and points."""

ANSWERS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        cells: Cells by column, without the column of image names.
        place: File and line, for error messages.
    """

    cells: Mapping[str, str]
    place: str


Rows = dict[str, list[TableRow]]
"""The rows of each image, by its name without suffix."""


def read_table(path: Path, image_column: str = "") -> Rows:
    """Read a CSV with a header line.

    Args:
        path: The file, in UTF-8; cells are separated by commas, or by semicolons if there is no comma in the header, as
            Excel writes them where the comma is the decimal separator.
        image_column: Column of image file names, with or without suffix; empty: the first of `IMAGE_COLUMNS`.

    Raises:
        DataError: If the file cannot be read or is empty, the column is missing, or a row has too few or too many
            cells. The message names file and line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.reader(stream, delimiter=";" if ";" in first and "," not in first else ",")
            lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
        if "\0" in first:  # UTF-16 without a mark in front
            raise _other_encoding(path)
    except UnicodeDecodeError as error:
        raise _other_encoding(path) from error
    except (OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        lost = isinstance(error, FileNotFoundError) and not path.is_absolute()
        hint = f"; paths are relative to the current folder, {Path.cwd()}" if lost else ""
        raise DataError(f"{path}: cannot be read as a table: {reason}{hint}") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if len(lines) < 2:
        raise DataError(f"{path}: expected a header and at least one row, got {counted(len(lines), 'line')}")
    (_, header), *rows = lines
    if len(set(header)) != len(header):
        raise DataError(f"{path}: two columns have the same name: {', '.join(header)}")
    column = image_column or next((name for name in IMAGE_COLUMNS if name in header), IMAGE_COLUMNS[0])
    if column not in header:
        hint = _header_hint(header, image_column)
        raise DataError(f"{path}: expected a column {column!r} of image names, got {', '.join(header)}{hint}")
    table: Rows = {}
    for number, row in rows:
        place = f"{path}:{number}"
        if len(row) != len(header):
            expected = counted(len(header), "cell")
            raise DataError(f"{place}: expected {expected}, as in the header, got {len(row)}: {','.join(row)}")
        cells = dict(zip(header, row, strict=True))
        table.setdefault(_without_suffix(cells.pop(column)), []).append(TableRow(cells, place))
    return table


def columns_of(rows: Rows) -> tuple[str, ...]:
    """Return the columns of a table, without the column of image names."""
    return tuple(next(iter(rows.values()))[0].cells)


def label_classes(rows: Rows, other_columns: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of a table: the names in its column `class`, sorted, or else its columns.

    Args:
        rows: The table.
        other_columns: Columns that are not classes, such as the group.
    """
    header = columns_of(rows)
    if CLASS_COLUMN in header:
        return tuple(sorted(named_classes(rows)))
    cut = CROP_COLUMNS if set(CROP_COLUMNS) <= set(header) else ()
    return tuple(name for name in header if name not in (*other_columns, *cut))


def named_classes(rows: Rows) -> set[str]:
    """Return the names in a table's column `class`; none if it has no such column."""
    return {row.cells.get(CLASS_COLUMN, "") for several in rows.values() for row in several} - {""}


def rows_of_classes(rows: Sequence[TableRow], classes: Sequence[str]) -> list[TableRow]:
    """Return one image's rows without those of other classes; rows that name no class are kept."""
    return [row for row in rows if row.cells.get(CLASS_COLUMN, "") in ("", *classes)]


def row_labels(name: str, rows: Sequence[TableRow], classes: Sequence[str], path: Path) -> tuple[bool, ...]:
    """Return one image's labels.

    Args:
        name: The image.
        rows: Its rows: one with 0 or 1 for each class; or, with a column `class`, one for each class that it has, whose
            cell is empty if it has none.
        classes: The classes.
        path: The table, for errors.

    Raises:
        DataError: If an answer is missing or is neither 0 nor 1, a class is unknown, or an image has two rows of
            answers.
    """
    if CLASS_COLUMN in rows[0].cells:
        named = {row.cells[CLASS_COLUMN]: row for row in rows if row.cells[CLASS_COLUMN]}
        for class_, row in named.items():
            _check_class(row, class_, classes)
        return tuple(class_ in named for class_ in classes)
    if len(rows) > 1:
        raise DataError(f"{rows[1].place}: expected one row for image {name!r}, got {len(rows)}")
    row, answers = rows[0], []
    for class_ in classes:
        cell = row.cells.get(class_)
        if cell is None:
            raise DataError(f"{path}: expected a column for the class {class_!r}, got {', '.join(row.cells)}")
        if cell.lower() not in ANSWERS:
            raise DataError(
                f"{row.place}: expected 0 or 1 for image {name!r} in column {class_!r}, got {cell!r}; if the column "
                f"names what a split must keep together, such as a patient or a field, set group: {class_}; if it is "
                "not a class for another reason, list the classes in the parameter 'classes'"
            )
        answers.append(ANSWERS[cell.lower()])
    return tuple(answers)


def row_objects(
    rows: Sequence[TableRow], columns: Sequence[str], classes: Sequence[str], size: tuple[int, int]
) -> tuple[FloatArray, ...]:
    """Return one image's boxes or points from its rows.

    Args:
        rows: One row for each object, with its class and coordinates; without a column `class`, all objects are of the
            only class. A row whose class and coordinates are empty says that the image has no object.
        columns: `BOX_COLUMNS` or `POINT_COLUMNS`. Boxes are given by their edges, where 0 is the edge of the image and
            the end is exclusive; points in pixels, where 0 is the centre of the first pixel.
        classes: The classes.
        size: (H, W) of the image. A box may reach beyond it but must not lie outside.

    Returns:
        Per class, float32 (N, 4) or (N, 2), in the order of `columns`.

    Raises:
        DataError: If a class is unknown, a coordinate is not a number, a box is empty, or an object lies outside the
            image. The message names file and line.
    """
    found: list[list[list[float]]] = [[] for _ in classes]
    for row in rows:
        if CLASS_COLUMN not in row.cells and len(classes) > 1:
            raise DataError(f"{row.place}: expected a column {CLASS_COLUMN!r}, got {', '.join(row.cells)}")
        class_ = row.cells.get(CLASS_COLUMN, classes[0])
        if not class_ and not any(row.cells.get(name, "-") for name in columns):
            continue
        _check_class(row, class_, classes)
        values = _coordinates(row, columns)
        found[classes.index(class_)].append((_box if len(columns) == len(BOX_COLUMNS) else _point)(row, values, size))
    return tuple(np.array(part, np.float32).reshape(-1, len(columns)) for part in found)


def value_of(name: str, rows: Rows, column: str, path: Path) -> str:
    """Return an image's value in one column.

    Raises:
        DataError: If the image has no row, there is no such column, or the image has no value or more than one.
    """
    if name not in rows:
        raise DataError(f"{path}: expected a row for image {name!r}, found none; its {column!r} is needed")
    row, values = rows[name][0], {row.cells.get(column) for row in rows[name]}
    if len(values) > 1:
        raise DataError(f"{row.place}: expected one {column!r} for image {name!r}, got {len(values)}")
    value = values.pop()
    if value is None:
        raise DataError(f"{path}: expected a column {column!r}, got {', '.join(row.cells)}")
    if not value:
        raise DataError(f"{row.place}: expected a {column!r} for image {name!r}, got an empty cell")
    return value


def check_images(rows: Rows, known: Iterable[str], where: str) -> None:
    """Raise `DataError`, naming file and line, if a table is about images that are not among the known ones."""
    names = set(known)
    unknown = [name for name in rows if name not in names]
    if unknown:
        others = f" and {counted(len(unknown) - 1, 'other image')}" if len(unknown) > 1 else ""
        raise DataError(f"{rows[unknown[0]][0].place}: image {unknown[0]!r}{others} not found in {where}")


def _other_encoding(path: Path) -> DataError:
    return DataError(f"{path}: expected a table in UTF-8, got another encoding; save it as CSV UTF-8")


def _header_hint(header: Sequence[str], image_column: str) -> str:
    """Return the likely reason why a header lacks the column of image names: tabs, or capital letters."""
    if len(header) == 1 and "\t" in header[0]:
        return "; the columns are separated by tabs: save the table with commas"
    expected = [image_column.lower()] if image_column else IMAGE_COLUMNS
    for name in header:
        if name.lower() in expected:
            return f"; capital letters matter: set image_column: {name}, or rename the column {name!r}"
    return "" if image_column else "; rename the column of image names, or name it with image_column"


def _coordinates(row: TableRow, columns: Sequence[str]) -> list[float]:
    values = []
    for name in columns:
        cell = row.cells.get(name)
        if cell is None:
            raise DataError(f"{row.place}: expected the columns {', '.join(columns)}, got {', '.join(row.cells)}")
        try:
            values.append(float(cell))
        except ValueError:
            raise DataError(f"{row.place}: expected a number in column {name!r}, got {cell!r}") from None
        if not math.isfinite(values[-1]):
            raise DataError(f"{row.place}: expected a finite number in column {name!r}, got {cell!r}")
    return values


def _check_class(row: TableRow, class_: str, classes: Sequence[str]) -> None:
    if class_ not in classes:
        raise DataError(
            f"{row.place}: expected one of the classes {', '.join(classes)}, got {class_!r}; add it to the parameter "
            "'classes', or remove its rows"
        )


def _box(row: TableRow, values: list[float], size: tuple[int, int]) -> list[float]:
    """Return a box as it is, or raise `DataError` if it is empty or outside the image."""
    sides = list(zip(values[:2], values[2:], size, strict=True))
    if any(low >= high for low, high, _ in sides):
        raise DataError(f"{row.place}: expected a box with xmin < xmax and ymin < ymax, got {dict(row.cells)}")
    if any(high <= 0 or low >= length for low, high, length in sides):
        raise DataError(f"{row.place}: the box lies outside its image of (H, W) = {size}: {dict(row.cells)}")
    return values


def _point(row: TableRow, values: list[float], size: tuple[int, int]) -> list[float]:
    """Return a point, moved to lie between pixel centres, or raise `DataError` if it is outside.

    Programs that count from the edge of the image rather than from the first pixel's centre give up to H and W.
    """
    if any(value < -0.5 or value > length for value, length in zip(values, size, strict=True)):
        raise DataError(f"{row.place}: the point lies outside its image of (H, W) = {size}: {dict(row.cells)}")
    return [min(max(value, 0.0), length - 1.0) for value, length in zip(values, size, strict=True)]


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name
