"""A folder of images with masks, class sub-folders and/or tables of labels, boxes and points."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, final

import numpy as np
from pydantic import Field, model_validator

from micraframe.batching import spread
from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.crops import field_of
from micraframe.datasets.image_dataset import ImageDataset, ImageDatasetParams
from micraframe.datasets.paths import find, image_files, images_in, resolve
from micraframe.datasets.sources import SourceImage
from micraframe.datasets.splits import EXCLUDED
from micraframe.datasets.tables import (
    BOX_COLUMNS,
    CLASS_COLUMN,
    CROP_COLUMNS,
    GROUP_COLUMN,
    POINT_COLUMNS,
    SPLIT_COLUMN,
    Rows,
    TableRow,
    check_images,
    columns_of,
    label_classes,
    named_classes,
    read_table,
    row_labels,
    row_objects,
    rows_of_classes,
    value_of,
)
from micraframe.errors import ConfigError, DataError, counted
from micraframe.images import read_image, read_labels, read_size
from micraframe.objects import is_numbered
from micraframe.parameters import Parameters
from micraframe.types import SPLITS, FloatArray, IntArray, Split

OBJECT = "object"
"""The name of the only class, unless one is given."""


class FolderFiles(Parameters):
    """The paths of a folder's images and of their annotation."""

    images: str = Field(description="Folder of the images; may begin with ~ or $MICRAFRAME_DATA/.")
    classes: tuple[str, ...] = Field(
        (),
        description="Names of the classes; empty: those of the labels, class folders, tables or masks. In the table of "
        "labels, these are all columns but split and group and, if `micraframe crops` wrote it, source, y and x. Rows "
        "of other classes than these are left out; an image that has only such rows contains none of these.",
    )
    labels: str = Field(
        "", description="CSV of labels: image names, and a column of 0 and 1 per class or one column 'class'."
    )
    class_folders: bool = Field(False, description="Images are in one sub-folder per class.")
    negative_folder: str = Field("", description="With class_folders: the sub-folder of images without any class.")
    masks: str | dict[str, str] = Field(
        "", description="Folder of masks named like the images, or one per class: {class: folder}."
    )
    mask_kind: Literal["binary", "instances"] = Field(
        "binary", description="What values other than 0 in a mask mean: the class, or numbered objects."
    )
    boxes: str = Field("", description="CSV of boxes: image, class, xmin, ymin, xmax, ymax in pixels, ends exclusive.")
    points: str = Field("", description="CSV of points: image, class, x, y in pixels; 0 is the first pixel's centre.")
    unlabelled: Literal["error", "skip", "negative"] = Field(
        "error",
        description="What to do with an image without any annotation, or with an empty cell in its row of labels; "
        "negative: it does not contain the class.",
    )
    index: str = Field("", description="CSV of splits and groups, one row per image; empty: the table of labels.")
    image_column: str = Field(
        "", description="Column of image names in the tables; empty: image, name, file or filename."
    )
    split: str | None = Field(
        "",
        description="Column of the index, or of the labels, that holds train, valid or test, or none for an image to "
        "leave out. Empty: the column 'split' if there is one and it is not among the classes, otherwise images are "
        "divided at random; null: always at random.",
    )
    group: str | None = Field(
        "",
        description="Column of the index, or of the labels, that names what a split must keep together: a patient, a "
        "slide, a field. Empty: the column 'group' if there is one and it is not among the classes, otherwise the "
        "image that a crop named NAME@yYxX was cut from, or each image by itself; null: each image is its own group.",
    )


