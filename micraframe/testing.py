"""The conformance kit: checks of what each kind of component promises, for the tests of a plugin.

    from micraframe.testing import check

    def test_my_combiner():
        check("combiner", "mean")

Inputs are small, made here, and the same in every run. A component that writes to its inputs fails.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from micraframe import pipeline, registry
from micraframe.classifier import Classifier, create_classifier
from micraframe.config import Choice
from micraframe.errors import MicraframeError, ModelError
from micraframe.interfaces import Backbone, Explain, MaskHeadParams, Thresholds
from micraframe.metrics.reduction import stack
from micraframe.micranet import MicraNet, MicraNetModel
from micraframe.objects import bounding_boxes
from micraframe.parameters import Parameters
from micraframe.pooling import LogSumExp, Pooling
from micraframe.tiling import Tiling
from micraframe.types import (
    SPLITS,
    Annotation,
    DatasetInfo,
    FitContext,
    FloatArray,
    Layer,
    Maps,
    Normalisation,
    Prediction,
    Role,
    Sample,
    Scores,
    Work,
)

SIZES = ((32, 32), (33, 47), (61, 40))
"""(H, W) of the images that components are tried on: odd and non-square too."""

_LAYERS = (Layer("L1", 4, 1), Layer("L2", 6, 2), Layer("L3", 8, 4))


def check(kind: str, name: str, /, **params: Any) -> None:
    """Build a component and check all that its kind promises.

    Args:
        kind: The kind of component.
        name: Its name, or `plugin/name`.
        **params: Its parameters.

    Raises:
        AssertionError: If it breaks a promise; the message says which.
        PluginError: If it cannot be built.
        ConfigError: If a parameter is unknown or its value is not allowed.
    """
    built = registry.build(kind, name, **params).params
    assert all(field.description for field in type(built).model_fields.values()), "every parameter has a description"
    assert built.model_config.get("extra") == "forbid", "Params forbids unknown parameters"
    assert type(built).model_validate(built.model_dump(mode="json")) == built, "parameters survive being saved as JSON"
    try:
        _CHECKS[kind](Choice(name=name, params=params))
    except MicraframeError as error:
        # Many errors of the framework name the component already.
        message = str(error)
        raise AssertionError(message if message.startswith(f"{kind} ") else f"{kind} {name}: {message}") from error


def _check_dataset(choice: Choice) -> None:
    dataset = registry.build("dataset", choice.name, **choice.params)
    info = dataset.info()
    assert info == dataset.info(), "info is the same each time"
    ids: set[str] = set()
    splits: dict[str, str] = {}
    for split in SPLITS:
        samples = dataset.samples(split)
        for number in range(min(len(samples), 20)):
            sample = samples[number]
            assert sample.id not in ids, f"ids are distinct; {sample.id!r} is not"
            ids.add(sample.id)
            assert _content(sample) == _content(samples[number]), f"{sample.id} reads the same each time"
            assert sample.image.shape[0] == info.channels, f"{sample.id} has {info.channels} channels"
            if sample.group is not None:
                other = splits.setdefault(sample.group, split)
                assert other == split, f"no group is in two splits; {sample.group!r} is in {other} and {split}"
            for annotation in Annotation:
                value = getattr(sample, annotation.value)
                assert value is None or len(value) == len(info.classes), f"{annotation} of {sample.id} are per class"
    assert ids, "there are samples"


def _check_annotator(choice: Choice) -> None:
    annotator = registry.build("annotator", choice.name, **choice.params)
    for sample in full_samples():
        with _unchanged(sample):
            annotated, work = annotator.annotate(sample, seed=3)
        assert isinstance(work, Work), "annotation takes work"
        assert (annotated.id, _content(annotated.image)) == (sample.id, _content(sample.image)), "id and image are kept"
        assert _content((annotated, work)) == _content(annotator.annotate(sample, seed=3)), "same seed, same annotation"
        for annotation in Annotation:
            value = getattr(annotated, annotation.value)
            assert value is None or len(value) == 2, f"{annotation} are per class"


def _check_backbone(choice: Choice) -> None:
    backbone = registry.build("backbone", choice.name, **choice.params)
    for channels in (1, 3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            classifier = create_classifier(backbone, channels, 2).eval()
            untrained = create_classifier(backbone.untrained(), channels, 2)
        shapes = [{name: tensor.shape for name, tensor in c.state_dict().items()} for c in (classifier, untrained)]
        assert shapes[0] == shapes[1], "untrained() is the same network"
        for size in ((64, 64), (97, 131)):
            images = torch.rand((2, channels, *size), generator=torch.Generator().manual_seed(0))
            with _unchanged(images):
                both, second = classifier.features(images), classifier.features(images[1:])
            for layer, activation, alone in zip(classifier.layers, both, second, strict=True):
                assert torch.allclose(activation[1:], alone, atol=1e-4), f"{layer.name}: a batch of 2 is 2 batches of 1"
        for layer, gradient in zip(classifier.layers, torch.autograd.grad(both[-1].sum(), both), strict=True):
            assert torch.isfinite(gradient).all(), f"the gradient at {layer.name} is finite"


def _check_extractor(choice: Choice) -> None:
    extractor = registry.build("extractor", choice.name, **choice.params)
    refusals = []
    for pooling in ("max", LogSumExp()):
        classifier = small_classifier(pooling=pooling)
        try:
            with _unchanged(classifier):
                explain = extractor.prepare(classifier)
        except ModelError as error:
            refusals.append(error)
        else:
            _check_maps(explain, classifier)
    if len(refusals) == 2:
        raise refusals[0]


def _check_maps(explain: Explain, classifier: Classifier) -> None:
    chosen = [(2, 0), (), (1,)]
    with _unchanged(classifier):
        for size in SIZES:
            images = np.random.default_rng(0).random((3, 1, *size), np.float32)
            with torch.no_grad():
                known = torch.sigmoid(classifier(torch.from_numpy(images))).numpy()

            def rule(presence: FloatArray, known: FloatArray = known) -> tuple[int, ...]:
                return chosen[int(np.abs(known - presence).sum(axis=1).argmin())]  # recognises each image

            with _unchanged(images):
                together = explain(images, rule)
            assert [maps.classes for maps in together] == chosen, "each image has maps of the classes that were chosen"
            for image, presence, maps in zip(images, known, together, strict=True):
                assert np.allclose(maps.presence, presence, atol=1e-4), "presence is what the classifier predicts"
                assert maps.size == size, "maps know the size of the image"
                assert set(maps.layers) <= set(classifier.layers), "maps are of the classifier's layers"
                (alone,) = explain(image[None], rule)
                for one, other in zip(alone.maps, maps.maps, strict=True):
                    assert np.allclose(one, other, atol=1e-4), "a batch of 3 is 3 batches of 1"


def _check_combiner(choice: Choice) -> None:
    model = MicraNetModel(MicraNet.Params(combiner=choice), small_classifier(), _info(3))
    generator = np.random.default_rng(0)
    for size in SIZES:
        image = generator.random((1, *size), np.float32)
        for change in (lambda a: a, np.zeros_like, np.ones_like, lambda a: -np.abs(a)):
            for count in (0, 1, 3):
                maps = _random_maps(size, count, change)
                with _unchanged(maps, image):
                    scores = model.combine(maps, image)
                assert _content(scores.presence) == _content(maps.presence), "presence is passed on"
                assert _content(model.combine(maps, image)) == _content(scores), "same maps, same bytes"


def _check_head(choice: Choice) -> None:
    head = registry.build("head", choice.name, **choice.params)
    generator = np.random.default_rng(0)
    for size, contact in itertools.product(SIZES, (False, True)):
        image, info = generator.random((1, *size), np.float32), _info(3, contact)
        for presence in np.array([[0.9, 0.1, 0.7], [0, 0, 0], [1, 1, 1]], np.float32):
            chosen = list(head.classes_to_explain(presence))
            for maps in (generator.random((3, *size), np.float32), np.zeros((3, *size), np.float32)):
                scores = Scores(presence, tuple(chosen), maps[chosen], coarse=maps[chosen])
                with _unchanged(scores, image):
                    prediction = head.decide(scores, image, info)
                assert prediction.scores is scores, "the prediction holds the scores"
                assert np.array_equal(prediction.present, head.present(presence)), "the threshold decides on presence"
                for array in (prediction.masks, prediction.instances):
                    assert array is None or array.shape == (3, *size), "masks have the image's size"
                    assert array is None or not array[~prediction.present].any(), "an absent class has no mask"
                more = Scores(presence, (0, 1, 2), maps, coarse=maps)
                _same(prediction, head.decide(more, image, info), "where scores hold maps that were not asked for")
                head.decide(Scores(presence, (0, 1, 2), maps), image, info)  # many models have no coarse map
    full = Scores(np.array([0.9, 0.1, 0.1], np.float32), (0, 1, 2), np.ones((3, *SIZES[0]), np.float32))
    tuned = head.with_thresholds(Thresholds((0.8, 0.8, 0.05), 1.0))
    decided = tuned.decide(full, np.zeros((1, *SIZES[0]), np.float32), _info(3))
    assert decided.present.tolist() == [True, False, True], "each class has its own presence threshold"
    if isinstance(head.params, MaskHeadParams):
        assert decided.masks is not None, "a head with a mask threshold makes masks"
        assert not decided.masks.any(), "no pixel of a map is above 1"


def _check_method(choice: Choice) -> None:
    method = registry.build("method", choice.name, **choice.params)
    unknown = method.inference_params - set(type(method).Params.model_fields)
    assert not unknown, f"inference_params are parameters; {sorted(unknown)} are not"
    samples = [sample.keep(method.learns_from) for sample in full_samples(8)]
    context = FitContext(seed=1, precision="float32", device="cpu")
    valid = samples[6:] if method.uses_validation else ()
    with _unchanged(samples):
        fitted = pipeline.fit(choice, samples[:6], valid, _info(2), context)
    images = [sample.image for sample in samples] + [np.zeros((1, 40, 56), np.float32)]
    with _unchanged(images):
        predictions = list(fitted.predict(images))
    assert len(predictions) == len(images), "every image has a prediction"
    with tempfile.TemporaryDirectory() as folder:
        fitted.save(Path(folder) / "model")
        loaded = pipeline.load(Path(folder) / "model", "cpu")
    blind = fitted.with_thresholds(Thresholds((1.0, 1.0), 1.0), "validation")
    for image, prediction, again, never in zip(
        images, predictions, loaded.predict(images), blind.predict(images), strict=True
    ):
        _same(prediction, again, "after saving and loading")
        _same(prediction, next(fitted.predict([image])), "alone and among others")
        assert never.masks is None or not never.masks.any(), "no pixel of a map is above 1"
    large = np.tile(images[0], (1, 3, 3))[:, :70, :131]
    (tiled,) = dataclasses.replace(fitted, tiling=Tiling(size=64, halo=16)).predict([large])
    assert tiled.scores.size == large.shape[1:], "scores of tiles are merged to those of the image"


def _check_metric(choice: Choice) -> None:
    metric = registry.build("metric", choice.name, **choice.params)
    columns = metric.columns()
    names = [column.name for column in columns]
    assert len(set(names)) == len(names) > 0, f"there are columns, and their names are distinct; they are {names}"
    assert all(column.definition and column.range[0] < column.range[1] for column in columns), "columns are described"
    needed = {name for column in columns for name in column.statistics if not name.endswith("@")}
    measured = []
    for prediction, truth in _measured_pairs():
        with _unchanged(prediction, truth):
            statistics = metric.measure(prediction, truth)
        measured.append(statistics)
        assert needed <= statistics.keys(), f"columns have statistics; {sorted(needed - statistics.keys())} are missing"
        _check_numbers(statistics)
    for count in (0, 1, len(measured)):
        reduced = metric.reduce({**{name: np.zeros((0, 2)) for name in measured[0]}, **stack(measured[:count], 2)})
        assert set(reduced) == set(names), f"reduce returns the columns {names}, not {sorted(reduced)}"
        _check_numbers(reduced)
        for column in columns:
            values = reduced[column.name][~np.isnan(reduced[column.name])]
            low, high = column.range
            assert ((values >= low) & (values <= high)).all(), f"{column.name} is from {low} to {high}"


def _check_numbers(numbers: Mapping[str, Any]) -> None:
    for name, values in numbers.items():
        assert np.shape(values) == (2,), f"{name} has one number per class"
        assert np.issubdtype(values.dtype, np.floating), f"{name} is an array of floats"
        assert not np.isinf(values).any(), f"{name} is finite, or NaN where it is undefined"


def _measured_pairs() -> Iterator[tuple[Prediction, Sample]]:
    """Yield predictions, right and wrong, with and without masks, and truths with all and with less annotation."""
    point = (np.array([[20, 20, 0.5]], np.float32), np.zeros((0, 3), np.float32))
    for sample in full_samples(3):
        masks, labels = sample.masks, sample.labels
        assert masks is not None
        assert labels is not None
        scores = Scores(labels * np.float32(0.8) + np.float32(0.1), (0, 1), masks.astype(np.float32))
        for prediction in (
            Prediction(scores, labels),
            Prediction(scores, labels, masks),
            Prediction(scores, ~labels, np.zeros_like(masks)),
            Prediction(scores, ~labels, ~masks, (~masks).astype(np.int32), point),
        ):
            for truth in (sample, dataclasses.replace(sample, masks=np.zeros_like(masks), instances=None)):
                yield prediction, truth
            yield prediction, sample.keep({Annotation.LABELS})


_CHECKS: dict[str, Callable[[Choice], None]] = {
    "dataset": _check_dataset,
    "annotator": _check_annotator,
    "backbone": _check_backbone,
    "extractor": _check_extractor,
    "combiner": _check_combiner,
    "head": _check_head,
    "method": _check_method,
    "metric": _check_metric,
}


def full_samples(count: int = 4, size: tuple[int, int] = (48, 48)) -> list[Sample]:
    """Return fully annotated samples of two classes, bright discs and bright squares, either of which may be absent."""
    samples = []
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(count):
        generator = np.random.default_rng(number)
        y, x = generator.integers(10, np.array(size) - 10)
        masks = np.stack([np.hypot(rows - y, columns - x) < 7, (np.abs(rows - x) < 6) & (np.abs(columns - y) < 6)])
        masks[number % 2] &= number % 4 != 0
        masks[1] &= ~masks[0]
        image = generator.normal(0.1, 0.05, size) + masks.any(0)
        instances = masks.astype(np.int32)
        samples.append(
            Sample(
                f"sample-{number}",
                np.clip(image, 0, 1).astype(np.float32)[None],
                labels=np.asarray(masks.any((1, 2))),
                points=tuple(np.argwhere(mask)[:1].astype(np.float32) for mask in masks),
                boxes=bounding_boxes(instances),
                masks=masks,
                instances=instances,
            )
        )
    return samples


@final
class _SmallBackbone(Backbone[Parameters]):
    def create(self, channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
        widths = (channels, *(layer.channels for layer in _LAYERS))
        blocks = (
            nn.Sequential(
                nn.MaxPool2d(2) if number else nn.Identity(),
                nn.Conv2d(widths[number], widths[number + 1], 3, padding=1),
                nn.BatchNorm2d(widths[number + 1]),
                nn.ReLU(),
            )
            for number in range(len(_LAYERS))
        )
        return _Blocks(blocks), _LAYERS


class _Blocks(nn.ModuleList):
    def forward(self, images: Tensor) -> list[Tensor]:
        return list(itertools.accumulate(self, lambda activation, block: block(activation), initial=images))[1:]


def small_classifier(classes: int = 3, pooling: Pooling = "max") -> Classifier:
    """Return a classifier of three layers, for one channel, with fixed random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_classifier(_SmallBackbone(Parameters()), 1, classes, pooling).eval()


