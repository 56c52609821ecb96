import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.feature import peak_local_max

from micraframe.heads.detection import peak_points, suppress

FIXED = {"name": "fixed", "value": 0.2}


def spots(*places, size=(40, 30)):
    y, x = np.mgrid[: size[0], : size[1]]
    return np.max([h * np.exp(-((y - v) ** 2 + (x - u) ** 2) / 8) for v, u, h in places], axis=0)


@pytest.mark.parametrize("points", ["components", "peaks"])
def test_a_point_for_every_object_the_best_first(decide, points):
    found = decide("detection", [spots((10, 8, 0.6), (30, 20, 1.0))], [0.8], points=points)
    assert found.points[0] == pytest.approx(np.array([[30, 20, 0.8], [10, 8, 0.48]]))
    assert found.points[0].dtype == np.float32
    assert found.masks[0, 30, 20]


def test_peaks_separate_objects_of_one_component(decide):
    values = [spots((10, 8, 1), (10, 13, 0.9))]
    assert len(decide("detection", values, [0.9], mask_threshold=FIXED).points[0]) == 1
    assert len(decide("detection", values, [0.9], mask_threshold=FIXED, points="peaks").points[0]) == 2
    one = decide("detection", values, [0.9], mask_threshold=FIXED, points="peaks", distance=6).points[0]
    assert one[0, :2].tolist() == [10, 8]


def test_only_the_component_with_the_maximum(decide):
    found = decide("detection", [spots((10, 8, 0.6), (30, 20, 1.0))], [0.8], components="maximum")
    assert found.points[0][:, :2].tolist() == [[30, 20]]


@pytest.mark.parametrize("points", ["components", "peaks"])
def test_empty_maps_give_no_points(decide, points):
    found = decide("detection", np.zeros((3, 9, 8)), [0.9, 0.1, 0.9], points=points)
    assert [part.shape for part in found.points] == [(0, 3)] * 3
    assert found.status == ("empty", "absent", "empty")


@given(st.integers(0, 99))
def test_peaks_are_those_of_scikit_image(seed):
    values = np.random.default_rng(seed).random((12, 9), np.float32)
    mask = values > 0.5
    expected = peak_local_max(values, min_distance=1, threshold_abs=0.5, exclude_border=False)
    found = peak_points(mask, values)
    assert {tuple(point) for point in found[:, :2].astype(int)} == {tuple(point) for point in expected}


def test_a_map_with_one_summit_has_one_peak_after_nearest_upsampling():
    # Its flanks become plateaus, each of which is as high as all pixels around its middle.
    values = spots((2, 3, 1.0), size=(6, 7)).astype(np.float32).repeat(8, 0).repeat(8, 1)
    found = peak_points(values > 0.01, values)
    assert found == pytest.approx(np.array([[2 * 8 + 3.5, 3 * 8 + 3.5, 1]]))


@pytest.mark.parametrize("margin", [0, 2])
def test_a_plateau_is_one_point_at_its_middle(margin):
    values = np.pad(np.full((5, 8), 0.7, np.float32), margin)
    found = peak_points(values > 0, values)
    assert found == pytest.approx(np.array([[margin + 2, margin + 3.5, 0.7]]))


def test_higher_pixels_outside_the_mask_do_not_hide_a_peak():
    values = np.array([[0.5, 0.6, 0.9]], np.float32)
    mask = np.array([[True, True, False]])
    assert peak_points(mask, values) == pytest.approx(np.array([[0, 1, 0.6]]))


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 12), st.just(3)), elements=st.integers(0, 9).map(float)),
    st.floats(0, 6),
)
def test_the_best_of_close_points_is_kept(points, distance):
    kept = suppress(points, distance)
    assert (np.diff(kept[:, 2]) <= 0).all()
    for index, (y, x, score) in enumerate(kept):
        assert all(np.hypot(y - v, x - u) >= distance for v, u, _ in kept[:index])
        assert [y, x, score] in points.tolist()
    for y, x, score in points:
        assert any((np.hypot(y - v, x - u) < distance or (y, x) == (v, u)) and other >= score for v, u, other in kept)
