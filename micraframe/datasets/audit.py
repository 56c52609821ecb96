"""What a dataset offers a method that learns from labels, and the scale and crop at which it offers the most.

Labels teach by contrast, so two kinds of data teach nothing (Bilodeau et al. 2022): a class that every crop contains,
and objects so large that a crop shows only a part of one. `audit` counts both. It proposes `scale` and `crop` by this
rule, on images in the pixels of their files:

- scale: the largest of 1, 1/2, 1/4 and 1/8 at which the median object of every class is at most `WIDEST` px wide, so
  that the network sees an object's outline from its middle;
- crop: the largest at which `NEGATIVES` of the crops do not contain the class, at least `ROOM` times as wide as the
  median object. Larger crops cut fewer objects and cost fewer labels; where none fits, the nearest is taken.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from micraframe.batching import spread
from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.crops import AMBIGUOUS, NEGATIVE, POSITIVE, LabelRule, grid, judge_windows
from micraframe.datasets.image_dataset import ImageDataset, label_rule
from micraframe.datasets.normalisation import NormalisationParams
from micraframe.errors import DataError, counted
from micraframe.interfaces import Dataset
from micraframe.objects import objects_of, windows
from micraframe.types import SPLITS, BoolArray, DatasetInfo, IntArray, Sample, Split

Floats = npt.NDArray[np.float64]

SCALES: Final = (1.0, 0.5, 0.25, 0.125)
CROPS: Final = (32, 48, 64, 96, 128, 192, 256, 384, 512)

SMALLEST: Final = 8
"""Edge in pixels of a cell of `unet-encoder`'s deepest layer, whose map cannot show the shape of smaller objects."""

WIDEST: Final = 64
"""Largest width of an object in pixels; the receptive field of `unet-encoder`'s deepest layer is 68 px wide."""

ROOM: Final = 1.25
"""Smallest width of a crop, relative to that of the median object."""

NEGATIVES: Final = (0.2, 0.6)
"""Lowest and highest proposed share of crops without the class."""

ONE_SIDED: Final = 0.1
"""A share of negatives below this, or above 1 minus this, causes a warning."""

SIMILAR: Final = 0.75
"""Share of equal letters (difflib's ratio) from which the name of another class looks like a misspelt one."""

MOST_IMAGES: Final = 20
"""Largest number of images whose objects are measured."""


@dataclass(frozen=True)
class ClassCount:
    """How many samples of a split contain a class; `images` counts the whole images that they come from."""

    split: Split
    class_: str
    images: int
    samples: int
    positive: int
    negative: int


@dataclass(frozen=True)
class ObjectSizes:
    """Sizes of a class's objects in pixels of the samples, each as quantiles 0.1, 0.5 and 0.9.

    Attributes:
        class_: The class.
        objects: Number of objects that were measured.
        width: Diameter of the largest circle inside an object; of a box, its shorter side.
        diameter: Diameter of the circle with an object's area; of a box, the square root of its area.
        too_large: Fraction of the objects whose diameter exceeds the crop; 0 without crops.
    """

    class_: str
    objects: int
    width: tuple[float, float, float]
    diameter: tuple[float, float, float]
    too_large: float


@dataclass(frozen=True)
class Observation:
    """One observation; if it is not `ok`, the text ends with what to do."""

    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'warning'}: {self.text}"


@dataclass(frozen=True)
class DatasetProposal:
    """A proposed configuration of the dataset.

    Attributes:
        scale: Factor by which to resize the images of the files.
        crop: Height and width of a crop in pixels of the resized image.
        negatives: Expected fraction of crops without each class.
        basis: What it was derived from, and what that costs.
        cut_again: Whether it is not for the dataset, whose images are crops, but for cutting new ones.
    """

    scale: float
    crop: int
    negatives: tuple[float, ...]
    basis: str
    cut_again: bool = False


@dataclass(frozen=True)
class Audit:
    """The result of `audit`.

    Attributes:
        dataset: Name of the dataset.
        crop: Height and width of the crops that the dataset cuts; None: it cuts none.
        cut: Whether its images are crops, which were cut before.
        scale: Pixels of a sample per pixel of its file.
        counts: By split and class.
        image_sizes: (H, W, number of images), the most frequent first, before resizing.
        sizes: Of each class whose objects were measured.
        findings: What it says about them.
        proposal: Scale and crop; None where the size of objects is unknown.
    """

    dataset: str
    crop: int | None
    cut: bool
    scale: float
    counts: tuple[ClassCount, ...]
    image_sizes: tuple[tuple[int, int, int], ...]
    sizes: tuple[ObjectSizes, ...]
    findings: tuple[Observation, ...]
    proposal: DatasetProposal | None


