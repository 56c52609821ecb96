"""How statistics are averaged over images and classes, by any metric."""

from __future__ import annotations

import numpy as np
import pytest

from micraframe.interfaces import Column, Metric
from micraframe.metrics.reduction import per_image, stack, summarise
from micraframe.parameters import Parameters
from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores

NAN = np.nan
BUILT_IN = ("classification", "overlap", "objects", "detection", "distances", "localisation")


class Toy(Metric[Parameters]):
    """A mean over images, a ratio of sums, and a number of all images."""

    def columns(self):
        return (
            Column("mean", "a mean"),
            Column("ratio", "a ratio of sums", numerator="part", denominator="whole"),
            Column("median", "a median", higher_is_better=False, range=(0, np.inf), pooled=("part",)),
        )

    def measure(self, prediction, truth):
        raise NotImplementedError

    def reduce(self, statistics):
        return {**super().reduce(statistics), "median": np.nanmedian(statistics["part"], axis=0)}


STATISTICS = stack(
    [
        {"mean": np.array([1, 0]), "part": np.array([1, 2]), "whole": np.array([1, 4])},
        {"mean": np.array([0.5, NAN]), "part": np.array([3, 2]), "whole": np.array([7, NAN])},
        {"mean": np.array([NAN, NAN]), "part": np.array([0, NAN]), "whole": np.array([0, 3])},
    ],
    classes=2,
)


def test_means_are_taken_within_images_and_then_over_them() -> None:
    mean, ratio, median = summarise(Toy(Parameters()), STATISTICS)
    assert mean.per_class == pytest.approx([0.75, 0])
    assert mean.overall == np.mean([np.mean([1, 0]), 0.5])
    assert mean.images_per_class.tolist() == [2, 1]
    assert mean.images == 2
    assert mean.reduction == "mean over images"
    assert ratio.per_class == pytest.approx([4 / 8, 2 / 4])
    assert ratio.overall == 0.5
    assert ratio.images_per_class.tolist() == [2, 1]
    assert median.per_class == pytest.approx([1, 2])
    assert median.overall == 1.5
    assert (median.images, median.reduction) == (3, "pooled over images")


def test_a_pooled_column_has_no_value_for_an_image() -> None:
    mean, ratio, median = Toy(Parameters()).columns()
    assert per_image(mean, STATISTICS) == pytest.approx([0.5, 0.5, NAN], nan_ok=True)
    for column in (ratio, median):
        with pytest.raises(ValueError, match="pooled over images"):
            per_image(column, STATISTICS)


def test_statistics_that_an_image_lacks_are_undefined() -> None:
    found = stack([{"a": np.ones(2)}, {"b": np.zeros(2)}], classes=2)
    np.testing.assert_array_equal(found["a"], [[1, 1], [NAN, NAN]])
    np.testing.assert_array_equal(found["b"], [[NAN, NAN], [0, 0]])


def test_numbers_that_are_never_defined_are_nan() -> None:
    empty = {name: np.full((3, 2), NAN) for name in ("mean", "part", "whole")}
    mean, ratio, *_ = summarise(Toy(Parameters()), empty | {"part": np.ones((3, 2))})
    assert np.isnan([*mean.per_class, mean.overall, *ratio.per_class, ratio.overall]).all()
    assert (mean.images, ratio.images) == (0, 0)


def example() -> tuple[Prediction, Sample]:
    masks = np.zeros((2, 16, 20), bool)
    masks[:, 3:9, 4:12] = True
    scores = Scores(np.array([0.9, 0.2], np.float32), (0, 1), masks.astype(np.float32))
    points = tuple(np.array([[5.5, 7.5, 0.8]], np.float32) for _ in masks)
    prediction = Prediction(scores, np.array([True, False]), masks, masks.astype(np.int32), points)
    return prediction, Sample("a", np.zeros((1, 16, 20), np.float32), masks=masks, instances=masks.astype(np.int32))


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_column_is_declared_and_reduced(name: str) -> None:
    metric = build("metric", name)
    pair = example()
    columns = metric.columns()
    assert len({column.name for column in columns}) == len(columns)
    statistics = stack([metric.measure(*pair), metric.measure(*pair)], classes=2)
    for reduced in summarise(metric, statistics):
        column = reduced.column
        assert column.definition
        assert column.definition[0].islower() or column.definition.startswith("F1")
        assert reduced.per_class.shape == (2,)
        defined = reduced.per_class[~np.isnan(reduced.per_class)]
        assert ((defined >= column.range[0]) & (defined <= column.range[1])).all()
        if column.is_mean:
            assert np.nanmean(per_image(column, statistics)) == pytest.approx(reduced.overall, nan_ok=True)


@pytest.mark.parametrize("name", ["toy", *BUILT_IN])
def test_a_class_that_is_left_out_keeps_its_number_but_changes_no_mean(name: str) -> None:
    if name == "toy":
        metric, statistics = Toy(Parameters()), STATISTICS
    else:
        metric = build("metric", name)
        statistics = stack([metric.measure(*example()), metric.measure(*example())], classes=2)
    alone = summarise(metric, {key: values[:, :1] for key, values in statistics.items()})
    before, after = summarise(metric, statistics), summarise(metric, statistics, left_out=[1])
    for every, some, one in zip(before, after, alone, strict=True):
        np.testing.assert_array_equal(some.per_class, every.per_class)
        assert some.images_per_class.tolist() == every.images_per_class.tolist()
        assert some.overall == pytest.approx(one.overall, nan_ok=True)
        assert some.images == one.images


def test_a_metric_cannot_change_the_truth() -> None:
    prediction, truth = example()
    before = build("metric", "overlap").measure(prediction, truth)["iou"].tolist()

    class Careless(Metric[Parameters]):
        def columns(self):
            return (Column("careless", "writes to its input"),)

        def measure(self, prediction, truth):
            truth.masks[:] = False
            return {"careless": np.zeros(2)}

    with pytest.raises(ValueError, match="read-only"):
        Careless(Parameters()).measure(prediction, truth)
    for array in (truth.masks, truth.instances, prediction.masks, prediction.points[0], prediction.scores.maps):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    assert build("metric", "overlap").measure(prediction, truth)["iou"].tolist() == before
