"""The conformance kit: what every component must do, as checks that a plugin's own tests call.

    from micraframe.testing import check

    def test_my_combiner():
        check("combiner", "mean")

Each check raises `AssertionError` and says which promise of `micraframe.interfaces` was broken. Inputs are small, made
here, and the same in every run.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.errors import DataError, MicraframeError
from micraframe.interfaces import (
    Annotator,
    Backbone,
    Combiner,
    Dataset,
    Extractor,
    Head,
    Method,
    Metric,
)
from micraframe.tiling import Tiling, predict
from micraframe.types import (
    SPLITS,
    Annotation,
    Cost,
    DatasetInfo,
    FloatArray,
    Layer,
    Maps,
    Normalisation,
    Prediction,
    Run,
    Sample,
    ScoreMap,
)

SIZES = ((32, 32), (33, 47), (61, 40))
"""(H, W) of the images that components are tried on: odd and non-square too."""


def check(kind: str, name: str, /, **params: Any) -> None:
    """Build a component and check all that its kind promises.

    Args:
        kind: The kind of component.
        name: Its name, or `plugin/name`.
        **params: Its parameters.

    Raises:
        AssertionError: If it breaks a promise.
        PluginError: If it cannot be built.
    """
    component = registry.build(kind, name, **params)
    fields = type(component).Params.model_fields
    assert all(field.description for field in fields.values()), "every parameter has a description"
    assert type(component).Params.model_config.get("extra") == "forbid", "Params forbids what it does not know"
    CHECKS[kind](component)


def check_dataset(dataset: Dataset) -> None:
    """Check that samples are in order, read the same twice, and that splits do not share an id or a group."""
    info = dataset.info()
    assert info == dataset.info(), "info is the same each time"
    ids: set[str] = set()
    groups: dict[str, str] = {}
    for split in SPLITS:
        samples = dataset.samples(split)
        for number in range(min(len(samples), 20)):
            sample, again = samples[number], samples[number]
            assert sample.id not in ids, f"the id {sample.id!r} is there twice"
            ids.add(sample.id)
            assert sample.image.tobytes() == again.image.tobytes(), f"{sample.id} reads differently the second time"
            assert sample.image.shape[0] == info.channels, f"{sample.id} does not have {info.channels} channels"
            if sample.group is not None:
                owner = groups.setdefault(sample.group, split)
                assert owner == split, f"the group {sample.group!r} is in {owner} and in {split}"
            for annotation in Annotation:
                value = getattr(sample, annotation.value)
                assert value is None or len(value) == len(info.classes), f"{sample.id}: {annotation} are not per class"
    assert ids, "the dataset is empty"


def check_annotator(annotator: Annotator) -> None:
    """Check that an annotation is the same for the same seed, changes no image, and has a cost."""
    for sample in full_samples():
        before = sample.image.tobytes()
        weaker, cost = annotator.annotate(sample, seed=3)
        again, _ = annotator.annotate(sample, seed=3)
        assert isinstance(cost, Cost), "an annotation has a cost"
        assert weaker.id == sample.id, "the id stays"
        assert weaker.image.tobytes() == before, "the image stays as it is"
        for annotation in Annotation:
            one, two = (getattr(given, annotation.value) for given in (weaker, again))
            assert (one is None) == (two is None), f"the same seed gives the same {annotation}"
            if one is not None:
                assert len(one) == 2, f"{annotation} are per class"
                assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True)), "same seed, same annotation"


def check_backbone(backbone: Backbone) -> None:
    """Check layers, strides and gradients on images of odd and non-square sizes."""
    for channels in (1, 3):
        torch.manual_seed(0)
        network, layers = backbone.create(channels)
        network.eval()
        assert len({layer.name for layer in layers}) == len(layers), "layers have different names"
        for height, width in ((64, 64), (97, 131)):
            images = torch.rand(2, channels, height, width)
            activations = network(images)
            assert len(activations) == len(layers), "there is one activation for each layer"
            for layer, activation in zip(layers, activations, strict=True):
                assert activation.ndim == 4, f"{layer.name} is (B, channels, h, w)"
                assert activation.shape[:2] == (2, layer.channels), f"{layer.name} has {layer.channels} channels"
                for cells, pixels in zip(activation.shape[2:], (height, width), strict=True):
                    assert abs(cells - pixels / layer.stride) <= 1, f"{layer.name} has a cell each {layer.stride} px"
            alone = network(images[1:])
            assert torch.allclose(alone[-1], activations[-1][1:], atol=1e-4), "a batch of 2 is 2 batches of one"
        gradients = torch.autograd.grad(activations[-1].sum(), activations[:-1], allow_unused=True)
        for layer, gradient in zip(layers, gradients, strict=False):
            assert gradient is not None, f"no gradient reaches {layer.name}"
            assert torch.isfinite(gradient).all(), f"the gradient of {layer.name} is finite"


def check_extractor(extractor: Extractor) -> None:
    """Check that maps pair with images and classes, batches do not matter, and the classifier stays as it was."""
    classifier = small_classifier()
    with _unchanged(classifier):
        explain = extractor.prepare(classifier)
        for height, width in SIZES:
            images = np.random.default_rng(0).random((3, 1, height, width), np.float32)
            wanted: list[tuple[int, ...]] = [(2, 0), (), (1,)]
            together = explain(images, _always(wanted))
            assert [maps.classes for maps in together] == wanted, "each image has the maps that were asked for"
            for maps, image, classes in zip(together, images, wanted, strict=True):
                assert maps.size == (height, width), "maps know the image's size"
                alone = explain(image[None], _always([classes]))[0]
                assert np.allclose(alone.scores, maps.scores, atol=1e-5), "a batch of 3 is 3 batches of one"
                for one, other in zip(alone.maps, maps.maps, strict=True):
                    assert np.allclose(one, other, atol=1e-4), "a batch of 3 is 3 batches of one"
        _raises(DataError, lambda: explain(images, _always([(0,)])), "too few lists of classes")
        with torch.no_grad():
            expected = torch.sigmoid(classifier(torch.from_numpy(images))).numpy()
        given = np.stack([maps.scores for maps in explain(images, _always([()] * 3))])
        assert np.allclose(given, expected, atol=1e-4), "scores are the classifier's probabilities"


def check_combiner(combiner: Combiner) -> None:
    """Check sizes, the range [0, 1], statuses, and maps that are empty, constant or negative."""
    generator = np.random.default_rng(0)
    for size in SIZES:
        image = generator.random((1, *size), np.float32)
        for change in (lambda a: a, np.zeros_like, np.ones_like, lambda a: -np.abs(a)):
            for count in (0, 1, 3):
                maps = random_maps(size, count, change)
                result = combiner.combine(maps, image)
                assert result.classes == maps.classes, "the score map is of the maps' classes"
                assert result.values.shape == (count, *size), "the score map has the image's size"
                again = combiner.combine(maps, image)
                assert again.values.tobytes() == result.values.tobytes(), "same maps, same bytes"
    maps, image = random_maps(SIZES[0], 1), np.zeros((1, *SIZES[1]), np.float32)
    _raises(DataError, lambda: combiner.combine(maps, image), "an image of another size")


def check_head(head: Head) -> None:
    """Check that a prediction speaks of every class, whatever the score map holds."""
    generator = np.random.default_rng(0)
    for size in SIZES:
        image = generator.random((1, *size), np.float32)
        for scores in (np.array([0.9, 0.1, 0.7], np.float32), np.zeros(3, np.float32), np.ones(3, np.float32)):
            wanted = head.wanted(scores)
            assert set(wanted) <= {0, 1, 2}, "what is wanted are indices of classes"
            for values in (
                generator.random((len(wanted), *size), np.float32),
                np.zeros((len(wanted), *size), np.float32),
            ):
                score_map = ScoreMap(wanted, values, values, tuple("ok" for _ in wanted))
                prediction = head.decide(score_map, scores, image)
                assert prediction.scores.tobytes() == scores.tobytes(), "scores are passed on"
                assert len(prediction.present) == 3, "every class is decided"
                for part in (prediction.masks, prediction.instances):
                    assert part is None or part.shape == (3, *size), "masks are of every class and the image's size"
                if prediction.masks is not None:
                    assert not prediction.masks[~prediction.present].any(), "what is absent has no mask"
    if "decision" in type(head).Params.model_fields:
        strict = head.with_thresholds((0.8, 0.8, 0.05), 1.0)
        scores = np.array([0.9, 0.1, 0.1], np.float32)
        values = np.ones((3, *SIZES[0]), np.float32)
        decided = strict.decide(
            ScoreMap((0, 1, 2), values, values, ("ok",) * 3), scores, np.zeros((1, *SIZES[0]), np.float32)
        )
        assert decided.present.tolist() == [True, False, True], "each class is decided by its own threshold"


def check_method(method: Method) -> None:
    """Check that it learns from what it declares, predicts in order, and is the same after saving and loading."""
    samples = [sample.keep(method.learns_from) for sample in full_samples(8)]
    info = DatasetInfo("conformance", ("disc", "square"), 1, Normalisation("min-max"), "0" * 64)
    fitted = method.fit(samples[:6], samples[6:], info, Run(seed=1, precision="float32", device="cpu"))
    images = [sample.image for sample in samples] + [np.zeros((1, 40, 56), np.float32)]
    predictions = list(fitted.predict(images))
    assert len(predictions) == len(images), "there is a prediction for every image"
    for image, prediction in zip(images, predictions, strict=True):
        assert len(prediction.scores) == 2, "every class has a score"
        if prediction.masks is not None:
            assert prediction.masks.shape[1:] == image.shape[1:], "masks have the image's size"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        fitted.save(path)
        heads = [file.read_bytes()[:2] for file in path.rglob("*") if file.is_file()]
        assert heads, "something was saved"
        assert not any(head[:1] == b"\x80" for head in heads), "nothing that was saved is a pickle"
        loaded = method.load(path, "cpu")
    for image, prediction, again in zip(images, predictions, loaded.predict(iter(images)), strict=True):
        _same(prediction, again, "saved and loaded")
        _same(prediction, next(fitted.predict([image])), "alone and among others")
    if fitted.head is not None:
        blind = fitted.with_head(fitted.head.with_thresholds((1.0, 1.0), 1.0))
        for image, prediction, never in zip(images, fitted.predict(images), blind.predict(images), strict=True):
            _same(prediction, next(fitted.predict([image])), "after another head was taken for a copy")
            assert never.masks is None or not never.masks.any(), "no pixel of a score map is above 1"
        for image, prediction in zip(images, predictions, strict=True):
            assert prediction.score_map is not None, "what has a head shows what that was given"
            decided = fitted.head.decide(prediction.score_map, prediction.scores, image)
            _same(prediction, decided, "when the head decides by the score map alone")
        large = np.tile(images[0], (1, 3, 3))[:, :70, :131]
        (joined,) = predict(fitted, [large], Tiling(size=64, halo=16))
        assert joined.score_map is not None, "what is joined of tiles is shown"
        _same(joined, fitted.head.decide(joined.score_map, joined.scores, large), "when joined tiles are decided on")


def check_metric(metric: Metric) -> None:
    """Check that every number is one float32 per class, and that undefined is NaN, never an error."""
    for sample in full_samples(3):
        assert sample.masks is not None
        assert sample.labels is not None
        for masks in (sample.masks, ~sample.masks, np.zeros_like(sample.masks), None):
            prediction = Prediction(
                sample.labels.astype(np.float32) * np.float32(0.8) + np.float32(0.1), sample.labels, masks
            )
            for truth in (sample, dataclasses.replace(sample, masks=np.zeros_like(sample.masks), instances=None)):
                for name, values in metric.measure(prediction, truth).items():
                    assert values.dtype == np.float32, f"{name} is float32"
                    assert values.shape == (2,), f"{name} has one number per class"
                    assert not np.isinf(values).any(), f"{name} is finite or NaN"
    labels = np.array([[1, 0], [0, np.nan], [1, 0]], np.float32)
    for scores in (np.array([[0.9, 0.2], [0.4, 0.2], [0.1, 0.6]], np.float32), np.ones((3, 2), np.float32)):
        for name, values in metric.rank(scores, labels).items():
            assert values.dtype == np.float32, f"{name} is float32"
            assert values.shape == (3, 2), f"{name} has one number per image and class"
            assert not np.isinf(values).any(), f"{name} is finite or NaN"


CHECKS: dict[str, Callable[[Any], None]] = {
    "dataset": check_dataset,
    "annotator": check_annotator,
    "backbone": check_backbone,
    "extractor": check_extractor,
    "combiner": check_combiner,
    "head": check_head,
    "method": check_method,
    "metric": check_metric,
}
"""The check of each kind."""


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
        labels = np.asarray(masks.any((1, 2)))
        samples.append(
            Sample(
                f"sample-{number}",
                np.clip(image, 0, 1).astype(np.float32)[None],
                labels=labels,
                points=tuple(np.argwhere(mask)[:1].astype(np.float32) for mask in masks),
                boxes=tuple(_box(mask) for mask in masks),
                masks=masks,
                instances=masks.astype(np.int32),
            )
        )
    return samples


def small_classifier(classes: int = 3) -> Classifier:
    """Return a classifier of three layers with fixed random weights, in evaluation mode."""
    torch.manual_seed(0)

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = (1, 4, 6, 8)
            self.blocks = torch.nn.ModuleList(
                torch.nn.Sequential(
                    torch.nn.MaxPool2d(2) if number else torch.nn.Identity(),
                    torch.nn.Conv2d(widths[number], widths[number + 1], 3, padding=1),
                    torch.nn.BatchNorm2d(widths[number + 1]),
                    torch.nn.ReLU(),
                )
                for number in range(3)
            )

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            activations = []
            for block in self.blocks:
                images = block(images)
                activations.append(images)
            return activations

    layers = tuple(Layer(f"L{number + 1}", width, 2**number) for number, width in enumerate((4, 6, 8)))
    return Classifier(Backbone(), layers, classes).eval()


def random_maps(
    size: tuple[int, int], classes: int, change: Callable[[FloatArray], FloatArray] = lambda maps: maps
) -> Maps:
    """Return random signed maps of three layers with strides 1, 2 and 4, each passed through `change`."""
    generator = np.random.default_rng(7)
    layers = tuple(Layer(f"L{number + 1}", 4, 2**number) for number in range(3))
    arrays = tuple(
        change(generator.normal(size=(classes, *(edge // layer.stride for edge in size))).astype(np.float32))
        for layer in layers
    )
    return Maps(size, tuple(range(classes)), layers, arrays, np.full(3, 0.5, np.float32))


def _always(classes: Sequence[tuple[int, ...]]) -> Callable[[FloatArray], Sequence[tuple[int, ...]]]:
    return lambda scores: classes


@contextmanager
def _unchanged(classifier: Classifier) -> Iterator[None]:
    def state() -> tuple[Any, ...]:
        return (
            {name: tensor.clone() for name, tensor in classifier.state_dict().items()},
            [(p.requires_grad, p.grad is None) for p in classifier.parameters()],
            [(m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in classifier.modules()],
        )

    before = state()
    yield
    after = state()
    assert all(torch.equal(after[0][name], tensor) for name, tensor in before[0].items()), "weights stay as they were"
    assert before[1] == after[1], "no parameter is frozen or has a gradient that was not so before"
    assert before[2] == after[2], "the mode is as before, and no hook is left"


def _same(one: Prediction, other: Prediction, when: str) -> None:
    assert np.allclose(one.scores, other.scores, atol=1e-5), f"scores are the same {when}"
    assert np.array_equal(one.present, other.present), f"decisions are the same {when}"
    for name in ("masks", "instances"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None), f"{name} are the same {when}"
        assert first is None or np.mean(first != second) < 1e-3, f"{name} are the same {when}"


def _box(mask: Any) -> FloatArray:
    inside = np.argwhere(mask)
    if not len(inside):
        return np.zeros((0, 4), np.float32)
    return np.concatenate([inside.min(0), inside.max(0) + 1])[None].astype(np.float32)


def _raises(kind: type[MicraframeError], call: Callable[[], object], what: str) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{what} must raise {kind.__name__}")
