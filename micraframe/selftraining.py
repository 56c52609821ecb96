"""Self-training: a method that learns from masks is trained on the masks that a method makes from labels.

    labels -> teacher -> maps -> pseudo-masks -> student

The student learns what most pseudo-masks agree on and so smooths out the teacher's errors, and its own maps are made
for masks: they need neither the teacher's resolution nor its cost. Nobody draws a mask, so the annotation cost is the
teacher's.

Lee, D.-H. "Pseudo-label: the simple and efficient semi-supervised learning method for deep neural networks". ICML
workshop on challenges in representation learning (2013). Xie, Q., Luong, M.-T., Hovy, E. and Le, Q. V. "Self-training
with noisy student improves ImageNet classification". CVPR (2020).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, final

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.special import expit, logit
from torch import Tensor

from micraframe.batching import batches, spread
from micraframe.classifier import part_of, weights_for
from micraframe.config import MICRA_NET, Choice, MethodChoice, build_learner
from micraframe.cues import EXACT, ONE_SIDED, Cue, CueName, agreements, candidates, consensus, exposures
from micraframe.datasets.sources import LazySamples
from micraframe.errors import ConfigError, DataError
from micraframe.interfaces import ClassRule, Method, Model, ScoredTile, every_class
from micraframe.metrics.precision_recall import area_under_roc
from micraframe.parameters import Parameters
from micraframe.runtime.files import write_json
from micraframe.training.examples import seed_for
from micraframe.types import (
    Annotation,
    BoolArray,
    DatasetInfo,
    FitContext,
    FloatArray,
    PrefixedProgress,
    Progress,
    Sample,
    Scores,
)

_TEACHER: Final = "teacher."
_STUDENT: Final = "student."

_COMMON: Final = 400
"""Most images among which a cue's common threshold is chosen."""

_COMPARED: Final = 200
"""Number of images of each class, if there are that many, in which cues are compared with pseudo-masks."""

_HALO: Final = 0.1
"""How much lower the required agreement is for a one-sided cue: pseudo-masks include the halo that it leaves out."""

_RESPONDS: Final = 0.7
"""Least area under the ROC curve with which the area of a one-sided cue tells images with the class from others."""

_PIXEL_WISE: Final = Choice(
    name=MICRA_NET.name,
    params={
        "backbone": {"name": "micraframe/unet"},
        "pooling": {"kind": "log-sum-exp"},
        "dropout": 0.0,
        "extractor": {"name": "micraframe/evidence"},
        "combiner": {"name": "micraframe/evidence"},
    },
)
"""Has a probability for every pixel."""


@dataclasses.dataclass(frozen=True)
class ChosenCue:
    """What outlines a class.

    Attributes:
        cue: The cue; None if none agrees well enough with the class's pseudo-masks.
        agreement: Its agreement with the class's pseudo-masks, by pixels or by whole objects (of a one-sided cue, by
            pixels); without a cue, the highest of any cue that is not one-sided.
    """

    cue: Cue | None
    agreement: float


