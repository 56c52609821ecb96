"""A folder of images with a table of labels, class sub-folders and/or masks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final, overload

import numpy as np
from pydantic import Field, model_validator

from micraframe.datasets.crops import BETWEEN, POSITIVE, Window, grid, judge
from micraframe.datasets.normalising import Normalising, fit
from micraframe.datasets.paths import file_digest, find, images_in, resolve
from micraframe.datasets.splits import check_groups, random_splits
from micraframe.datasets.tables import Rows, label_classes, labels_of, read_table, value_of
from micraframe.errors import ConfigError, DataError
from micraframe.files import digest, digest_json
from micraframe.images import read_image, read_labels
from micraframe.interfaces import Dataset, Parameters
from micraframe.objects import bounding_boxes, centroids, components
from micraframe.types import SPLITS, BoolArray, DatasetInfo, FloatArray, IntArray, Normalisation, Sample, Split

OBJECT = "object"
"""The name of the class where there is one folder of masks and no name is given."""

_CACHED = 4
"""Whole images kept in memory; samples are read image by image."""


@dataclass(frozen=True)
class Entry:
    """One image of the folder.

    Attributes:
        name: Its file name without suffix, after that of its class folder where there is one.
        path: Its file.
        labels: Its image-level labels, where a table or its folder gives them.
        masks: Its mask files: none, one, or one for each class.
        group: What must stay together.
        split: Where it belongs.
    """

    name: str
    path: Path
    labels: tuple[bool, ...] | None
    masks: tuple[Path, ...]
    group: str
    split: Split


@dataclass(frozen=True)
class Item:
    """What one sample is made of: an image, or one window of it."""

    entry: Entry
    window: Window | None
    labels: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A whole image, float32 (C, H, W), normalised; and its masks, as far as there are any."""

    image: FloatArray
    masks: BoolArray | None
    instances: IntArray | None


class FolderSamples(Sequence[Sample]):
    """Samples that are read when they are asked for."""

    def __init__(self, items: Sequence[Item], load: Callable[[Entry], Loaded], pixel_size_um: float | None) -> None:
        self._items = tuple(items)
        self._load = load
        self._pixel_size_um = pixel_size_um

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._sample(item) for item in self._items[index]]
        return self._sample(self._items[index])

    def _sample(self, item: Item) -> Sample:
        entry, window = item.entry, item.window
        loaded = self._load(entry)
        place = (..., *window.place) if window else ...
        # Copies: whoever keeps or changes a sample has nothing to do with the whole image.
        masks = None if loaded.masks is None else loaded.masks[place].copy()
        instances = None if loaded.instances is None else loaded.instances[place].copy()
        return Sample(
            id=f"{entry.name}@y{window.y}x{window.x}" if window else entry.name,
            image=loaded.image[place].copy(),
            labels=np.array(item.labels, np.bool_),
            points=None if instances is None else centroids(instances),
            boxes=None if instances is None else bounding_boxes(instances),
            masks=masks,
            instances=instances,
            pixel_size_um=self._pixel_size_um,
            group=entry.group,
            source=str(entry.path),
        )