def audit(dataset: Dataset[Any], object_size: float | None = None) -> Audit:
    """Examine a dataset; it reads every image once, and again those whose objects it measures, and all annotation.

    Args:
        dataset: As configured.
        object_size: Typical width of an object in pixels of the files. If given, the proposal uses it and the labels of
            samples, and no mask or box is measured; otherwise up to `MOST_IMAGES` annotated validation images.

    Raises:
        BatchError: If files are missing or broken, or a mask has another size than its image; it names all of them.
        DataError: If a table is missing or broken, or images have no annotation.
    """
    # First: other steps stop at the first broken file.
    shape_of = dataset.shapes() if isinstance(dataset, ImageDataset) else {}
    info, params = dataset.info(), dataset.params if isinstance(dataset, ImageDataset) else None
    crop, cut = params.crop if params else None, isinstance(dataset, ImageDataset) and dataset.is_cut()
    labels: dict[Split, BoolArray] = {}
    names: dict[Split, list[str]] = {}
    seen: Counter[tuple[int, int]] = Counter()
    for split in SPLITS:
        if isinstance(dataset, ImageDataset):
            found = [(key.source.name, key.labels) for key in dataset.keys(split)]
            shapes = [shape_of[name] for name in dict.fromkeys(name for name, _ in found)]
        else:
            found, shapes = [], []
            for sample in dataset.samples(split):
                found.append((sample.part.image or sample.id, tuple(_labels(sample).tolist())))
                shapes.append(sample.image.shape)
        names[split] = [name for name, _ in found]
        labels[split] = np.array([row for _, row in found], np.bool_).reshape(-1, len(info.classes))
        seen.update((shape[1], shape[2]) for shape in shapes)
    counts = tuple(
        ClassCount(split, class_, len(set(names[split])), len(column), int(column.sum()), int((~column).sum()))
        for split in SPLITS
        for class_, column in zip(info.classes, labels[split].T, strict=True)
    )
    looked_at: Split = "valid" if len(labels["valid"]) else "train"
    measured = [] if object_size else _measured(whole_images(dataset), looked_at)
    lengths = _object_sizes(measured, info)
    sizes = tuple(
        _sizes(class_, found * info.scale, crop)
        for class_, found in zip(info.classes, lengths, strict=True)
        if found.size
    )
    proposal, room = None, tuple[Observation, ...]()
    if isinstance(dataset, ImageDataset) and object_size:
        known = np.concatenate([labels["train"], labels["valid"]])
        reach = crop or float(np.sqrt(np.mean([h * w for h, w in seen.elements()]))) * info.scale
        share = extrapolated_negatives(known, reach / info.scale, object_size)
        # The images that crops were cut from may be of any size.
        shortest = round(CROPS[-1] / SCALES[-1]) if cut else min(map(min, seen))
        basis = "labels and --object-size: read no masks"
        proposal = replace(propose([object_size], share, shortest, basis), cut_again=cut)
        room = _room(object_size * info.scale, reach)
    elif params and sizes:
        rule = label_rule(params, map(_annotation, measured), len(info.classes))
        medians = [float(np.median(width)) for width, _ in lengths if len(width)]
        ambiguous = params.ambiguous_train_crops == "negative"
        share = measured_negatives(measured, rule, ambiguous, params.max_crops_per_image)
        read = f"read the {'boxes' if measured[0].masks is None else 'masks'} of {len(measured)} images ({looked_at})"
        basis = f"{read}: costs annotation; --object-size PX reads none"
        proposal = propose(medians, share, min(map(min, seen)), basis)
    unmeasured = params is not None and not proposal
    findings = (
        *_findings(counts, sizes, crop, cut, unmeasured),
        *room,
        *other_classes(dataset),
        *kind_of_masks(dataset, most=None),
    )
    shown = tuple((h, w, n) for (h, w), n in seen.most_common())
    return Audit(info.name, crop, cut, info.scale, counts, shown, sizes, findings, proposal)


def other_classes(dataset: Dataset[Any]) -> Iterator[Observation]:
    """Yield a finding for each class that is annotated and left out; it is a warning if the name looks misspelt."""
    if not isinstance(dataset, ImageDataset):
        return
    known = {name.casefold(): name for name in dataset.info().classes}
    for name, rows in dataset.other_classes().items():
        similar = difflib.get_close_matches(name.casefold(), known, 1, SIMILAR)
        advice = f"; if it is {known[similar[0]]!r}, spell it alike" if similar else ""
        yield Observation(not similar, f"{counted(rows, 'row')} of {name!r} left out: not in 'classes'{advice}")


def kind_of_masks(dataset: Dataset[Any], most: int | None = MOST_IMAGES) -> Iterator[Observation]:
    """Yield a warning if masks look like those of another kind than the configuration says.

    Args:
        dataset: The dataset.
        most: Largest number of images whose masks are read; None reads all.
    """
    if isinstance(dataset, ImageDataset) and (text := dataset.mask_warning(most)):
        yield Observation(False, text)