def _random_maps(size: tuple[int, int], classes: int, change: Callable[[FloatArray], FloatArray]) -> Maps:
    """Return random signed maps of three layers, each passed through `change`."""
    generator = np.random.default_rng(7)
    arrays = tuple(
        change(generator.normal(size=(classes, *(edge // layer.stride for edge in size))).astype(np.float32))
        for layer in _LAYERS
    )
    return Maps(size, tuple(range(classes)), _LAYERS, arrays, np.full(3, 0.5, np.float32))


def _info(classes: int, contact: bool = False) -> DatasetInfo:
    """Return metadata of two or three classes; the last one can be the contact class."""
    names = ("disc", "square", "ring")[:classes]
    roles: tuple[Role, ...] = ("object", "object", "contact") if contact else ()
    return DatasetInfo("conformance", names, 1, Normalisation("min-max"), "0" * 64, roles=roles)


def _content(value: Any) -> Any:
    """Return what a value holds, arrays as bytes, so that it can be compared with another."""
    if isinstance(value, nn.Module):
        value = [
            list(value.state_dict().values()),
            [(parameter.requires_grad, parameter.grad is None) for parameter in value.parameters()],
            [(m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in value.modules()],
        ]
    if isinstance(value, Tensor):
        value = value.numpy(force=True)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [_content(part) for part in value] if isinstance(value, tuple | list) else repr(value)


@contextmanager
def _unchanged(*inputs: object) -> Iterator[None]:
    """Check that the block does not change these."""
    before = _content(inputs)
    try:
        yield
    except ValueError as error:
        if "read-only" in str(error):
            raise AssertionError("a component does not write to its inputs: copy them first") from error
        raise
    assert _content(inputs) == before, "a component leaves its inputs, and a classifier's mode and hooks, as they were"


def _same(one: Prediction, other: Prediction, when: str) -> None:
    assert np.allclose(one.scores.presence, other.scores.presence, atol=1e-5), f"presence is the same {when}"
    assert np.array_equal(one.present, other.present), f"decisions are the same {when}"
    for name in ("masks", "instances"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None), f"{name} are the same {when}"
        assert first is None or np.mean(first != second) < 1e-3, f"{name} are the same {when}"
