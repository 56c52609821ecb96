"""A trained pipeline, model and head: the only place that predicts, tiles, applies thresholds, saves and loads.

    pipeline = micraframe.load("runs/nuclei/model", combiner="guided")
    for prediction in pipeline.predict(images):
        ...

All methods go through it, so a difference between methods is never a difference in post-processing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from micraframe import registry
from micraframe.batching import with_images
from micraframe.config import Choice, resolve_choice
from micraframe.datasets.sources import LazySamples
from micraframe.errors import ConfigError, DataError, InterfaceError, ModelError, counted, reason_of
from micraframe.heads.sizes import has_auto, with_sizes, with_values, without_auto
from micraframe.interfaces import ClassRule, Head, Method, Model, ScoredTile, Thresholds
from micraframe.modelfile import (
    ModelFile,
    hash_weights,
    load_model,
    provenance,
    save_model,
    share_weights,
    weights_hash,
)
from micraframe.runtime.numerics import numerics
from micraframe.tiling import Tiling, lay, stitch
from micraframe.types import (
    Annotation,
    DatasetInfo,
    FitContext,
    FloatArray,
    Origin,
    Prediction,
    Sample,
    Scores,
    check_image,
)

_REHEARSED: Final = 512
"""Largest side, in pixels, of the image that is predicted before training."""

KEEP: Any = object()
"""Keeps the saved value of a parameter for which None has another meaning."""


@final
@dataclass(frozen=True, eq=False)
class Pipeline:
    """A model and the head that decides on its scores.

    Attributes:
        method: Qualified name of the method, with all its parameters.
        model: The trained model.
        head_name: Qualified name of the head.
        head: The head.
        info: Metadata of the dataset that the model learned from.
        tiling: How large images are cut into tiles; None: they are kept whole.
        origins: The origin of tuned thresholds, by `presence` and `mask`.
        untuned: The head before its thresholds were tuned; None if they were not tuned.
        provenance: Seed, fingerprint of the data, versions.
    """

    method: Choice
    model: Model
    head_name: str
    head: Head[Any]
    info: DatasetInfo
    tiling: Tiling | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)
    untuned: Head[Any] | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    def predict(self, images: Iterable[FloatArray]) -> Iterator[Prediction]:
        """Yield a prediction for each image, in order, in constant memory.

        Args:
            images: Each float32 (C, H, W), of any size, normalised as the training images were.

        Raises:
            DataError: If an image is not as it must be.
        """
        for image, scores in with_images(images, self.score, self._name):
            yield self.decide(scores, image)

    def score(self, images: Iterable[FloatArray], rule: ClassRule | None = None) -> Iterator[Scores]:
        """Yield the scores of each image, in order; for an image larger than a tile, they are merged from its tiles.

        The network needs memory for one tile; image and maps are held whole. Maps that a model scales by their maximum,
        as MICRA-Net does, are scaled tile by tile. A class that was not found in a tile has a map of 0 there.

        Args:
            images: Each float32 (C, H, W).
            rule: Chooses the classes that need a map; by default the head does.

        Raises:
            DataError: If an image is not as it must be.
            InterfaceError: If the model does not return what its interface promises.
        """
        rule = rule or self.head.classes_to_explain
        for cut, run in itertools.groupby(self._checked(images), self.cuts):
            if cut:
                yield from (self._score_tiles(image, rule) for image in run)
            else:
                yield from self._score(run, rule)

    def cuts(self, image: FloatArray) -> bool:
        """Return whether an image (C, H, W) is scored in tiles."""
        return self.tiling is not None and self.tiling.cuts((image.shape[1], image.shape[2]))

    @property
    def uses_maps(self) -> bool:
        """Whether the head asks for score maps; one that only says which classes are present does not."""
        return bool(self.head.classes_to_explain(np.ones(len(self.info.classes), np.float32)))

    def decide(self, scores: Scores, image: FloatArray) -> Prediction:
        """Return the head's decision on an image's scores.

        Args:
            scores: The image's scores.
            image: float32 (C, H, W).
        """
        prediction = self.head.decide(scores, image, self.info)
        for name in ("masks", "instances"):
            array = getattr(prediction, name)
            if array is not None and array.shape[1:] != image.shape[1:]:
                raise InterfaceError(
                    f"head {self.head_name}: expected {name} of size {image.shape[1:]}, got {array.shape[1:]}"
                )
        if not self.origins:
            return prediction
        records = [
            dataclasses.replace(record, origin=self.origins.get(record.name.partition(" ")[0], record.origin))
            for record in prediction.thresholds
        ]
        return dataclasses.replace(prediction, thresholds=tuple(records))

    def with_head(self, head: Choice | str) -> Pipeline:
        """Return the same model with another head."""
        name, built = _build_head(head if isinstance(head, Choice) else Choice(name=head))
        return dataclasses.replace(self, head_name=name, head=built, origins={}, untuned=None)

    def with_thresholds(self, thresholds: Thresholds, origin: Origin) -> Pipeline:
        """Return the same pipeline with tuned thresholds in place of the head's own."""
        tuned = {"presence": thresholds.presence, "mask": thresholds.mask}
        origins = {**self.origins, **{name: origin for name, value in tuned.items() if value is not None}}
        head = self.head.with_thresholds(thresholds)
        return dataclasses.replace(self, head=head, origins=origins, untuned=self.untuned or self.head)

    def without_tuning(self) -> Pipeline:
        """Return the same pipeline with the thresholds that its head had before they were tuned."""
        return dataclasses.replace(self, head=self.untuned or self.head, origins={}, untuned=None)

    def save(self, folder: Path | str, like: Path | str | None = None) -> None:
        """Write the model, its head and its thresholds to a folder; no file of it can run code.

        Args:
            folder: Replaced if it exists.
            like: A saved model, such as the one that was loaded; if it has the same weights, they are not written
                again but shared: `share_weights`.
        """
        head = _as_choice(self.head_name, self.head)
        untuned = None if self.untuned is None else _as_choice(self.head_name, self.untuned)
        state = self.model.state()
        saved = ModelFile(self.method, head, self.info, state, self.tiling, self.origins, untuned, self.provenance)
        if like is not None and weights_hash(Path(like)) == hash_weights(state):
            share_weights(Path(like), Path(folder), saved)
        else:
            save_model(Path(folder), saved)

    @property
    def _name(self) -> str:
        return f"method {self.method.name}"

    def _checked(self, images: Iterable[FloatArray]) -> Iterator[FloatArray]:
        for number, image in enumerate(images):
            check_image(image, f"image {number}")
            if image.shape[0] != self.info.channels:
                raise DataError(
                    f"image {number}: expected {counted(self.info.channels, 'channel')}, as in the training images, "
                    f"got {image.shape[0]}"
                )
            yield image

    def _score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        count = len(self.info.classes)
        for image, scores in with_images(images, lambda some: self.model.score(some, rule), self._name):
            size = image.shape[1:]
            if (len(scores.presence), scores.size) != (count, size):
                raise InterfaceError(
                    f"{self._name}: expected scores of {counted(count, 'class', 'classes')} and size {size}, got "
                    f"{counted(len(scores.presence), 'class', 'classes')} and size {scores.size}"
                )
            yield scores

    def _score_tiles(self, image: FloatArray, rule: ClassRule) -> Scores:
        assert self.tiling is not None
        tiles = list(itertools.product(*(lay(side, self.tiling) for side in image.shape[1:])))
        crops = (image[:, slice(*rows), slice(*columns)] for (rows, _), (columns, _) in tiles)
        scored = [
            ScoredTile(rows, columns, used_rows, used_columns, scores)
            for ((rows, used_rows), (columns, used_columns)), scores in zip(
                tiles, self._score(crops, rule), strict=True
            )
        ]
        return self.model.merge_tiles(stitch(scored, (image.shape[1], image.shape[2])), scored)