@final
class Folder(ImageDataset["Folder.Params"]):
    """A folder of images and their annotation.

    The annotation is at least one of: a table of image-level labels (`labels`), a sub-folder of images for each class
    (`class_folders`), masks or numbered objects (`masks`), a table of `boxes`, a table of `points`. Without labels,
    `positive_rule` derives them from masks, or else from boxes, or else from points. Images are taken whole or cut into
    crops; boxes are clipped to a crop, and boxes and points outside it are dropped. Columns named `split` and `group`
    in the index or in the table of labels are used as such. An image whose split is `none` is left out. Images that
    `micraframe crops` cut are read with the table that it wrote as `labels`; without its column `group`, the names of
    the crops say which are of one image.
    """

    path_params = ("images", "labels", "masks", "boxes", "points", "index")

    class Params(ImageDatasetParams, FolderFiles):
        @model_validator(mode="after")
        def _annotated(self) -> Folder.Params:
            located = self.masks or self.boxes or self.points
            if not (self.labels or self.class_folders or located):
                raise ValueError("expected at least one of labels, class_folders, masks, boxes and points, got none")
            if self.labels and self.class_folders:
                raise ValueError("labels and class_folders both give labels: give one of them")
            if self.crop and not located:
                raise ValueError("labels of crops follow from masks, boxes or points: give these, or omit crop")
            if self.crop and (self.labels or self.class_folders):
                raise ValueError("labels of images do not hold for crops: omit labels and class_folders, or crop")
            if self.negative_folder and not self.class_folders:
                raise ValueError("negative_folder needs class_folders: true")
            if (self.split or self.group) and not (self.index or self.labels):
                raise ValueError("split and group are columns of a table: give index or labels")
            return self

    def default_name(self) -> str:
        """Return the folder's name, or its parent's if it is just called `images`."""
        folder = resolve(self.params.images).resolve()
        name = folder.parent.name if folder.name == "images" else folder.name
        return re.sub(r"[^\w .-]", "_", name).lstrip(" .") or "folder"

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes.

        Raises:
            ConfigError: If `classes` disagrees with class folders or folders of masks.
            DataError: If a folder or table is missing or broken, or names no class, or not those of `classes`.
        """
        params = self.params
        found: tuple[str, ...]
        if params.class_folders:
            folder = resolve(params.images)
            if not folder.is_dir():
                raise DataError(f"{folder}: image folder not found")
            folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
            found = tuple(name for name in folders if name != params.negative_folder)
        elif params.labels:
            not_classes = {SPLIT_COLUMN, GROUP_COLUMN, params.split or "", params.group or ""}
            found = label_classes(self._tables[params.labels], tuple(not_classes))
        elif isinstance(params.masks, dict):
            found = tuple(params.masks)
        else:
            tables = [self._tables[path] for path in (params.boxes, params.points) if path]
            found = tuple(sorted(set().union(*map(named_classes, tables)))) or (OBJECT,)
        classes = params.classes or found
        named = {*params.classes, *(params.masks if isinstance(params.masks, dict) else ())}
        if self.has_instances() and params.contact_class not in named:
            # It is made, and may have a column of labels.
            classes = tuple(name for name in classes if name != params.contact_class)
        if not classes:
            raise DataError(f"{params.labels or params.images}: expected names of classes, got none; set 'classes'")
        if params.class_folders and set(classes) != set(found):
            raise ConfigError(f"expected the folders' names as classes, {', '.join(found)}, got {', '.join(classes)}")
        if isinstance(params.masks, dict) and set(classes) != set(params.masks):
            raise ConfigError(
                f"expected masks of the classes {', '.join(classes)}, got masks of {', '.join(params.masks)}"
            )
        if params.classes:
            self._check_tables(classes)
        return classes

    def _check_tables(self, classes: tuple[str, ...]) -> None:
        """Raise `DataError` if a table has rows of other classes, and none of these classes or of one of them.

        A class may be absent, and others of no interest, but not both: the names differ.
        """
        params = self.params
        tables = {
            path: named_classes(self._tables[path]) for path in (params.labels, params.boxes, params.points) if path
        }
        # Class folders, masks or columns may be about the class.
        elsewhere = params.class_folders or bool(params.masks) or not all(tables.values())
        known = {*classes} if elsewhere else set().union(*tables.values())
        for path, names in tables.items():
            missing = [name for name in classes if name not in known] if names & {*classes} else classes
            if missing and names - {*classes}:
                raise DataError(
                    f"{resolve(path)}: expected rows of the classes {', '.join(missing)}, got "
                    f"{', '.join(sorted(names))}; write the names in 'classes' as the table does, or leave out those "
                    "that it lacks"
                )

    def has_instances(self) -> bool:
        """Return whether masks hold numbered objects."""
        return bool(self.params.masks) and self.params.mask_kind == "instances"

    def is_cut(self) -> bool:
        """Return whether `micraframe crops` cut the images."""
        return bool(self.params.labels) and {*CROP_COLUMNS} <= {*columns_of(self._tables[self.params.labels])}

    def other_classes(self) -> dict[str, int]:
        """Return the number of rows of each class that tables name but `classes` does not; these rows are left out."""
        tables = [self._tables[path] for path in (self.params.labels, self.params.boxes, self.params.points) if path]
        names = (row.cells.get(CLASS_COLUMN, "") for table in tables for rows in table.values() for row in rows)
        found = Counter(name for name in names if name not in ("", *self._label_names))
        return dict(sorted(found.items()))

    def mask_warning(self, most: int | None = None) -> str:
        """Return why masks look like those of the other `mask_kind`; empty if they do not.

        Args:
            most: Largest number of images whose masks are read; None reads all.
        """
        several = [masks for name in self._images() if (masks := self._masks_of(name))]
        several = spread(several, most) if most else several
        stacks = ((masks, self._stack(masks)) for masks in several)
        kinds = [(masks, is_numbered(stack)) for masks, stack in stacks if stack.any()]
        numbered = [masks for masks, several_values in kinds if several_values]
        if self.params.mask_kind == "binary" and numbered:
            return (
                f"{len(numbered)} of {counted(len(several), 'mask')} have several values other than 0 (first: "
                f"{', '.join(map(str, numbered[0]))}), each of which means the class with mask_kind: binary; if they "
                "number objects, set mask_kind: instances; if they are indices of classes, split masks into one file "
                "per class"
            )
        if self.params.mask_kind == "instances" and kinds and not numbered:
            return (
                f"none of {counted(len(several), 'mask')} has several values other than 0, so that with mask_kind: "
                "instances an image has one object at most; if masks are binary, set mask_kind: binary"
            )
        return ""

    def sources(self) -> list[SourceImage]:
        """Return all images of all splits, by name.

        Raises:
            DataError: If a file is missing or broken, a table is about images that do not exist, or an image is not
                annotated.
        """
        params, images = self.params, self._images()
        split = self._column(params.split, SPLIT_COLUMN)
        for table in filter(None, (params.labels, params.boxes, params.points)):
            check_images(self._tables[table], images, params.images)
        sources, unlabelled = [], []
        for name, path in images.items():
            if split and any(row.cells.get(split[1]) == EXCLUDED for row in self._tables[split[0]].get(name, ())):
                continue
            labels, masks = self._labels_of(name), self._masks_of(name)
            tables = [table for table in (params.boxes, params.points) if table and name in self._tables[table]]
            known = bool(masks or tables)
            if labels is None and not known:
                unlabelled.append(path.name + self._empty_cell(name))
                if params.unlabelled == "skip":
                    continue
                if params.labels:
                    labels = (False,) * len(self._label_names)
            read = functools.partial(self._annotation, name, path, masks) if known or labels is None else None
            files = (path, *masks, *map(resolve, tables))
            group, assigned = self._group_and_split(name)
            sources.append(SourceImage(name, functools.partial(read_image, path), read, labels, group, assigned, files))
        lacking = bool(unlabelled) and (not sources or params.unlabelled == "error")
        if params.masks and not params.class_folders:
            self._check_mask_names(images, lacking and not (params.labels or params.boxes or params.points))
        if lacking and params.unlabelled == "skip" and self._all_cells_are_empty():
            raise DataError(f"{resolve(params.labels)}: expected 0 or 1, got only empty cells; fill in some")
        if lacking:
            listed = ", ".join(unlabelled[:5]) + (", ..." if len(unlabelled) > 5 else "")
            raise DataError(
                f"{params.images}: expected an annotation of each image, got none of {len(unlabelled)}: {listed}; "
                f"annotate {'some' if params.unlabelled == 'skip' else 'them'}, or set unlabelled: "
                f"{'' if params.unlabelled == 'skip' else 'skip, or '}negative if they contain no class"
            )
        return sources

    def _check_mask_names(self, images: Mapping[str, Path], required: bool) -> None:
        """Raise `DataError` if there are masks but none of an image, or if there are none and they are required."""
        given = self.params.masks
        folders = [resolve(folder) for folder in (given.values() if isinstance(given, dict) else [given])]
        masks = [path for folder in folders for path in image_files(folder)]
        if any(path.stem in images for path in masks) or not (masks or required):
            return
        if not masks:
            raise DataError(f"{folders[0]} is empty; expected masks named like the images, such as {min(images)}.png")
        first = masks[0]
        alike = max((name for name in images if name in first.stem), key=len, default=min(images))
        raise DataError(
            f"{first.parent}: {counted(len(masks), 'mask')} found, none named like an image; the first is "
            f"{first.name}, expected {alike}{first.suffix}"
        )

    def _all_cells_are_empty(self) -> bool:
        """Return whether the table of labels has no answer at all."""
        rows = [row for several in self._tables.get(self.params.labels, {}).values() for row in several]
        return bool(rows) and not any(
            row.cells.get(name) for row in rows for name in (*self._label_names, CLASS_COLUMN)
        )

    @functools.cached_property
    def _tables(self) -> dict[str, Rows]:
        params = self.params
        paths = filter(None, (params.labels, params.boxes, params.points, params.index))
        return {path: read_table(resolve(path), params.image_column) for path in paths}

    def _images(self) -> dict[str, Path]:
        folder = resolve(self.params.images)
        if not self.params.class_folders:
            return images_in(folder)
        folders = [*self.classes(), *filter(None, [self.params.negative_folder])]
        return dict(sorted(item for name in folders for item in images_in(folder / name, f"{name}/").items()))

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        return self.classes()

    @functools.cached_property
    def _label_names(self) -> tuple[str, ...]:
        """The classes that a table of labels is about: also a contact class that is made from masks."""
        return tuple(dict.fromkeys([*self._class_names, *filter(None, [self.params.contact_class])]))

    def _labels_of(self, name: str) -> tuple[bool, ...] | None:
        params = self.params
        if params.class_folders:
            return tuple(class_ == name.partition("/")[0] for class_ in self._class_names)
        rows = self._tables[params.labels].get(name) if params.labels else None
        if rows is None or (params.unlabelled != "negative" and self._empty_cell(name)):
            return None
        if params.unlabelled == "negative" and CLASS_COLUMN not in rows[0].cells:
            rows = [TableRow({key: cell or "0" for key, cell in row.cells.items()}, row.place) for row in rows]
        if params.classes and CLASS_COLUMN in rows[0].cells:
            rows = rows_of_classes(rows, self._label_names) or [TableRow({CLASS_COLUMN: ""}, rows[0].place)]
        return row_labels(name, rows, self._label_names, resolve(params.labels))

    def _empty_cell(self, name: str) -> str:
        """Return where the first empty cell of an image's labels is, for a message, or nothing if all are filled in."""
        rows = self._tables[self.params.labels].get(name, []) if self.params.labels else []
        # In a column of classes, an empty cell says that the image has none.
        cells = ((row, name) for row in rows for name in self._label_names if CLASS_COLUMN not in row.cells)
        return next((f" ({row.place}: {name!r} is empty)" for row, name in cells if row.cells.get(name) == ""), "")

    def _masks_of(self, name: str) -> tuple[Path, ...]:
        if not self.params.masks:
            return ()
        if isinstance(self.params.masks, str):
            path = find(resolve(self.params.masks), name)
            return (path,) if path else ()
        folders = [resolve(self.params.masks[class_]) for class_ in self._class_names]
        paths = [find(folder, name) for folder in folders]
        if any(paths) and not all(paths):
            missing = folders[paths.index(None)]
            raise DataError(f"{missing}: no mask for image {name!r}, although other classes have one; add an empty one")
        return tuple(path for path in paths if path)

    def _group_and_split(self, name: str) -> tuple[str, Split | None]:
        """Return what a split keeps together, empty for the image by itself, and the split if a table gives it."""
        params = self.params
        group = self._column(params.group, GROUP_COLUMN)
        split = self._column(params.split, SPLIT_COLUMN)
        if group:
            kept_together = value_of(name, self._tables[group[0]], group[1], resolve(group[0]))
        else:
            # In class folders, the crops of one image lie in several.
            kept_together = "" if params.group is None else field_of(name.rpartition("/")[2])
        if not split:
            return kept_together, None
        path, column = split
        value = value_of(name, self._tables[path], column, resolve(path))
        if value not in SPLITS:
            place = self._tables[path][name][0].place
            hint = "" if params.split else "; if the column is a class, list the classes in the parameter 'classes'"
            raise DataError(
                f"{place}: expected {', '.join(SPLITS)} or {EXCLUDED} in column {column!r}, got {value!r}{hint}"
            )
        return kept_together, value

    def _column(self, given: str | None, default: str) -> tuple[str, str] | None:
        """Return the table and the column that hold each image's split or group, or None if there is no such column.

        Args:
            given: The parameter: a column, empty for the default column if a table has it, or None for no column.
            default: The default column.
        """
        params = self.params
        if given:
            return params.index or params.labels, given
        if given is None:
            return None
        is_class = default in params.classes
        paths = (params.index, "" if is_class else params.labels)
        return next(((path, default) for path in paths if path and default in columns_of(self._tables[path])), None)

    def _annotation(self, name: str, path: Path, masks: tuple[Path, ...]) -> ImageAnnotation:
        """Read what is annotated in an image; an image that nothing mentions contains no class."""
        params = self.params
        stack = self._stack(masks) if masks else None
        size = read_size(path) if stack is None else (stack.shape[1], stack.shape[2])
        boxes = self._objects(params.boxes, name, BOX_COLUMNS, size)
        points = self._objects(params.points, name, POINT_COLUMNS, size)
        if stack is None and boxes is None and points is None:
            empty = [np.zeros((0, len(columns)), np.float32) for columns in (BOX_COLUMNS, POINT_COLUMNS)]
            boxes, points = (
                (part,) * len(self._class_names) if table else None
                for part, table in zip(empty, (params.boxes, params.points), strict=True)
            )
            stack = np.zeros((len(self._class_names), *size), np.int32) if params.masks else None
        return ImageAnnotation(
            masks=None if stack is None else stack != 0,
            instances=stack if params.mask_kind == "instances" else None,
            boxes=boxes,
            points=points,
            size=size,
        )

    def _objects(
        self, table: str, name: str, columns: Sequence[str], size: tuple[int, int]
    ) -> tuple[FloatArray, ...] | None:
        rows = self._tables[table].get(name) if table else None
        if not rows:
            return None
        rows = rows_of_classes(rows, self._class_names) if self.params.classes else rows
        return row_objects(rows, columns, self._class_names, size)

    def _stack(self, paths: tuple[Path, ...]) -> IntArray:
        """Read the mask files of an image, int32 (K, H, W)."""
        planes = [read_labels(path) for path in paths]
        if len({plane.shape for plane in planes}) > 1:
            sizes = ", ".join(f"{path}: {plane.shape}" for path, plane in zip(paths, planes, strict=True))
            raise DataError(f"{paths[0]}: expected masks of one size, got {sizes}")
        stack = planes[0] if len(planes) == 1 and planes[0].ndim == 3 else np.stack(planes)
        if stack.ndim != 3 or len(stack) != len(self._class_names):
            raise DataError(
                f"{paths[0]}: expected masks (H, W), in one file or plane for each of {', '.join(self._class_names)}, "
                f"got shape {planes[0].shape}"
            )
        if stack.min() < 0:
            raise DataError(f"{paths[0]}: expected 0 for background and positive numbers, got {stack.min()}")
        return stack