@final
class SelfTraining(Method["SelfTraining.Params"]):
    """A student learns masks from the maps of a teacher that learned from image-level labels.

    The teacher's maps of the training and validation images become pseudo-masks. Labels are known there: in an image
    that is labelled as lacking a class, every pixel lacks it, and nothing else is computed; where the class is present,
    pixels whose value lies in a band around the threshold are ignored.

    A teacher knows where a class is better than where it ends. With `cues`, its masks are compared with those that one
    threshold makes of the image: of its brightness, for example. If the best of these agrees with the teacher well
    enough, the student learns from what both say, and ignores the pixels on which they differ (`micraframe.cues`).
    Where several classes share images, a teacher's map may be coarse, or cover only the parts that distinguish a class;
    then an object that a cue outlines is learned whole if exactly one class is found in a part of it. With a single
    class, objects that edges on the dark or the bright side outline are learned whole, too, if the labels support it.

    Wrong pseudo-masks are learned late. To stop before that, set epochs and `early_stopping` in the student's recipe:
    its validation loss is that of pseudo-masks, too, which a student that learns the errors of single training images
    does not lower.

    Validation images are needed even if neither teacher nor student uses them. No parameter can be changed after
    training: the teacher's determine the pseudo-masks.
    """

    class Params(Parameters):
        teacher: MethodChoice = Field(_PIXEL_WISE, description="Method that learns from labels and makes maps.")
        student: MethodChoice = Field(
            description="Method that learns from masks, and from images in which pixels are ignored, such as unet or "
            "forest."
        )
        start: Literal["random", "teacher"] = Field(
            "random",
            description="Initial weights of the student: random, or those of the teacher's backbone. The student's "
            "must then be the same, or have it as its encoder.",
        )
        threshold: float = Field(
            0.5, gt=0, lt=1, description="Value of the teacher's maps that divides structure from background."
        )
        band: float = Field(
            0.5,
            ge=0,
            description="Half the width, in logits, of the band around the threshold in which pixels are ignored.",
        )
        cues: tuple[CueName, ...] = Field(
            (),
            description="What in the image itself may outline a class: bright, dark, deviation (from the image's "
            "median), edges, dark-edges or bright-edges (on one side of the median). For each class, the pseudo-masks "
            "are corrected by the one that agrees with them best, if it agrees well enough; edges on one side only "
            "where there is one class, without a contact class.",
        )
        agreement: float = Field(
            0.4,
            ge=0,
            le=1,
            description="Least agreement between the teacher's masks and a cue's for the cue to be used: their mean "
            "IoU over training images that contain the class or, where objects are compared, the mean share of the "
            "objects' area that agrees. For edges on one side, 0.1 less, by IoU.",
        )
        presence: Literal["student", "teacher"] = Field(
            "student",
            description="Which model decides whether a class is present: the student, or the teacher, which learned it "
            "from labels, and which is then saved and evaluated in addition.",
        )

    learns_from = frozenset({Annotation.LABELS})
    default_head = ("micraframe/semantic", {"mask_threshold": {"name": "fixed", "value": 0.5}})

    def __init__(self, params: SelfTraining.Params) -> None:
        """Build teacher and student.

        Raises:
            PluginError: If one of them is not installed.
            ConfigError: If the teacher cannot learn from labels, the student cannot learn from masks, or the student is
                to start from the teacher's weights and cannot.
        """
        super().__init__(params)
        self._teacher = build_learner("teacher", params.teacher, Annotation.LABELS)
        self._student = build_learner("student", params.student, Annotation.MASKS)
        if params.start == "teacher" and not self._student.continues:
            raise ConfigError(
                f"self-training: expected a student that can start from a teacher's weights, got method "
                f"{params.student.name!r}, which cannot; set start: random, or choose another"
            )

    def fit(self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext) -> Model:
        """Train the teacher, then the student.

        Each has a folder of its own in the context's folder, `teacher` and `student`, and resumes by itself.

        Returns:
            The student's model; with `presence: teacher` together with the teacher's.

        Raises:
            DataError: If no pixel of the training images counts as structure.
        """
        params = self.params
        # Whatever else the caller's samples hold, masks come from maps alone.
        train, valid = (LazySamples(samples, _labels_only) for samples in (train, valid))
        teacher = self._teacher.fit(
            train, valid if self._teacher.uses_validation else (), info, context.nested("teacher", context.seed)
        )
        low, high = expit(logit(params.threshold) + np.array([-params.band, params.band])).tolist()
        parts = (train, valid if self._student.uses_validation else ())
        train_masks, valid_masks = (
            pseudo_masks(part, teacher, low, high, PrefixedProgress(context.progress, "teacher")) for part in parts
        )
        if not any(packed[:-1].any() for packed in train_masks):
            raise DataError(
                f"self-training: expected pixels at or above {high:.3g} in the teacher's maps of training images "
                f"that contain a class, got none{_ranking(teacher, valid, info.classes)}; train for more epochs, and "
                "check the labels with micraframe data audit (method self-training also has threshold and band, "
                "which can be lowered)"
            )
        if params.cues:
            chosen = choose_cues(train, train_masks, params.cues, params.agreement)
            if context.folder is not None:
                found = {name: dataclasses.asdict(each) for name, each in zip(info.classes, chosen, strict=True)}
                write_json(context.folder / "cues.json", found)
            cues = [each.cue for each in chosen]
            train_masks, valid_masks = (
                with_cues(part, masks, cues) for part, masks in zip(parts, (train_masks, valid_masks), strict=True)
            )
        # The 1 keeps the draws of the committed studies, from when there could be several students.
        seed = seed_for(context.seed, "student", 1) % 2**32  # the largest that NumPy and scikit-learn take
        start = teacher.state() if params.start == "teacher" else None
        student = self._student.fit(
            annotated(parts[0], train_masks),
            annotated(parts[1], valid_masks),
            info,
            dataclasses.replace(context.nested("student", seed), start=start),
        )
        return student if params.presence == "student" else TeacherAndStudent(teacher, student)

    def untrained(self, info: DatasetInfo) -> Model | None:
        """Return a student, and with `presence: teacher` a teacher, that has learned nothing; None if there is none.

        Raises:
            DataError: If the student is to start from the teacher's weights, and their backbones differ.
        """
        student = self._student.untrained(info)
        if "teacher" not in (self.params.presence, self.params.start):
            return student
        teacher = self._teacher.untrained(info)
        if teacher is None or student is None:
            return None
        if self.params.start == "teacher" and not weights_for(student.state(), teacher.state()):
            raise DataError(
                "self-training: expected a student whose backbone or encoder is the teacher's, to start from its "
                "weights, got another; give both the same backbone and widths, or set start: random"
            )
        return student if self.params.presence == "student" else TeacherAndStudent(teacher, student)

    def restore(self, state: Mapping[str, Tensor], info: DatasetInfo, device: str) -> Model:
        """Return the student's model; with `presence: teacher` together with the teacher's."""
        if self.params.presence == "student":
            return self._student.restore(state, info, device)
        teacher, student = (
            method.restore(part_of(state, prefix), info, device)
            for method, prefix in ((self._teacher, _TEACHER), (self._student, _STUDENT))
        )
        return TeacherAndStudent(teacher, student)