def fit(
    method: Choice | str,
    train: Sequence[Sample],
    valid: Sequence[Sample],
    info: DatasetInfo,
    context: FitContext | None = None,
    head: Choice | str | None = None,
    tiling: Tiling | None = None,
) -> Pipeline:
    """Train a method and return the pipeline with its head.

    Values of the head that are `auto` are found on the validation samples, or else the training samples.

    Args:
        method: Name of the method, or name and parameters.
        train: Training samples, which hold only the annotation that the method learns from.
        valid: Validation samples, with the same annotation.
        info: Metadata of the dataset that both come from.
        context: Seed, device, precision, folder for checkpoints, progress callback.
        head: Name of the head, or name and parameters; by default the method's default head.
        tiling: How large images are cut into tiles.

    Raises:
        DataError: If there is no training sample, or one does not have the dataset's channels and classes or any
            annotation that the method learns from.
    """
    if not train:
        raise DataError(f"dataset {info.name!r}: expected one or more training samples, got none")
    context = context or FitContext()
    choice = resolve_choice("method", Choice.model_validate(method))
    built = registry.build("method", choice.name, **choice.params)
    wanted = Choice.model_validate(head or default_head(built))
    name, chosen = _build_head(wanted)
    train, valid = (checked_samples(samples, built.learns_from, info) for samples in (train, valid))
    info = with_training_size(info, train)
    if (trial := untrained(choice, info, wanted, tiling)) is not None:
        rehearse(trial, train[0].image.shape[1:])
    model = built.fit(train, valid, info, context)
    origin = provenance(context.seed, info.fingerprint, numerics(context.device, context.precision))
    fitted = Pipeline(choice, model, name, chosen, info, tiling, provenance=origin)
    sized = with_sizes(chosen, valid if len(valid) else train, fitted.score, info)
    return dataclasses.replace(fitted, head=sized)