@final
class Folder(Dataset):
    """A folder of images, and what is known of them.

    What is known is at least one of: a table of image-level labels (`labels`), a sub-folder of images for each class
    (`class_folders`), masks or numbered objects (`masks`). Images are taken whole or cut into crops. A crop's labels
    come from the masks: a class is absent where none of it is annotated, present where enough of it is (`rule`), and
    a crop in between is left out of training and validation.
    """

    class Params(Parameters):
        images: str = Field(description="Folder of the images; relative, or beginning with ~ or $MICRAFRAME_DATA/.")
        name: str = Field("", description="The dataset's name in tables; the folder's name where empty.")
        classes: tuple[str, ...] = Field(
            (), description="Names of the classes; empty takes them from labels, class folders or masks."
        )
        labels: str = Field(
            "", description="CSV of labels: image names, and a column of 0 and 1 per class or one column 'class'."
        )
        class_folders: bool = Field(False, description="Images are in one sub-folder per class.")
        negative_folder: str = Field("", description="With class_folders: the sub-folder of images without any class.")
        masks: str | dict[str, str] = Field(
            "", description="Folder of masks named as the images are, or one for each class: {class: folder}."
        )
        mask_kind: Literal["binary", "instances"] = Field(
            "binary", description="What is not 0 in a mask: the class, or numbered objects."
        )
        unlabelled: Literal["error", "skip"] = Field("error", description="What to do about an image without labels.")

        crop: int | None = Field(None, ge=8, description="Height and width of crops in pixels; null: whole images.")
        stride: int | None = Field(None, ge=1, description="From crop to crop; null: crops lie side by side.")
        rule: Literal["share", "object"] = Field(
            "share",
            description="A class is present where the annotated share of the image or crop is at least `share`, or the "
            "annotated area at least that of the mean object of the training images.",
        )
        share: float = Field(0.0, ge=0, le=1, description="For rule share; 0: one annotated pixel is enough.")
        test_between: Literal["drop", "positive", "negative"] = Field(
            "drop", description="In the test split, what becomes of images or crops with some, but not enough."
        )
        max_crops_per_image: int | None = Field(None, ge=1, description="At most so many, chosen at random.")
        limit: int | None = Field(None, ge=1, description="At most so many images, chosen at random.")

        index: str = Field("", description="CSV with the columns split and group; the labels' where empty.")
        image_column: str = Field(
            "", description="Column of image names in the tables; empty: image, name, file or filename."
        )
        split: str = Field("", description="Column that says train, valid or test; empty: at random.")
        group: str = Field("", description="Column of what a split must not cut in two: a patient, a slide, a field.")
        valid: float = Field(0.2, ge=0, lt=1, description="Share of the images for validation.")
        test: float = Field(0.2, ge=0, lt=1, description="Share of the images for testing.")
        seed: int = Field(0, ge=0, description="Fixes all that is random.")

        normalisation: Normalising = Field(Normalising(), description="How intensities come to a common range.")
        pixel_size_um: float | None = Field(None, gt=0, description="Edge of a pixel in micrometres.")
        licence: str = Field("", description="Licence of the data.")
        citation: str = Field("", description="Whom to cite for the data.")

        @model_validator(mode="after")
        def _fits(self) -> Folder.Params:
            if not (self.labels or self.class_folders or self.masks):
                raise ValueError("nothing is known of the images: give labels, class_folders or masks")
            if self.labels and self.class_folders:
                raise ValueError("labels and class_folders both say what is in an image: give one of them")
            if self.crop and not self.masks:
                raise ValueError("labels of crops come from masks: give masks, or leave crop away")
            if self.crop and (self.labels or self.class_folders):
                raise ValueError("labels of crops come from masks: leave labels and class_folders away, or crop")
            if self.stride and self.stride > (self.crop or 0):
                raise ValueError(f"stride {self.stride} would leave pixels between crops of {self.crop} px out")
            if self.negative_folder and not self.class_folders:
                raise ValueError("negative_folder is one of class_folders")
            if (self.split or self.group) and not (self.index or self.labels):
                raise ValueError("split and group are columns of a table: give index or labels")
            if self.valid + self.test >= 1:
                raise ValueError(f"valid {self.valid} and test {self.test} leave nothing for training")
            return self

    def __init__(self, params: Params) -> None:
        self.params = params

    def info(self) -> DatasetInfo:
        """Return what must be known of the dataset besides its samples.

        Raises:
            ConfigError: If `$MICRAFRAME_DATA` is wanted but not set, or classes and folders of masks do not match.
            DataError: If a file is missing or broken; the message names it.
        """
        params = self.params
        files = [path for entry in self._entries for path in (entry.path, *entry.masks)]
        tables = [resolve(path) for path in (params.labels, params.index) if path]
        # The same files in another place are the same dataset, whatever it is called and whomever it belongs to.
        settings = params.model_dump(
            mode="json", exclude={"images", "masks", "labels", "index", "name", "licence", "citation"}
        )
        return DatasetInfo(
            name=params.name or _name_of(resolve(params.images)),
            classes=self._classes,
            channels=self._channels,
            normalisation=self._normalisation,
            fingerprint=digest(
                digest_json([settings, self._classes, [entry.name for entry in self._entries]]),
                *map(file_digest, files + tables),
            ),
            pixel_size_um=params.pixel_size_um,
            licence=params.licence,
            citation=params.citation,
            image_size=(params.crop, params.crop) if params.crop else None,
        )

    def samples(self, split: Split) -> FolderSamples:
        """Return the samples of a split, image by image, each read when it is asked for.

        Raises:
            ConfigError: As `info`.
            DataError: If a file is missing or broken; the message names it.
        """
        items = [item for entry in self._entries if entry.split == split for item in self._items(entry)]
        return FolderSamples(items, functools.lru_cache(_CACHED)(self._load), self.params.pixel_size_um)

    @functools.cached_property
    def _label_rows(self) -> Rows:
        return read_table(resolve(self.params.labels), self.params.image_column) if self.params.labels else {}

    @functools.cached_property
    def _classes(self) -> tuple[str, ...]:
        params = self.params
        found: tuple[str, ...]
        if params.class_folders:
            folder = resolve(params.images)
            if not folder.is_dir():
                raise DataError(f"{folder}: there is no such folder of images")
            folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
            found = tuple(name for name in folders if name != params.negative_folder)
        elif params.labels:
            found = label_classes(self._label_rows, (params.split, params.group))
        else:
            found = tuple(params.masks) if isinstance(params.masks, dict) else (OBJECT,)
        classes = params.classes or found
        if not classes:
            raise DataError(f"{params.labels or params.images}: no class is named there; name them in 'classes'")
        if params.class_folders and set(classes) != set(found):
            raise ConfigError(f"classes {', '.join(classes)}, but the folders are {', '.join(found)}")
        if isinstance(params.masks, dict) and set(classes) != set(params.masks):
            raise ConfigError(f"classes {', '.join(classes)}, but masks are given for {', '.join(params.masks)}")
        return classes

    @functools.cached_property
    def _entries(self) -> tuple[Entry, ...]:
        """All images of all splits, by name."""
        params = self.params
        images = self._images()
        if missing := sorted(self._label_rows.keys() - dict(images).keys()):
            raise DataError(
                f"{params.labels}: has {len(missing)} images that are not in {params.images}: {_some(missing)}"
            )
        known, unlabelled = [], []
        for name, path in images:
            labels, masks = self._labels_of(name), self._masks_of(name)
            if labels is None and not masks:
                unlabelled.append(path.name)
            else:
                known.append((name, path, labels, masks))
        if not known or (unlabelled and params.unlabelled == "error"):
            where = params.labels or params.masks
            raise DataError(
                f"{params.images}: {len(unlabelled)} images have neither labels nor masks in {where}: "
                f"{_some(unlabelled)}; label them, or set unlabelled: skip"
            )
        if params.limit and params.limit < len(known):
            chosen = np.random.default_rng(params.seed).choice(len(known), params.limit, replace=False)
            known = [known[index] for index in sorted(chosen)]
        groups, splits = self._groups_and_splits([name for name, *_ in known])
        return tuple(Entry(*what, group, split) for what, group, split in zip(known, groups, splits, strict=True))

    def _images(self) -> list[tuple[str, Path]]:
        folder = resolve(self.params.images)
        if not self.params.class_folders:
            return list(images_in(folder).items())
        folders = [*self._classes, *filter(None, [self.params.negative_folder])]
        return sorted(item for name in folders for item in images_in(folder / name, f"{name}/").items())

    def _labels_of(self, name: str) -> tuple[bool, ...] | None:
        if self.params.class_folders:
            return tuple(class_ == name.partition("/")[0] for class_ in self._classes)
        if name not in self._label_rows:
            return None
        return labels_of(name, self._label_rows[name], self._classes, resolve(self.params.labels))

    def _masks_of(self, name: str) -> tuple[Path, ...]:
        if not self.params.masks:
            return ()
        if isinstance(self.params.masks, str):
            path = find(resolve(self.params.masks), name)
            return (path,) if path else ()
        folders = [resolve(self.params.masks[class_]) for class_ in self._classes]
        paths = [find(folder, name) for folder in folders]
        if any(paths) and not all(paths):
            missing = folders[paths.index(None)]
            raise DataError(
                f"{missing}: there is no mask for image {name!r}, but other classes have one; add it, empty"
            )
        return tuple(path for path in paths if path)

    def _groups_and_splits(self, names: Sequence[str]) -> tuple[list[str], list[Split]]:
        params = self.params
        table = resolve(params.index or params.labels)
        rows = read_table(table, params.image_column) if params.index else self._label_rows
        groups = [value_of(name, rows, params.group, table) for name in names] if params.group else list(names)
        if not params.split:
            shares: dict[Split, float] = {"train": 1 - params.valid - params.test}
            shares |= {"valid": params.valid, "test": params.test}
            return groups, random_splits(groups, shares, params.seed)
        splits: list[Split] = []
        for name in names:
            value = value_of(name, rows, params.split, table)
            if value not in SPLITS:
                raise DataError(f"{table}: image {name!r} has {params.split} {value!r}; wanted {', '.join(SPLITS)}")
            splits.append(value)
        check_groups(groups, splits)
        return groups, splits

    @functools.cached_property
    def _channels(self) -> int:
        return len(read_image(self._entries[0].path))

    @functools.cached_property
    def _normalisation(self) -> Normalisation:
        return fit(self.params.normalisation, (self._image(entry) for entry in self._entries if entry.split == "train"))

    @functools.cached_property
    def _mean_areas(self) -> list[float]:
        """The mean area, in pixels, of the training images' objects of each class."""
        pixels, objects = np.zeros((2, len(self._classes)))
        for stack in (self._stack(entry) for entry in self._entries if entry.split == "train"):
            numbered = stack if self.params.mask_kind == "instances" else components(stack != 0)
            pixels += np.count_nonzero(numbered, axis=(1, 2))
            objects += [np.count_nonzero(np.bincount(labels.ravel())[1:]) for labels in numbered]
        if not objects.all():
            empty = self._classes[int(np.argmin(objects))]
            raise DataError(
                f"{self.params.images}: rule object, but no training image has an object of class {empty!r}"
            )
        return list(pixels / objects)

    def _items(self, entry: Entry) -> list[Item]:
        """The samples of an image."""
        if entry.labels is not None:
            return [Item(entry, None, entry.labels)]
        items = list(self._judged(entry, self._stack(entry) != 0))
        most = self.params.max_crops_per_image
        if most and most < len(items):
            # Whatever other images there are.
            rng = np.random.default_rng([self.params.seed, int(digest(entry.name)[:15], 16)])
            items = [items[index] for index in sorted(rng.choice(len(items), most, replace=False))]
        return items

    def _judged(self, entry: Entry, masks: BoolArray) -> Iterator[Item]:
        params, size = self.params, masks.shape[1:]
        windows = grid(size, params.crop, params.stride or params.crop) if params.crop else [Window(0, 0, *size)]
        for window in windows:
            by_share = [params.share * window.height * window.width] * len(masks)
            answers = judge(masks[..., *window.place], by_share if params.rule == "share" else self._mean_areas)
            labels = answers == POSITIVE
            if BETWEEN in answers:
                if entry.split != "test" or params.test_between == "drop":
                    continue
                labels |= (answers == BETWEEN) & (params.test_between == "positive")
            yield Item(entry, window if params.crop else None, tuple(labels.tolist()))

    def _load(self, entry: Entry) -> Loaded:
        image = self._normalisation.apply(self._image(entry))
        if not entry.masks:
            return Loaded(image, None, None)
        stack = self._stack(entry)
        if stack.shape[1:] != image.shape[1:]:
            raise DataError(
                f"{entry.masks[0]}: the mask has (H, W) = {stack.shape[1:]}, its image {entry.path} {image.shape[1:]}"
            )
        return Loaded(image, stack != 0, stack if self.params.mask_kind == "instances" else None)

    def _image(self, entry: Entry) -> FloatArray:
        image = read_image(entry.path)
        if len(image) != self._channels:
            first = self._entries[0].path
            raise DataError(f"{entry.path}: has {len(image)} channels, but {first.name} has {self._channels}")
        return image

    def _stack(self, entry: Entry) -> IntArray:
        """Read what the mask files of an image hold, int32 (K, H, W)."""
        planes = [read_labels(path) for path in entry.masks]
        if len({plane.shape for plane in planes}) > 1:
            sizes = ", ".join(f"{path}: {plane.shape}" for path, plane in zip(entry.masks, planes, strict=True))
            raise DataError(f"the masks of image {entry.name!r} differ in size: {sizes}")
        stack = planes[0] if len(planes) == 1 and planes[0].ndim == 3 else np.stack(planes)
        if stack.ndim != 3 or len(stack) != len(self._classes):
            raise DataError(
                f"{entry.masks[0]}: has shape {planes[0].shape}; (H, W) is wanted, in one file or plane for each of "
                f"{', '.join(self._classes)}"
            )
        if stack.min() < 0:
            raise DataError(f"{entry.masks[0]}: has negative values; 0 is background, what is above is annotated")
        return stack


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _name_of(folder: Path) -> str:
    """Return a folder's name, or that of the folder around one that is just called `images`."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "images" else folder.name
