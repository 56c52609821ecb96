"""A dataset of whole images: given their readers, it does the cropping, labelling, splitting and normalising."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar, final

import numpy as np
from pydantic import Field, model_validator

from micraframe.datasets.annotation import ImageAnnotation, mean_object_areas
from micraframe.datasets.contact import with_contact
from micraframe.datasets.crops import (
    Cropping,
    Handling,
    LabelRule,
    PositiveRule,
    Window,
    crop_sample,
    field_of,
    judge_windows,
    resolve_ambiguous,
    with_objects,
)
from micraframe.datasets.normalisation import NormalisationParams, fit_normalisation
from micraframe.datasets.sources import (
    LazySamples,
    SourceImage,
    fingerprint,
    read_annotation,
    read_scaled,
    read_shape,
    read_whole,
)
from micraframe.datasets.splits import check_groups, random_splits
from micraframe.errors import BatchError, ConfigError, DataError, counted
from micraframe.images import scaled_size
from micraframe.interfaces import Dataset
from micraframe.objects import objects_of
from micraframe.parameters import Parameters
from micraframe.types import DatasetInfo, FloatArray, IntArray, Normalisation, Sample, Split

_CACHED = 4
"""Whole images kept in memory: samples are usually read image by image."""


class ImageDatasetParams(Parameters):
    """The parameters of every dataset of whole images."""

    name: str = Field("", description="The dataset's name in tables; empty: the dataset chooses one.")

    crop: int | None = Field(None, ge=8, description="Height and width of crops in pixels; null keeps images whole.")
    stride: int | None = Field(
        None, ge=1, description="Distance from one crop to the next in pixels; null places crops side by side."
    )
    whole_images: tuple[Split, ...] = Field(
        (),
        description="Splits whose images are not cut into crops, such as test: for methods that learn from crops and "
        "find objects in large images.",
    )
    positive_rule: PositiveRule = Field(
        "share",
        description="When an image or crop contains a class. share: at least `share` of its pixels are annotated; "
        "object: at least the area of the training images' mean object is annotated; visible: at least `visible` of "
        "some object lies inside it.",
    )
    share: float = Field(
        0.0, ge=0, le=1, description="For positive_rule share: fraction of pixels; 0: one annotated pixel is enough."
    )
    visible: float = Field(0.5, gt=0, le=1, description="For positive_rule visible: fraction of an object's area.")
    ambiguous_train_crops: Literal["drop", "negative"] = Field(
        "drop",
        description="How to treat images and crops with too little annotation to be clearly positive, in training and "
        "validation. The annotation time includes looking at those that are dropped.",
    )
    ambiguous_test_crops: Handling = Field(
        "positive",
        description="How to treat images and crops with too little annotation to be clearly positive, in the test "
        "split. positive agrees with their masks; drop, the paper's choice, uses the truth to make the test easier.",
    )
    max_crops_per_image: int | None = Field(
        None, ge=1, description="Largest number of crops of one image, chosen at random; null keeps all."
    )
    limit: int | None = Field(None, ge=1, description="Largest number of images, chosen at random; null keeps all.")

    valid: float = Field(0.2, ge=0, lt=1, description="Fraction of the images for validation.")
    test: float = Field(0.2, ge=0, lt=1, description="Fraction of the images for testing.")
    seed: int = Field(0, ge=0, description="Seed of the random choices.")

    contact_class: str = Field(
        "",
        description="Class that marks where two objects touch, which the head `instance` separates them by; means over "
        "classes leave it out. If no class has this name, it is made from numbered objects: pixels within "
        "`contact_distance` of two objects of one class. An image or crop with such a pixel is positive, whatever "
        "`positive_rule` says.",
    )
    contact_distance: float = Field(
        2.0, ge=1, description="Largest distance in pixels of the resized image; only for a contact class that is made."
    )
    normalisation: NormalisationParams = Field(
        NormalisationParams(), description="How intensities are brought to a common range."
    )
    pixel_size_um: float | None = Field(None, gt=0, description="Edge of a pixel of the files in micrometres.")
    target_pixel_size_um: float | None = Field(
        None, gt=0, description="Resize images to pixels of this edge in micrometres."
    )
    scale: float = Field(1.0, gt=0, description="Resize images by this factor; 0.5 halves height and width.")
    licence: str = Field("", description="Licence of the data.")
    citation: str = Field("", description="What to cite for the data.")

    @model_validator(mode="after")
    def _consistent(self) -> ImageDatasetParams:
        if self.stride and self.stride > (self.crop or 0):
            raise ValueError(f"stride {self.stride} would skip pixels between crops of {self.crop} px")
        if self.valid + self.test >= 1:
            raise ValueError(f"valid {self.valid} and test {self.test} leave nothing for training")
        if self.target_pixel_size_um and not self.pixel_size_um:
            raise ValueError("target_pixel_size_um needs the pixel_size_um that the files have")
        if self.target_pixel_size_um and self.scale != 1:
            raise ValueError("scale and target_pixel_size_um both resize the images: give one of them")
        return self

    @property
    def factor(self) -> float:
        """Pixels of a sample per pixel of its file, along each axis."""
        if self.target_pixel_size_um and self.pixel_size_um:
            return self.pixel_size_um / self.target_pixel_size_um
        return self.scale


def label_rule(params: ImageDatasetParams, annotations: Iterable[ImageAnnotation], count: int) -> LabelRule:
    """Return when one of `count` classes counts as present.

    Args:
        params: Of the dataset.
        annotations: Of the images whose mean object is the measure of `positive_rule: object`, and read for it alone;
            for a class without an object in them, that is NaN.
        count: Number of classes.
    """
    if params.positive_rule != "object":
        return LabelRule(params.positive_rule, getattr(params, params.positive_rule))
    return LabelRule("object", tuple(mean_object_areas(annotations, count).tolist()))


D = TypeVar("D", bound=ImageDatasetParams)


@dataclass(frozen=True)
class SampleKey:
    """The ingredients of one sample: an image, optionally one window of it, the labels, and `ImagePart.judged`."""

    source: SourceImage
    window: Window | None
    labels: tuple[bool, ...]
    judged: float = 1.0


class ImageDataset(Dataset[D]):
    """A dataset of whole images, which are resized, normalised and optionally cut into crops.

    A subclass names the classes and lists its images with their readers. Labels are those of the image or follow from
    its annotation by `positive_rule`. Images are read on access; an image is resized first, then normalised, then cut.
    """

    Params: ClassVar[type[ImageDatasetParams]] = ImageDatasetParams

    path_params: ClassVar[tuple[str, ...]] = ()
    """Parameters that are only paths: the same files elsewhere are the same dataset."""

    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes."""

    @abstractmethod
    def sources(self) -> Sequence[SourceImage]:
        """Return all images, in an order that does not depend on the machine."""

    def default_name(self) -> str:
        """Return the dataset's name, which the parameter `name` overrides."""
        return type(self).__name__

    def has_instances(self) -> bool:
        """Return whether images are annotated with numbered objects, from which a contact class can be made."""
        return False

    def is_cut(self) -> bool:
        """Return whether the images are crops of larger ones."""
        return False

    def other_classes(self) -> dict[str, int]:
        """Return the number of objects or labels of each class that is annotated but is not one of `classes`."""
        return {}

    def mask_warning(self, most: int | None = None) -> str:
        """Return why masks look like those of another kind than the parameters say; empty if they do not.

        Args:
            most: Largest number of images whose masks are read; None reads all.
        """
        return ""

    @final
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Read all images and their annotation to check them; return each image's shape (C, H, W) by its name.

        Raises:
            BatchError: If files are missing or broken, or do not fit each other; the message names all of them.
        """
        return self.__collection.shapes()

    @final
    def info(self) -> DatasetInfo:
        """Return the dataset's metadata.

        Raises:
            ConfigError: If parameters and files disagree, e.g. on the classes.
            DataError: If a file is missing or broken; the message names it.
        """
        # A dataset that is moved or renamed stays the same dataset.
        ignored = {"name", "licence", "citation", *self.path_params}
        return self.__collection.info(self.params.name or self.default_name(), ignored)

    @final
    def samples(self, split: Split) -> LazySamples[SampleKey]:
        """Return the samples of a split, image by image; it raises the same errors as `info`."""
        return self.__collection.samples(split)

    @final
    def keys(self, split: Split) -> Sequence[SampleKey]:
        """Return what the samples of a split are made of, and their labels: annotation is read for it, but no image."""
        return self.__collection.keys(split)

    @functools.cached_property
    def __collection(self) -> _ImageCollection:
        classes, contact = self.classes(), self.params.contact_class
        if not contact or contact in classes:
            return _ImageCollection(self.params, classes, self.sources())
        if not self.has_instances():
            raise ConfigError(
                f"contact_class: expected one of the classes {', '.join(classes)}, got {contact!r}; another one can "
                "only be made from numbered objects"
            )
        # Contacts are found in the pixels of the files, so that they are resized as the objects are.
        distance = self.params.contact_distance / self.params.factor
        sources = [
            dataclasses.replace(
                source, read_annotation=functools.partial(_with_contact, source.read_annotation, distance)
            )
            if source.read_annotation
            else source
            for source in self.sources()
        ]
        return _ImageCollection(self.params, (*classes, contact), sources, makes_contact=True)


@final
class _ImageCollection:
    """Whole images and how samples are made of them; apart from `ImageDataset`, so that subclasses cannot interfere."""

    def __init__(
        self,
        params: ImageDatasetParams,
        classes: tuple[str, ...],
        sources: Sequence[SourceImage],
        makes_contact: bool = False,
    ) -> None:
        self._params = params
        self._makes_contact = makes_contact  # of the last class
        self._classes = classes
        self._sources = _assigned(sources, len(classes), params)
        self._found: dict[Split, Sequence[SampleKey]] = {}

    def info(self, name: str, ignored: set[str]) -> DatasetInfo:
        params, classes = self._params, self._classes
        if not self._makes_contact:
            ignored = ignored | {"contact_distance"}
        if not params.whole_images:  # so that datasets keep the fingerprint that they had before this parameter
            ignored = ignored | {"whole_images"}
        return DatasetInfo(
            name=name,
            classes=classes,
            channels=self._channels,
            normalisation=self._normalisation,
            fingerprint=fingerprint(params.model_dump(mode="json", exclude=ignored), classes, self._sources),
            pixel_size_um=self._pixel_size_um,
            licence=params.licence,
            citation=params.citation,
            image_size=(params.crop, params.crop) if params.crop else None,
            roles=tuple("contact" if class_ == params.contact_class else "object" for class_ in classes),
            scale=params.factor,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        failures: dict[str, str] = {}
        for source in self._sources:
            try:
                found[source.name] = read_shape(source, len(self._classes))
            except DataError as error:
                failures[source.place] = str(error)
        done = [source for source in self._sources if source.name in found]
        # Most images are right: otherwise, one wrong image that comes first would make all others wrong.
        expected = Counter(shape[0] for shape in found.values()).most_common(1)
        for source in done:
            if (got := found[source.name][0]) != expected[0][0]:
                like = next(other for other in done if found[other.name][0] == expected[0][0])
                failures[source.place] = str(_other_channels(source, got, like, expected[0][0]))
        if failures:
            raise BatchError("reading images and their annotation", failures, len(self._sources) - len(failures))
        return found

    def keys(self, split: Split) -> Sequence[SampleKey]:
        if split not in self._found:  # all annotation of the split is read for this
            self._found[split] = self._keys(split)
        return self._found[split]

    def samples(self, split: Split) -> LazySamples[SampleKey]:
        read = functools.lru_cache(_CACHED)(self._whole)

        def make(key: SampleKey) -> Sample:
            whole, numbered = read(key.source)
            sample = with_objects(crop_sample(whole, key.window, numbered) if key.window else whole)
            part = dataclasses.replace(sample.part, judged=key.judged)
            return dataclasses.replace(sample, labels=np.array(key.labels, np.bool_), part=part)

        return LazySamples(self.keys(split), make)

    def _keys(self, split: Split) -> Sequence[SampleKey]:
        """Return what the samples of a split are made of."""
        several = [self._keys_of(source) for source in self._sources if source.split == split]
        keys = [key for found, _ in several for key in found]
        # Images whose crops were all dropped: somebody looked at them too.
        unpaid = sum(looks for found, looks in several if not found) / max(len(keys), 1)
        return [dataclasses.replace(key, judged=key.judged + unpaid) for key in keys] if unpaid else keys

    def _whole(self, source: SourceImage) -> tuple[Sample, IntArray | None]:
        """Return the whole image without labels, and, if crops need them, its objects."""
        count, scale = len(self._classes), self._params.factor
        whole = read_whole(source, count, scale, self._normalisation, self._pixel_size_um)
        self._check_channels(source, whole.image)
        known = self._params.crop and (whole.instances is not None or whole.masks is not None)
        return whole, objects_of(whole) if known else None

    @functools.cached_property
    def _channels(self) -> int:
        return len(self._sources[0].read_image())

    @functools.cached_property
    def _normalisation(self) -> Normalisation:
        training = (source for source in self._sources if source.split == "train")
        return fit_normalisation(self._params.normalisation, map(self._image, training))

    @property
    def _pixel_size_um(self) -> float | None:
        size = self._params.pixel_size_um
        return None if size is None else size / self._params.factor

    @functools.cached_property
    def _label_rule(self) -> LabelRule:
        training = (source for source in self._sources if source.split == "train" and source.read_annotation)
        annotations = (self._annotation(source)[0] for source in training)
        rule = label_rule(self._params, annotations, len(self._classes))
        least = np.broadcast_to(rule.least, len(self._classes))[: len(self._classes) - self._makes_contact]
        if np.isnan(least).any():
            empty = self._classes[int(np.argmax(np.isnan(least)))]
            raise DataError(f"positive_rule: object, but no training image has an object of class {empty!r}")
        # Any contact is enough: a touch is seen however little of it a crop shows.
        return LabelRule(rule.kind, (*least.tolist(), 0.0)) if self._makes_contact else rule

    def _keys_of(self, source: SourceImage) -> tuple[list[SampleKey], int]:
        """Return what the samples of an image are made of, and how many windows were judged to find them."""
        params = self._params
        if source.labels is not None:
            return [SampleKey(source, None, source.labels)], 1
        crop = None if source.split in params.whole_images else params.crop
        cropping = Cropping(crop, params.stride, params.max_crops_per_image, params.seed)
        annotation, size = self._annotation(source)
        windows = cropping.windows(size)
        answers = judge_windows(annotation, size, windows, self._label_rule)
        handling = params.ambiguous_test_crops if source.split == "test" else params.ambiguous_train_crops
        kept = [
            (window if crop else None, tuple(labels.tolist()))
            for window, answer in zip(windows, answers, strict=True)
            if (labels := resolve_ambiguous(answer, handling)) is not None
        ]
        keys = [SampleKey(source, *one, judged=len(windows) / len(kept)) for one in kept]
        return cropping.choose(keys, source.name), len(windows)

    def _annotation(self, source: SourceImage) -> tuple[ImageAnnotation, tuple[int, int]]:
        """Return the annotation of the resized image, and that image's size (H, W)."""
        annotation = read_annotation(source, len(self._classes))
        old = annotation.size or source.read_image().shape[1:]
        new = scaled_size((old[0], old[1]), self._params.factor)
        return annotation.resized((old[0], old[1]), new), new

    def _image(self, source: SourceImage) -> FloatArray:
        image, _ = read_scaled(source, self._params.factor)
        self._check_channels(source, image)
        return image

    def _check_channels(self, source: SourceImage, image: FloatArray) -> None:
        if len(image) != self._channels:
            raise _other_channels(source, len(image), self._sources[0], self._channels)