def with_training_size(info: DatasetInfo, train: Iterable[Sample]) -> DatasetInfo:
    """Return the metadata with the size of the training images, if these share one that the dataset does not name."""
    if info.image_size is not None:
        return info
    # Lazily: of images with different sizes, few are read.
    sizes = ((sample.image.shape[1], sample.image.shape[2]) for sample in train)
    first = next(sizes, None)
    if any(size != first for size in sizes):
        return info
    return dataclasses.replace(info, training_size=first)


def untrained(
    method: Choice, info: DatasetInfo, head: Choice | None = None, tiling: Tiling | None = None
) -> Pipeline | None:
    """Return the pipeline of a method that has learned nothing, for `rehearse`; None if there is no such model.

    Args:
        method: Name and parameters of the method.
        info: Metadata of the dataset that it is to learn from.
        head: The head; by default the method's default head.
        tiling: How large images are cut into tiles.
    """
    built = registry.build("method", method.name, **method.params)
    if (model := built.untrained(info)) is None:
        return None
    name, chosen = _build_head(head or default_head(built))
    return Pipeline(method, model, name, without_auto(chosen), info, tiling)


def rehearse(pipeline: Pipeline, size: tuple[int, ...]) -> None:
    """Predict a blank image with every class, so that what cannot work fails before hours of training.

    Args:
        pipeline: Its model may have learned nothing.
        size: (H, W) of the training images; of large ones, only a corner is predicted.

    Raises:
        ConfigError: If the head cannot decide on the model's scores, or its thresholds are not for these classes.
        MicraframeError: If the model cannot score such an image.
    """
    classes = range(len(pipeline.info.classes))
    image = np.zeros((pipeline.info.channels, *(min(side, _REHEARSED) for side in size)), np.float32)
    (scores,) = pipeline.score([image], lambda presence: classes)
    pipeline.head.present(scores.presence)
    # At a threshold of 0, every class counts as present.
    forced = pipeline.with_thresholds(Thresholds(presence=(0.0,) * len(classes)), "fixed")
    try:
        forced.decide(scores, image)
    except Exception as error:  # a plugin's head may raise anything
        raise ConfigError(
            f"head {pipeline.head_name} cannot decide on the scores of method {pipeline.method.name}: "
            f"{reason_of(error)}; choose another head"
        ) from error


def checked_samples(
    samples: Sequence[Sample], learns_from: frozenset[Annotation], info: DatasetInfo
) -> Sequence[Sample]:
    """Return samples that are checked on access, so that no method has to.

    Reading one raises `DataError`, naming it, if it does not have the dataset's channels and classes, or any annotation
    that the method learns from.
    """

    def check(sample: Sample) -> Sample:
        if len(sample.image) != info.channels:
            expected = counted(info.channels, "channel")
            raise DataError(f"sample {sample.id!r}: expected {expected}, got {len(sample.image)}")
        given = {str(kind): len(getattr(sample, kind)) for kind in Annotation if getattr(sample, kind) is not None}
        if not given.keys() & learns_from:
            expected = " or ".join(kind for kind in Annotation if kind in learns_from)
            raise DataError(
                f"sample {sample.id!r}: expected {expected}, which the method learns from, got "
                f"{' and '.join(given) or 'no annotation'}; choose an annotator that provides it, such as `annotator: "
                f"{_annotator_of(learns_from)}`"
            )
        if set(given.values()) != {len(info.classes)}:
            got = " and ".join(f"{name} of {count}" for name, count in given.items())
            expected = counted(len(info.classes), "class", "classes")
            raise DataError(f"sample {sample.id!r}: expected annotation of {expected}, got {got}")
        return sample

    return LazySamples(samples, check)


