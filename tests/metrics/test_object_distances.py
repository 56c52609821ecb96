from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from micraframe.metrics.distances import contour_distance
from micraframe.metrics.object_distances import median_contour_distance
from micraframe.registry import build
from micraframe.types import Prediction, Sample, Scores

SIZE = (40, 60)


def discs(*places: tuple[int, int, int]) -> np.ndarray:
    """Return objects, int32 (H, W), numbered with gaps, each given as row, column and radius."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    labels = np.zeros(SIZE, np.int32)
    for number, (y, x, radius) in enumerate(places, start=1):
        labels[np.hypot(rows - y, columns - x) <= radius] = 3 * number
    return labels


def measure(truth: dict[str, Any], found: dict[str, Any], **params: Any) -> list[float]:
    prediction = Prediction(Scores.without_maps(np.zeros(1, np.float32)), np.zeros(1, bool), **found)
    sample = Sample("a", np.zeros((1, *SIZE), np.float32), **truth)
    values = build("metric", "object-distances", **params).measure(prediction, sample)
    return [float(values[f"object_{name}_distance"][0]) for name in ("centroid", "contour")]


def test_medians_over_associated_objects() -> None:
    true = discs((10, 10, 4), (10, 40, 5), (30, 20, 3), (36, 58, 6))
    predicted = discs((11, 10, 4), (10, 42, 6), (30, 20, 5))
    numbers = [(9, 9), (3, 3), (6, 6)]
    contours = [contour_distance(true == one, predicted == other) for one, other in numbers]
    found = measure({"instances": true[None]}, {"instances": predicted[None]})
    assert found == pytest.approx([1, np.median(contours)])
    assert contours[0] == pytest.approx(2, abs=0.3)


def test_cutting_objects_out_changes_no_contour() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = (discs((*rng.integers(0, SIZE).tolist(), int(rng.integers(2, 9)))) for _ in range(2))
        expected = contour_distance(one > 0, other > 0)
        assert median_contour_distance(one, other, 100) == pytest.approx(expected, nan_ok=True)
        ignore = rng.random(SIZE) < 0.3
        expected = contour_distance(one > 0, other > 0, ignore)
        assert median_contour_distance(one, other, 100, ignore) == pytest.approx(expected, nan_ok=True)


def test_objects_too_far_apart_are_no_pair() -> None:
    true, predicted = {"instances": discs((10, 10, 4))[None]}, {"instances": discs((10, 15, 4))[None]}
    assert measure(true, predicted)[0] == pytest.approx(5)
    assert np.isnan(measure(true, predicted, distance=4)).all()
    assert np.isnan(measure(true, {"instances": np.zeros((1, *SIZE), np.int32)})).all()


def test_points_have_no_contour() -> None:
    true = {"points": (np.array([[5, 5], [20, 20]], np.float32),)}
    predicted = {"points": (np.array([[5, 8, 0.9], [20, 21, 0.5], [39, 59, 0.5]], np.float32),)}
    assert measure(true, predicted) == pytest.approx([2, np.nan], nan_ok=True)
