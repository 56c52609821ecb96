from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from micraframe_paper.sliding import SlidingWindow, SlidingWindowModel, at_one_half, best_f1_threshold, lay
from torch import Tensor

from micraframe import pipeline, registry
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError
from micraframe.interfaces import ClassRule, Model
from micraframe.testing import check
from micraframe.types import DatasetInfo, FitContext, FloatArray, Normalisation, Sample, Scores

CLASSIFIER: dict[str, Any] = {
    "name": "micra-net",
    "params": {
        "backbone": {"name": "unet-encoder", "params": {"widths": [4, 8]}},
        "dropout": 0.0,
        "training": {"epochs": 12, "batch_size": 8, "learning_rate": 0.03, "early_stopping": None, "augmentations": []},
    },
}
CROPS = DatasetInfo("spots", ("spot",), 1, Normalisation(), "0", image_size=(16, 16))


class Mean(Model):
    """The presence of both classes is the mean of the image, and of its square."""

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        for image in images:
            presence = np.array([image.mean(), (image**2).mean()], np.float32)
            yield Scores.without_maps(presence, (image.shape[1], image.shape[2]))

    def state(self) -> Mapping[str, Tensor]:
        return {}


def test_conformance() -> None:
    check("method", "sliding-window")


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    window=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    overlap=st.sampled_from([0.0, 0.3, 0.75, 0.9]),
)
def test_every_pixel_is_the_mean_of_the_windows_that_contain_it(
    size: tuple[int, int], window: tuple[int, int], overlap: float
) -> None:
    image = np.random.default_rng(0).random((1, *size), np.float32)
    found = SlidingWindowModel(Mean(), np.full(2, 0.5), window, overlap).mean_probability(image)
    sums, counts = np.zeros((2, *size)), np.zeros(size)
    rows, columns = (lay(side, part, overlap) for side, part in zip(size, window, strict=True))
    for top, bottom in rows:
        for left, right in columns:
            (scores,) = Mean().score([image[:, top:bottom, left:right]], tuple)
            sums[:, top:bottom, left:right] += scores.presence[:, None, None]
            counts[top:bottom, left:right] += 1
    assert counts.min() >= 1
    np.testing.assert_allclose(found, sums / counts, atol=1e-6)


def test_windows_overlap_by_three_quarters_and_end_with_the_image() -> None:
    assert lay(100, 32, 0.75) == [(start, start + 32) for start in (0, 8, 16, 24, 32, 40, 48, 56, 64, 68)]
    assert lay(32, 32, 0.75) == [(0, 32)]
    assert lay(20, 32, 0.75) == [(0, 20)]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 999)), min_size=1, max_size=30))
def test_no_threshold_has_a_higher_f1(pairs: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([one for one, _ in pairs]), np.array([score for _, score in pairs], np.float32) / 1000

    def f1(threshold: float) -> float:
        found = scores >= threshold
        return float(2 * (found & labels).sum() / (found.sum() + labels.sum()))

    threshold = best_f1_threshold(labels, scores)
    assert 0 < threshold < 1
    if labels.any():
        assert f1(threshold) == pytest.approx(max(map(f1, scores)))
    else:
        assert threshold == 0.5


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0, 1, width=32))
def test_thresholds_become_one_half(threshold: float, value: float) -> None:
    (((found,),),) = at_one_half(np.full((1, 1, 1), value, np.float32), np.array([threshold]))
    assert 0 <= found <= 1
    if abs(value - threshold) > 1e-4 * max(value, threshold):
        assert (found > 0.5) == (value > threshold)


def spots(count: int, side: int, share: float, start: int = 0) -> list[Sample]:
    """Return images of noise, in some of which there is a bright disc, with its centre."""
    rows, columns = np.mgrid[:side, :side]
    samples = []
    for number in range(start, start + count):
        rng = np.random.default_rng(number)
        y, x = rng.integers(5, side - 5, 2)
        present = number % 4 < 4 * share
        image = rng.normal(0.2, 0.05, (side, side)) + present * (np.hypot(rows - y, columns - x) < 4)
        points = (np.array([[y, x]] if present else np.zeros((0, 2)), np.float32),)
        samples.append(Sample(str(number), image.astype(np.float32)[None], labels=np.array([present]), points=points))
    return samples


def test_a_classifier_of_crops_finds_objects_in_large_images() -> None:
    context = FitContext(seed=1, device="cpu", precision="float32")
    choice = Choice(name="sliding-window", params={"classifier": CLASSIFIER})
    train, valid = (
        [sample.keep({"labels"}) for sample in spots(count, 16, 0.5, start)] for count, start in ((48, 0), (16, 100))
    )
    fitted = pipeline.fit(choice, train, valid, CROPS, context)
    metric = registry.build("metric", "detection", distance=8)
    test = spots(8, 80, 0.5, 200)
    images = [sample.image for sample in test]
    measured = [metric.measure(*pair) for pair in zip(fitted.predict(images), test, strict=True)]
    hits, true, predicted = (
        sum(float(each[f"detection_{name}"][0]) for each in measured) for name in ("tp", "true", "predicted")
    )
    assert true == 4
    assert 2 * hits / (true + predicted) >= 0.8
    assert isinstance(fitted.model, SlidingWindowModel)
    assert fitted.model.window == (16, 16)
    # The crops are easy, and the threshold separates them.
    presence = [float(scores.presence[0]) for scores in fitted.score([sample.image for sample in valid])]
    assert [value > 0.5 for value in presence] == [bool(sample.labels) for sample in valid]


def test_windows_and_overlap_change_after_training(tmp_path: Path) -> None:
    context = FitContext(seed=1, device="cpu", precision="float32")
    quick = CLASSIFIER | {"params": CLASSIFIER["params"] | {"training": {"epochs": 1, "batch_size": 8}}}
    choice = Choice(name="sliding-window", params={"classifier": quick, "threshold": 0.3})
    fitted = pipeline.fit(choice, spots(8, 16, 0.5), spots(8, 16, 0.5, 50), CROPS, context)
    fitted.save(tmp_path / "model")
    model = pipeline.load(tmp_path / "model", "cpu", overlap=0.25, window=24).model
    assert isinstance(model, SlidingWindowModel)
    assert (model.overlap, model.window) == (0.25, (24, 24))
    assert model.thresholds.tolist() == [0.3]


def test_what_is_missing_is_named() -> None:
    whole = DatasetInfo("spots", ("spot",), 1, Normalisation(), "0")
    context = FitContext(device="cpu", precision="float32")
    build: Callable[..., SlidingWindow] = lambda **params: registry.build("method", "sliding-window", **params)  # noqa: E731
    with pytest.raises(ConfigError, match="set the dataset's crop, or window"):
        build().untrained(whole)
    with pytest.raises(DataError, match="expected one or more validation crops to choose thresholds on, got none"):
        build().fit(spots(4, 16, 0.5), (), CROPS, context)
    with pytest.raises(ConfigError, match="classifier: expected a method that learns from labels, got 'forest'"):
        build(classifier={"name": "forest"})