def whole_images(dataset: Dataset[Any]) -> Dataset[Any]:
    """Return the dataset with the same splits, but of whole images in the pixels of their files, not normalised."""
    if not isinstance(dataset, ImageDataset):
        return dataset
    whole = {"crop": None, "stride": None, "scale": 1.0, "target_pixel_size_um": None, "positive_rule": "share"}
    plain = {"share": 0.0, "normalisation": NormalisationParams(kind="none")}
    return type(dataset)(dataset.params.model_copy(update=whole | plain))


def propose(widths: Sequence[float], negatives: Callable[[int], Floats], shortest: int, basis: str) -> DatasetProposal:
    """Return scale and crop by the rule at the top of this module.

    Args:
        widths: Median width of the objects of each class that has any, in pixels of the files.
        negatives: From a crop's width in pixels of the files to the fraction of crops without each class, (K,).
        shortest: Shorter side of the smallest image in pixels of the files: larger crops are not proposed.
        basis: What widths and negatives were derived from.
    """
    width = max(widths)
    scale = next((scale for scale in SCALES if width * scale <= WIDEST), SCALES[-1])
    fitting = [crop for crop in CROPS if crop / scale <= shortest] or [CROPS[0]]
    candidates = [crop for crop in fitting if crop >= ROOM * width * scale] or fitting[-1:]
    shares = {crop: negatives(round(crop / scale)) for crop in candidates}
    low, high = NEGATIVES
    # How far the classes are from the proposed shares, in steps of 1 %, so that noise does not decide.
    miss = {
        crop: round(float((np.maximum(low - p, 0) + np.maximum(p - high, 0)).sum()), 2) for crop, p in shares.items()
    }
    best = min(candidates, key=lambda crop: (miss[crop], -crop))
    return DatasetProposal(scale, best, tuple(shares[best].tolist()), basis)


def measured_negatives(
    images: Sequence[Sample], rule: LabelRule, ambiguous: bool = False, most: int | None = None
) -> Callable[[int], Floats]:
    """Return a function from a crop's width to the fraction of crops without each class, (K,), crops side by side.

    Args:
        images: Whole images with masks or boxes.
        rule: When a class counts as present.
        ambiguous: Whether crops with too little of a class count as negative; otherwise they do not count.
        most: Largest number of crops of one image, as `Cropping.most`: an image with more weighs as much as that many.
    """
    annotations = [(_annotation(image), (image.image.shape[1], image.image.shape[2])) for image in images]

    def share(crop: int) -> Floats:
        negatives, counted = 0.0, 0.0
        for annotation, size in annotations:
            answers = judge_windows(annotation, size, grid(size, crop, crop), rule)
            negative = (answers == NEGATIVE) | ((answers == AMBIGUOUS) & ambiguous)
            weight = min(1.0, (most or len(answers)) / len(answers))
            negatives = negatives + weight * negative.sum(axis=0)
            counted = counted + weight * (negative | (answers == POSITIVE)).sum(axis=0)
        return np.asarray(negatives / np.maximum(counted, 1))

    return share


def extrapolated_negatives(labels: BoolArray, crop: float, width: float) -> Callable[[int], Floats]:
    """Return a function from a crop's width to the expected fraction of crops without each class, (K,).

    Objects of width d at random places (a Poisson process) leave a crop of width c empty with probability
    exp(-rho (c + d)^2), rho objects per pixel, so that p(c) = p(c0) ^ ((c + d) / (c0 + d))^2. Clustered objects leave
    more crops empty than that.

    Args:
        labels: bool (N, K), of samples of one width.
        crop: That width c0.
        width: Width of an object d, in the same pixels.
    """
    known = ((~labels).sum(axis=0) + 0.5) / (len(labels) + 1)  # never 0 or 1, which say nothing about other widths
    return lambda other: np.asarray(known ** (((other + width) / (crop + width)) ** 2), np.float64)


def object_sizes(objects: IntArray) -> Floats:
    """Return widths and diameters, as in `ObjectSizes`, (2, N), of the N objects of one class, int32 (H, W)."""
    found: list[tuple[float, float]] = []
    for number, place in windows(objects):
        inside = np.pad(objects[place] == number, 1)
        found.append((2 * ndimage.distance_transform_edt(inside).max() - 1, np.sqrt(4 * inside.sum() / np.pi)))
    return np.array(found, np.float64).reshape(-1, 2).T


def _measured(whole: Dataset[Any], split: Split) -> list[Sample]:
    """Return up to `MOST_IMAGES` images of a split, evenly chosen; none if they have neither masks nor boxes."""
    images = spread(whole.samples(split), MOST_IMAGES)
    return images if all(image.masks is not None or image.boxes is not None for image in images) else []