def _annotator_of(learns_from: frozenset[Annotation]) -> str:
    """Return the annotator that gives a method the strongest annotation that it learns from."""
    annotators = {"instances": "full", "masks": "full", "boxes": "boxes", "points": "points", "labels": "image-level"}
    return next(name for annotation, name in annotators.items() if annotation in learns_from)


def load(
    folder: Path | str,
    device: str = "auto",
    *,
    head: Choice | str | None = None,
    tiling: Tiling | None = KEEP,
    sizes_from: Callable[[], Sequence[Sample]] | None = None,
    **params: Any,
) -> Pipeline:
    """Read a saved pipeline, with the parts that are overridden by name.

    Args:
        folder: What `Pipeline.save` wrote.
        device: `auto` (a GPU when there is one), or a torch device.
        head: Another head: its name, or name and parameters. A mask threshold that is left out is that of the method's
            default head: 0.5 for methods whose maps are probabilities. What is `auto` is that of the saved head, if it
            is of the same name, unless `sizes_from` is given.
        tiling: Other tiling; None for none.
        sizes_from: Returns the samples on which `auto` values of the other head are found; called only for these.
        **params: Parameters of the method that do not influence what it learned, such as `combiner`.

    Raises:
        ModelError: If the folder is not a saved model.
        ConfigError: If a parameter does not exist, or determines what was learned; or the head has an `auto` for which
            the saved one has no number.
    """
    saved = load_model(Path(folder))
    choice = override(saved.method, params, str(folder))
    method = registry.build("method", choice.name, **choice.params)
    try:
        model = method.restore(saved.tensors, saved.info, device)
    except (RuntimeError, KeyError) as error:
        raise ModelError(
            f"{folder}: the weights do not fit the model that its configuration describes: {reason_of(error)}"
        ) from error
    kept = saved.tiling if tiling is KEEP else tiling
    name, built = _build_head(saved.head if head is None else _with_threshold(Choice.model_validate(head), method))
    if has_auto(built) and sizes_from:
        unsized = Pipeline(choice, model, name, built, saved.info, kept)
        built = with_sizes(built, sizes_from(), unsized.score, saved.info)
    if has_auto(built) and saved.head.name == name:
        built = with_values(built, saved.head.params)
    if has_auto(built):
        raise ConfigError(
            f"{folder}: expected numbers for smoothing and minimum_size of head {registry.short_name(name)}, got auto, "
            "which only train and tune --sizes can find; give numbers, or run tune --sizes"
        )
    loaded = Pipeline(choice, model, name, built, saved.info, kept, provenance=saved.provenance)
    if head is not None:
        return loaded
    untuned = None if saved.untuned is None else _build_head(saved.untuned)[1]
    return dataclasses.replace(loaded, origins=saved.origins, untuned=untuned)


def override(method: Choice, params: Mapping[str, Any], where: str) -> Choice:
    """Return a trained method with other inference parameters.

    Raises:
        ConfigError: If one determines what was learned; it names those that can be changed.
    """
    changeable = registry.load(registry.catalog().find("method", method.name))
    assert issubclass(changeable, Method)
    for name in params:
        if name not in changeable.inference_params:
            allowed = ", ".join(sorted(changeable.inference_params))
            raise ConfigError(
                f"{where}: {name!r} is not a parameter of method {registry.short_name(method.name)} that can be "
                f"changed after training; only {f'{allowed} and the head' if allowed else 'the head'} can"
            )
    return resolve_choice("method", Choice(name=method.name, params={**method.params, **params}))


def default_head(method: Method[Any]) -> Choice:
    """Return the default head of a method."""
    name, params = method.default_head
    return Choice(name=name, params=dict(params))


def _build_head(choice: Choice) -> tuple[str, Head[Any]]:
    resolved = resolve_choice("head", choice)
    return resolved.name, registry.build("head", resolved.name, **resolved.params)


def _with_threshold(head: Choice, method: Method[Any]) -> Choice:
    """Return a head with the mask threshold of the method's default head, if it makes masks and has none of its own."""
    made_by = registry.load(registry.catalog().find("head", head.name))
    threshold = method.default_head[1].get("mask_threshold")
    if threshold is None or "mask_threshold" not in made_by.Params.model_fields:
        return head
    return Choice(name=head.name, params={"mask_threshold": threshold, **head.params})


def _as_choice(name: str, head: Head[Any]) -> Choice:
    return Choice(name=name, params=head.params.model_dump(mode="json"))