@final
class TeacherAndStudent(Model):
    """A student's maps, with the presence probabilities of its teacher.

    Attributes:
        teacher: Learned from labels.
        student: Learned from the masks that were made of the teacher's maps.
    """

    def __init__(self, teacher: Model, student: Model) -> None:
        self.teacher = teacher
        self.student = student

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        """Yield the scores of each image, with the student's maps of all classes, in order."""
        for batch in batches(images):
            learned = self.teacher.score(batch, lambda presence: ())
            drawn = self.student.score(batch, every_class)
            for one, other in zip(learned, drawn, strict=True):
                yield dataclasses.replace(other, presence=one.presence)

    def merge_tiles(self, merged: Scores, tiles: Sequence[ScoredTile]) -> Scores:
        """Return the student's merged scores; the teacher's presence is its highest in any tile."""
        return dataclasses.replace(self.student.merge_tiles(merged, tiles), presence=merged.presence)

    def state(self) -> Mapping[str, Tensor]:
        """Return the states of both."""
        parts = ((_TEACHER, self.teacher), (_STUDENT, self.student))
        return {prefix + name: tensor for prefix, model in parts for name, tensor in model.state().items()}


def pseudo_mask(scores: Scores, labels: BoolArray, low: float, high: float) -> tuple[BoolArray, BoolArray]:
    """Return masks and the pixels to ignore, made from maps.

    With v_c the map of a class that is labelled as present, its mask is where v_c >= high, and a pixel is ignored if
    low < v_c < high for any such class. The mask of a class that is labelled as absent is empty, and certain.

    Args:
        scores: Have maps (H, W) of all classes that are present; other maps are not used.
        labels: bool (K,).
        low: In [0, 1], at most `high`.
        high: In [0, 1].

    Returns:
        bool (K, H, W) and bool (H, W).

    Raises:
        DataError: If a map is missing.
    """
    masks = np.zeros((len(labels), *scores.size), np.bool_)
    ignore = np.zeros(scores.size, np.bool_)
    for index in np.flatnonzero(labels).tolist():
        values = scores.maps[scores.row(index)]
        masks[index] = values >= high
        ignore |= (values > low) & (values < high)
    return masks, ignore


