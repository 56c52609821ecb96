import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from micraframe.metrics.agreement import centroid_distance, contour_distance, one_against_all


def square(y, x, edge=5):
    mask = np.zeros((24, 30), bool)
    mask[y : y + edge, x : x + edge] = True
    return mask


def test_each_annotator_is_compared_with_all_others():
    assert one_against_all([1.0, 3.0, 8.0], lambda truth, one: truth - one) == pytest.approx([4.5, 1.5, -6])
    values = one_against_all([1.0, 3.0, 8.0], lambda truth, one: np.nan if 8 in (truth, one) else truth + one)
    assert values == pytest.approx([4, 4, np.nan], nan_ok=True)
    assert np.isnan(one_against_all([1.0], lambda truth, one: 0.0)).all()


def test_each_number_of_a_measure_has_its_own_mean():
    found = one_against_all([1.0, 3.0, 8.0], lambda truth, one: [truth, np.nan if truth == 3 else one, np.nan])
    assert found == pytest.approx(np.array([[5.5, 1, np.nan], [4.5, 3, np.nan], [2, 8, np.nan]]), nan_ok=True)


def test_a_shifted_mask_is_as_far_as_it_was_shifted():
    assert centroid_distance(square(3, 4), square(6, 8)) == 5
    assert contour_distance(square(3, 4), square(3, 4)) == 0
    # A square within a square, two pixels away all around, farther only at the corners.
    assert 2 <= contour_distance(square(5, 5, 11), square(7, 7, 7)) < 2.3


def test_a_blank_mask_has_no_distance():
    blank = np.zeros((24, 30), bool)
    assert np.isnan(centroid_distance(square(1, 1), blank))
    assert np.isnan(contour_distance(blank, square(1, 1)))


def test_the_edge_of_the_image_is_no_contour():
    one, other = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    one[:, :15], other[:, :20] = True, True
    assert contour_distance(one, other) == 5
    # A mask that fills the image has no contour.
    assert np.isnan(contour_distance(np.ones((40, 40), bool), one))


@given(hnp.arrays(np.bool_, (5, 6)), hnp.arrays(np.bool_, (5, 6)))
def test_contour_distance_is_its_definition(one, other):
    def contour(mask):
        padded = np.pad(mask, 1, mode="edge")  # the image's edge is no contour
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return np.argwhere(mask & ~inner)

    a, b = contour(one), contour(other)
    if not (len(a) and len(b)):
        assert np.isnan(contour_distance(one, other))
        return
    steps = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    expected = np.concatenate([steps.min(1), steps.min(0)]).mean()
    assert contour_distance(one, other) == pytest.approx(expected)
