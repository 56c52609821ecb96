import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.feature import peak_local_max

from micraframe.heads.detection import peak_points, suppress
from micraframe.registry import build
from micraframe.types import ScoreMap


def decide(values, scores, **params):
    values = np.array(values, np.float32)
    found = ScoreMap(tuple(range(len(values))), values, values, ("ok",) * len(values))
    image = np.zeros((1, *values.shape[1:]), np.float32)
    return build("head", "detection", **params).decide(found, np.array(scores, np.float32), image)


def spots(*places, size=(40, 30)):
    y, x = np.mgrid[: size[0], : size[1]]
    return np.max([h * np.exp(-((y - v) ** 2 + (x - u) ** 2) / 8) for v, u, h in places], axis=0)


@pytest.mark.parametrize("points", ["components", "peaks"])
def test_a_point_for_every_object_the_best_first(points):
    found = decide([spots((10, 8, 0.6), (30, 20, 1.0))], [0.8], points=points)
    assert found.points[0] == pytest.approx(np.array([[30, 20, 0.8], [10, 8, 0.48]]))
    assert found.points[0].dtype == np.float32
    assert found.masks[0, 30, 20]


def test_peaks_tell_apart_what_one_component_holds():
    values = [spots((10, 8, 1), (10, 13, 0.9))]
    fixed = {"name": "fixed", "value": 0.2}
    assert len(decide(values, [0.9], threshold=fixed).points[0]) == 1
    assert len(decide(values, [0.9], threshold=fixed, points="peaks").points[0]) == 2
    one = decide(values, [0.9], threshold=fixed, points="peaks", distance=6).points[0]
    assert one[0, :2].tolist() == [10, 8]


def test_the_component_with_the_maximum_alone():
    found = decide([spots((10, 8, 0.6), (30, 20, 1.0))], [0.8], components="maximum")
    assert found.points[0][:, :2].tolist() == [[30, 20]]


@pytest.mark.parametrize("points", ["components", "peaks"])
def test_where_nothing_is_there_is_no_point(points):
    found = decide(np.zeros((3, 9, 8)), [0.9, 0.1, 0.9], points=points)
    assert [part.shape for part in found.points] == [(0, 3)] * 3
    assert found.status == ("empty", "absent", "empty")


@given(st.integers(0, 99))
def test_peaks_are_those_of_scikit_image(seed):
    values = np.random.default_rng(seed).random((12, 9), np.float32)
    mask = values > 0.5
    wanted = peak_local_max(values, min_distance=1, threshold_abs=0.5, exclude_border=False)
    found = peak_points(mask, values)
    assert {tuple(point) for point in found[:, :2].astype(int)} == {tuple(point) for point in wanted}


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 12), st.just(3)), elements=st.integers(0, 9).map(float)),
    st.floats(0, 6),
)
def test_of_near_points_the_best_stays(points, distance):
    kept = suppress(points, distance)
    assert (np.diff(kept[:, 2]) <= 0).all()
    for index, (y, x, score) in enumerate(kept):
        assert all(np.hypot(y - v, x - u) >= distance for v, u, _ in kept[:index])
        assert [y, x, score] in points.tolist()
    for y, x, score in points:
        assert any((np.hypot(y - v, x - u) < distance or (y, x) == (v, u)) and other >= score for v, u, other in kept)