def _object_sizes(images: Sequence[Sample], info: DatasetInfo) -> list[Floats]:
    """Return, for each class, what `object_sizes` returns of all images; a contact class has no objects."""
    found = [[np.zeros((2, 0))] for _ in info.classes]
    for image in images:
        numbered = objects_of(image) if image.masks is not None else None
        for index, role in enumerate(info.roles):
            if role == "contact":
                continue
            if numbered is not None:
                found[index].append(object_sizes(numbered[index]))
            else:
                assert image.boxes is not None
                sides = (image.boxes[index][:, 2:] - image.boxes[index][:, :2]).astype(np.float64)
                found[index].append(np.stack([sides.min(axis=1), np.sqrt(sides.prod(axis=1))]))
    return [np.concatenate(each, axis=1) for each in found]


def _sizes(class_: str, lengths: Floats, crop: int | None) -> ObjectSizes:
    width, diameter = lengths
    low, middle, high = np.quantile(width, (0.1, 0.5, 0.9)).tolist()
    small, typical, large = np.quantile(diameter, (0.1, 0.5, 0.9)).tolist()
    too_large = float(np.mean(diameter > crop)) if crop else 0.0
    return ObjectSizes(class_, len(width), (low, middle, high), (small, typical, large), too_large)


def _annotation(image: Sample) -> ImageAnnotation:
    return ImageAnnotation(image.masks, image.instances, image.boxes, image.points)


def _labels(sample: Sample) -> BoolArray:
    if sample.labels is None:
        raise DataError(f"sample {sample.id!r}: expected labels, got none; count classes in a dataset that has them")
    return sample.labels


def _findings(
    counts: Sequence[ClassCount], sizes: Sequence[ObjectSizes], crop: int | None, cut: bool, unmeasured: bool
) -> Iterator[Observation]:
    what = "crops" if crop or cut else "images"
    for one in counts:
        if one.split != "test" and one.samples:
            yield _balance(one, what)
    for size in sizes:
        width, diameter = size.width[1], size.diameter[1]
        if size.too_large > ONE_SIDED:
            yield Observation(
                False,
                f"{size.class_}: {size.too_large:.0%} of the objects are larger than the crop of {crop} px, so that "
                "crops show parts of them; set a larger crop or a smaller scale",
            )
        elif crop:
            yield Observation(
                True, f"{size.class_}: a crop is {crop / diameter:.1f} times as wide as the median object"
            )
        if width > WIDEST:
            yield _too_wide(f"{size.class_}: the median object is", width)
        elif diameter < SMALLEST:
            small = f"{size.class_}: the median object has a diameter of {diameter:.0f} px, expected {SMALLEST} or more"
            yield Observation(False, f"{small}; set a larger scale")
        else:
            yield Observation(True, f"{size.class_}: the median object is {width:.0f} px wide")
    if unmeasured:
        yield Observation(False, "sizes of objects are unknown; give --object-size PX for a proposal of scale and crop")


def _room(width: float, side: float) -> tuple[Observation, ...]:
    """Return whether objects of a given width have room in samples of a side, and in the network's sight."""
    fits = side >= ROOM * width
    sizes = f"objects of {width:.0f} px in images or crops of {side:.0f} px"
    room = Observation(fits, sizes if fits else f"{sizes}, expected {ROOM * width:.0f} px or more; use larger crops")
    return (room, _too_wide("objects are", width)) if width > WIDEST else (room,)


def _too_wide(what: str, width: float) -> Observation:
    """Return the warning that objects are wider than the network sees; `what` is the sentence's beginning."""
    return Observation(False, f"{what} {width:.0f} px wide, expected at most {WIDEST} px; set a smaller scale")


def _balance(one: ClassCount, what: str) -> Observation:
    """Return whether a split has enough samples with and without a class."""
    negative = one.negative / one.samples
    where = f"{one.class_}: {one.negative} of {one.samples} {one.split} {what} ({negative:.0%}) are negative"
    if ONE_SIDED <= negative <= 1 - ONE_SIDED:
        return Observation(True, where)
    hopeless = one.negative in (0, one.samples) and one.split == "train"
    result = ", so that it cannot be learned from labels" if hopeless else ""
    size, other = ("smaller", "without") if negative < ONE_SIDED else ("larger", "with")
    crops = f"use {size} crops, or " if what == "crops" else ""
    cut = ", or cut images into crops (`crop` where masks or boxes are known, `micraframe crops` where labels are)"
    advice = f"{crops}add images {other} it{cut if what == 'images' and negative < ONE_SIDED else ''}"
    return Observation(False, f"{where}{result}; {advice}")