def _assigned(sources: Sequence[SourceImage], count: int, params: ImageDatasetParams) -> tuple[SourceImage, ...]:
    """Return the images to use, each with its group and its split.

    Raises:
        DataError: If there are none, an image has no labels and no annotation, names repeat, or a group is in two
            splits.
    """
    if not sources:
        raise DataError("expected a dataset with images, got none")
    if repeated := [name for name, times in Counter(source.name for source in sources).items() if times > 1]:
        raise DataError(f"expected distinct names of images, got {repeated[0]!r} more than once")
    for source in sources:
        _check_source(source, count, params.crop)
    if params.limit and params.limit < len(sources):
        chosen = np.random.default_rng(params.seed).choice(len(sources), params.limit, replace=False)
        sources = [sources[index] for index in sorted(chosen)]
    groups = [source.group or source.name for source in sources]
    splits = [source.split for source in sources if source.split]
    if not splits:
        shares: dict[Split, float] = {"train": 1 - params.valid - params.test}
        shares |= {"valid": params.valid, "test": params.test}
        are_crops = all(group == field_of(source.name) for group, source in zip(groups, sources, strict=True))
        splits = random_splits(groups, shares, params.seed, are_crops)
    if len(splits) != len(sources):
        lacking = next(source for source in sources if not source.split)
        raise DataError(f"{lacking.place}: expected a split, as other images have; give one to all images or none")
    check_groups(groups, splits)
    return tuple(
        dataclasses.replace(source, group=group, split=split)
        for source, group, split in zip(sources, groups, splits, strict=True)
    )


def _other_channels(source: SourceImage, got: int, first: SourceImage, expected: int) -> DataError:
    return DataError(f"{source.place}: expected {counted(expected, 'channel')}, as in {first.place}, got {got}")


def _with_contact(read: Callable[[], ImageAnnotation], distance: float) -> ImageAnnotation:
    return with_contact(read(), distance)


def _check_source(source: SourceImage, count: int, crop: int | None) -> None:
    """Raise `DataError` unless the labels of an image are known, or follow from its annotation."""
    if source.labels is None and source.read_annotation is None:
        raise DataError(f"{source.place}: expected labels or an annotation of image {source.name!r}, got neither")
    if source.labels is not None and len(source.labels) != count:
        expected = counted(count, "class", "classes")
        raise DataError(f"{source.place}: expected labels of {expected}, got {len(source.labels)}")
    if source.labels is not None and crop:
        raise DataError(f"{source.place}: labels of a whole image do not hold for its crops; set crop: null")
