from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micraframe_paper.metrics.review import LEVELS, ReviewMetric, curve, draw_review, review_curves

from micraframe import registry
from micraframe.errors import DataError
from micraframe.metrics.reduction import stack, summarise
from micraframe.testing import check
from micraframe.types import FloatArray, Prediction, Sample, Scores

SIZE = (9, 11)


def pair(seed: int, classes: int = 2, **truth: Any) -> tuple[Prediction, Sample]:
    """Return random maps, and random true positions."""
    rng = np.random.default_rng(seed)
    maps = rng.random((classes, *SIZE), np.float32)
    points = tuple((rng.random((rng.integers(1, 5), 2)) * np.array(SIZE)).astype(np.float32) for _ in range(classes))
    scores = Scores(maps.max(axis=(1, 2)), tuple(range(classes)), maps)
    sample = Sample(f"{seed}", np.zeros((1, *SIZE), np.float32), **{"points": points} | truth)
    return Prediction(scores, np.ones(classes, bool)), sample


def metric(**params: Any) -> ReviewMetric:
    built = registry.build("metric", "review", **params)
    assert isinstance(built, ReviewMetric)
    return built


def test_conformance() -> None:
    check("metric", "review")
    check("metric", "review", recall=0.5, area=0.3)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=4), st.floats(0.1, 1), st.floats(0.01, 1))
def test_numbers_are_those_of_looking_at_every_pixel_above_a_level(
    seeds: list[int], recall: float, area: float
) -> None:
    pairs = [pair(seed) for seed in seeds]
    measured = metric(recall=recall, area=area)
    found = measured.reduce(stack([measured.measure(*each) for each in pairs], 2))
    for index in range(2):
        points = []
        for level in (2.0, *LEVELS[::-1], 0.0):
            looked = [prediction.scores.maps[index] >= level for prediction, _ in pairs]
            hits = []
            for mask, (_, sample) in zip(looked, pairs, strict=True):
                assert sample.points is not None
                for y, x in sample.points[index]:
                    hits.append(mask[min(round(float(y)), SIZE[0] - 1), min(round(float(x)), SIZE[1] - 1)])
            points.append((np.mean(looked), np.mean(hits)))
        areas, recalls = np.array(points).T
        assert found["reviewed_area"][index] == pytest.approx(min(areas[recalls >= recall - 1e-9]))
        assert found["recall_of_reviewed"][index] == pytest.approx(max(recalls[areas <= area + 1e-9]))
        assert found["review_auc"][index] == pytest.approx(np.trapezoid(recalls, areas))


def test_a_map_that_points_at_the_structures_is_ten_times_as_fast() -> None:
    maps = np.full((1, 20, 20), 0.01, np.float32)
    maps[0, :2, :20] = 0.9  # a tenth of the image
    sample = Sample("a", np.zeros((1, 20, 20), np.float32), points=(np.array([[0, 3], [1, 7]], np.float32),))
    prediction = Prediction(Scores(np.ones(1, np.float32), (0,), maps), np.ones(1, bool))
    found = metric().reduce(stack([metric().measure(prediction, sample)], 1))
    assert found["reviewed_area"][0] == pytest.approx(0.1)
    assert found["recall_of_reviewed"][0] == 0
    assert found["review_auc"][0] == pytest.approx(0.95)


def test_ignored_pixels_and_classes_without_map() -> None:
    ignore = np.zeros(SIZE, bool)
    ignore[:, 5:] = True
    prediction, sample = pair(3, ignore=ignore)
    found = metric().measure(prediction, sample)
    assert sum(float(found[f"review_pixels@{level}"][0]) for level in range(len(LEVELS) + 1)) == (~ignore).sum()
    scores = Scores(np.array([0.9, 0.1], np.float32), (0,), prediction.scores.maps[:1])
    found = metric().measure(Prediction(scores, np.array([True, False])), pair(3)[1])
    assert found["review_pixels@0"][1] == SIZE[0] * SIZE[1]
    assert found["review_found@0"][1] == len(pair(3)[1].points[1])  # type: ignore[index]


def test_unknown_positions_and_maps_are_undefined() -> None:
    prediction, sample = pair(1)
    without = Prediction(Scores.without_maps(np.ones(2, np.float32)), np.ones(2, bool))
    pixel = dataclasses.replace(sample, image=np.zeros((1, 1, 1), np.float32))  # the truth is a table
    for pairs in ([(prediction, pair(1, points=None)[1])], [(without, sample)], [(without, pixel)]):
        measured = stack([metric().measure(*each) for each in pairs], 2)
        assert all(np.isnan(values).all() for values in metric().reduce(measured).values())
        assert all(np.isnan(each.overall) for each in summarise(metric(), measured))
    with pytest.raises(DataError, match="2 classes"):
        metric().measure(pair(1, classes=1)[0], sample)


def test_a_curve_begins_with_nothing_and_ends_with_everything() -> None:
    area, recall = curve(np.array([[70.0], [20], [10]]), np.array([[1.0], [0], [3]]))
    assert area[:, 0].tolist() == pytest.approx([0, 0.1, 0.3, 1])
    assert recall[:, 0].tolist() == pytest.approx([0, 0.75, 0.75, 1])


def rows_of(values: FloatArray, method: str, seed: int) -> list[dict[str, Any]]:
    sample = pair(0, classes=1)[1]
    prediction = Prediction(Scores(np.ones(1, np.float32), (0,), values[None]), np.ones(1, bool))
    names = {"dataset": "em", "annotator": "image-level", "method": method, "seed": seed, "image": "a", "group": "a"}
    return [
        {**names, "thresholds": origin, "class": "axon", "metric": name, "value": float(value[0])}
        for origin in ("fixed", "oracle")
        for name, value in metric().measure(prediction, sample).items()
    ]


def test_the_figure_has_a_line_for_each_trained_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = [(method, seed) for method in ("one", "two") for seed in (0, 1)]
    rows = pl.DataFrame([row for run in runs for row in rows_of(rng.random(SIZE, np.float32), *run)])
    curves = review_curves(rows)
    assert curves.columns == ["dataset", "class", "method", "annotator", "seed", "area", "recall"]
    assert curves.select("method", "seed").unique(maintain_order=True).rows() == runs
    for part in curves.partition_by("method", "seed"):
        assert len(part) == len(LEVELS) + 2
        assert part["area"].is_sorted()
        assert (part["area"][0], part["recall"][0], part["area"][-1], part["recall"][-1]) == (0, 0, 1, 1)
    draw_review(rows, tmp_path / "review.svg")
    drawn = (tmp_path / "review.svg").read_text()
    assert all(text in drawn for text in ("one (image-level)", "two (image-level)", "em: axon", "recall"))
    assert [drawn.count(f">{method} (image-level)<") for method in ("one", "two")] == [1, 1]
    draw_review(rows, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "review.svg").read_bytes()
    assert review_curves(rows.head(0)).is_empty()