def pseudo_masks(
    samples: Sequence[Sample], model: Model, low: float, high: float, progress: Progress
) -> list[npt.NDArray[np.uint8]]:
    """Return the pseudo-masks of all samples, for `annotated`.

    A bit per pixel and class, and one more, is kept: for up to 31 classes less memory than the images.

    Args:
        samples: Have labels. Each is read twice, if it holds a class.
        model: Makes the maps of the classes that are present, and is asked for no others.
        low: See `pseudo_mask`.
        high: See `pseudo_mask`.
        progress: Progress callback.

    Returns:
        For each sample, its masks and, last, the pixels to ignore: uint8 (K + 1, H, W / 8), packed along W.
    """
    packed: list[npt.NDArray[np.uint8]] = []
    # Images with the same classes are scored together: a rule sees presence probabilities, but no labels.
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, sample in enumerate(samples):
        labels, (_, height, width) = _labels(sample), sample.image.shape
        packed.append(np.zeros((len(labels) + 1, height, -(-width // 8)), np.uint8))
        alike.setdefault(tuple(np.flatnonzero(labels).tolist()), []).append(number)
    alike.pop((), None)
    done, total = 0, sum(map(len, alike.values()))
    for classes, members in alike.items():
        labels = np.isin(np.arange(len(packed[0]) - 1), classes)
        images = (samples[number].image for number in members)
        for number, scores in zip(members, model.score(images, _always(classes)), strict=True):
            masks, ignore = pseudo_mask(scores, labels, low, high)
            packed[number] = np.packbits(np.concatenate([masks, ignore[None]]), axis=-1)
            done += 1
            progress.advance("pseudo-masks", done, total)
    return packed


def choose_cues(
    samples: Sequence[Sample], packed: Sequence[npt.NDArray[np.uint8]], names: Sequence[CueName], least: float
) -> tuple[ChosenCue, ...]:
    """Return the cue of each class that agrees best with its pseudo-masks, if it does well enough.

    Cues that blur outlines are considered only if none of the exact ones agrees well enough: a teacher's maps are
    blurred themselves, and agree with a blurred cue too easily.

    A teacher that has to tell classes apart may mark them coarsely, or only the parts that distinguish them; then no
    cue agrees with its masks. So for classes without a cue, cues are compared once more, by whole objects, in images
    that contain several classes: an object that a cue outlines counts for a class if that class, and no other, claims
    a part of it.

    One-sided cues are only for a single class without an exact one; see `choose_side`.

    Cues are compared in 200 evenly spaced images of each class, or in all that contain it, and in those of the other
    classes that contain it, too. Thresholds that are common to images come from at most 400 evenly spaced images.

    Args:
        samples: The training samples, with labels.
        packed: Their pseudo-masks, from `pseudo_masks`.
        names: The cues to choose from, in order of preference.
        least: Least agreement, in [0, 1]; see `agreements`. For one-sided cues, 0.1 less is enough.
    """
    found = _candidates(samples, [name for name in names if name not in ONE_SIDED])
    labels = np.array([_labels(sample) for sample in samples], np.bool_)

    def best(among: BoolArray, *, whole: bool) -> list[ChosenCue]:
        columns = (np.flatnonzero(column).tolist() for column in (labels & among[:, None]).T)
        compared = {number for places in columns for number in spread(places, _COMPARED)}
        cues = [dataclasses.replace(cue, whole=whole) for cue in found]
        scores = agreements(_examples(samples, packed, sorted(compared)), cues) if compared else {}
        chosen = []
        for index in range(labels.shape[1]):
            agreement = {cue: float(values[index]) for cue, values in scores.items()}
            enough = [cue for cue, value in agreement.items() if value >= least]
            preferred = [cue for cue in enough if cue.name in EXACT] or enough
            cue = max(preferred, key=agreement.__getitem__, default=None)
            chosen.append(ChosenCue(cue, max(agreement.values(), default=0.0) if cue is None else agreement[cue]))
        return chosen

    by_pixels = best(np.ones(len(samples), np.bool_), whole=False)
    if len(by_pixels) == 1:
        (only,) = by_pixels
        if only.cue is None or only.cue.name not in EXACT:
            one_sided = [name for name in names if name in ONE_SIDED]
            only = choose_side(samples, packed, one_sided, max(0.0, least - _HALO)) or only
        return (only,)
    if all(one.cue for one in by_pixels):
        return tuple(by_pixels)
    by_objects = best(np.count_nonzero(labels, axis=1) > 1, whole=True)
    return tuple(
        one if one.cue else max(one, other, key=lambda each: (each.cue is not None, each.agreement))
        for one, other in zip(by_pixels, by_objects, strict=True)
    )


def choose_side(
    samples: Sequence[Sample], packed: Sequence[npt.NDArray[np.uint8]], names: Sequence[CueName], least: float
) -> ChosenCue | None:
    """Return the one-sided cue that outlines the only class, if images, labels and pseudo-masks say that one does.

    Objects and their halos always occur together, so labels cannot tell them apart, and pseudo-masks cover both. But a
    halo surrounds its object: it lies between the object and the background. So of the sides, the one is taken whose
    outlines border less on background, which neither side marks. It has to agree with the pseudo-masks, though less
    than other cues, since it leaves out the halo. And it has to respond to the class: the share of an image's pixels
    that it marks tells images with the class from others with an area under the ROC curve of at least 0.7. Then objects
    that the cue outlines are learned whole where the pseudo-masks touch them.

    Sides are compared in 200 evenly spaced images with the class, or in all; the response is measured in as many of
    each kind. Thresholds come from 400 evenly spaced images.

    Args:
        samples: The training samples, with the label of one class.
        packed: Their pseudo-masks, from `pseudo_masks`.
        names: The one-sided cues to choose from.
        least: Least agreement with the pseudo-masks, in [0, 1].

    Returns:
        A cue of whole objects, and its agreement with the pseudo-masks by pixels; None if there is no such cue.
    """
    labels = np.array([_labels(sample)[0] for sample in samples], np.bool_)
    if not names or labels.all() or not labels.any():
        return None
    # A threshold of the image's own marks something in every image.
    cues = [cue for cue in _candidates(samples, names) if cue.threshold is not None]
    present, absent = (spread(np.flatnonzero(column).tolist(), _COMPARED) for column in (labels, ~labels))
    exposed = exposures((samples[number].image for number in present), cues)
    cue = min(cues, key=exposed.__getitem__)
    agreement = float(agreements(_examples(samples, packed, present), [cue])[cue][0])
    if agreement < least:
        return None
    judged = [*present, *absent]
    areas = np.array([cue.mask(samples[number].image).mean() for number in judged])
    if area_under_roc(labels[judged], areas) < _RESPONDS:
        return None
    return ChosenCue(dataclasses.replace(cue, whole=True), agreement)


def _candidates(samples: Sequence[Sample], names: Sequence[CueName]) -> tuple[Cue, ...]:
    """Return the named cues, with thresholds from evenly spaced images; see `candidates`."""
    return candidates((samples[number].image for number in spread(range(len(samples)), _COMMON)), names)


def _examples(
    samples: Sequence[Sample], packed: Sequence[npt.NDArray[np.uint8]], numbers: Sequence[int]
) -> Iterator[tuple[FloatArray, BoolArray, BoolArray]]:
    """Yield what `agreements` needs of some samples: image, pseudo-masks and labels."""
    for number in numbers:
        sample = samples[number]
        image = sample.image
        yield image, _planes(packed[number], image.shape[2])[:-1], _labels(sample)


def with_cues(
    samples: Sequence[Sample], packed: Sequence[npt.NDArray[np.uint8]], cues: Sequence[Cue | None]
) -> list[npt.NDArray[np.uint8]]:
    """Return the pseudo-masks as corrected by the cues of the classes that an image contains; see `consensus`.

    Args:
        samples: Have labels.
        packed: Their pseudo-masks, from `pseudo_masks`.
        cues: A cue, or None, for each class.
    """
    corrected = []
    whole = np.array([cue is not None and cue.whole for cue in cues])
    for sample, bits in zip(samples, packed, strict=True):
        labels, planes = _labels(sample), _planes(bits, sample.image.shape[2])
        outlines, used = np.zeros_like(planes[:-1]), np.zeros_like(labels)
        for index, cue in enumerate(cues):
            if cue is not None and labels[index]:
                outlines[index], used[index] = cue.mask(sample.image), True
        masks, uncertain = consensus(planes[:-1], outlines, used, whole)
        corrected.append(np.packbits(np.concatenate([masks, (planes[-1] | uncertain)[None]]), axis=-1))
    return corrected


def annotated(samples: Sequence[Sample], packed: Sequence[npt.NDArray[np.uint8]]) -> Sequence[Sample]:
    """Return the samples with the masks and ignored pixels that `pseudo_masks` returned, and no other annotation."""

    def make(number: int) -> Sample:
        sample = samples[number]
        planes = _planes(packed[number], sample.image.shape[2])
        return dataclasses.replace(sample, labels=None, masks=planes[:-1], ignore=planes[-1])

    return LazySamples(range(len(samples)), make)


def _ranking(model: Model, valid: Sequence[Sample], classes: Sequence[str]) -> str:
    """Return how well a model orders validation samples by the presence of classes, for an error message."""
    if not len(valid):
        return ""
    labels = np.array([_labels(sample) for sample in valid])
    presence = np.stack([each.presence for each in model.score((sample.image for sample in valid), lambda _: ())])
    areas = {
        name: area_under_roc(labels[:, index], presence[:, index])
        for index, name in enumerate(classes)
        if 0 < labels[:, index].sum() < len(labels)
    }
    listed = ", ".join(f"{name} {area:.2f}" for name, area in areas.items())
    return f" (AUC of presence on the validation samples, 0.5 by chance: {listed})" if areas else ""


def _planes(bits: npt.NDArray[np.uint8], width: int) -> BoolArray:
    """Return masks and, last, the pixels to ignore: bool (K + 1, H, W)."""
    return np.unpackbits(bits, axis=-1, count=width).astype(np.bool_)


def _labels_only(sample: Sample) -> Sample:
    return sample.keep({Annotation.LABELS})


def _always(classes: Sequence[int]) -> ClassRule:
    return lambda presence: classes


def _labels(sample: Sample) -> BoolArray:
    assert sample.labels is not None
    return sample.labels
