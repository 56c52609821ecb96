from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import regionprops
from skimage.segmentation import find_boundaries

from micraframe.errors import DataError
from micraframe.objects import (
    bounding_boxes,
    centroids,
    components,
    count,
    edge_pixels,
    inner_points,
    objects_of,
    windows,
)
from micraframe.types import Sample

INSTANCES = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=8), elements=st.sampled_from([0, 0, 1, 2, 7, 2**31 - 1])
)


@settings(deadline=None)
@given(INSTANCES)
def test_positions_and_boxes_equal_those_of_scikit_image(instances: np.ndarray) -> None:
    for labels, centres, boxes, inner in zip(
        instances, centroids(instances), bounding_boxes(instances), inner_points(instances), strict=True
    ):
        numbers, compact = np.unique(labels, return_inverse=True)
        if numbers[0] != 0:
            compact = compact + 1
        regions = regionprops(compact.reshape(labels.shape))
        assert centres.dtype == boxes.dtype == inner.dtype == np.float32
        np.testing.assert_allclose(centres, np.array([r.centroid for r in regions]).reshape(-1, 2), rtol=1e-6)
        np.testing.assert_array_equal(boxes, np.array([r.bbox for r in regions]).reshape(-1, 4))
        for region, centre, point in zip(regions, centres, inner, strict=True):
            distances = np.hypot(*(region.coords - centre).T)
            assert point.tolist() in region.coords.tolist()
            assert np.hypot(*(point - centre)) == pytest.approx(distances.min(), abs=1e-5)


@given(INSTANCES)
def test_windows_fit_their_objects_exactly(instances: np.ndarray) -> None:
    for labels in instances:
        found = list(windows(labels))
        assert [number for number, _ in found] == np.unique(labels[labels > 0]).tolist()
        for number, window in found:
            own = labels[window] == number
            assert own.sum() == (labels == number).sum()
            assert all(border.any() for border in (own[0], own[-1], own[:, 0], own[:, -1]))
    assert count(instances) == sum(len(np.unique(labels[labels > 0])) for labels in instances)


@given(INSTANCES)
def test_edge_pixels_are_the_inner_boundaries_of_scikit_image(instances: np.ndarray) -> None:
    expected = sum(find_boundaries(labels, connectivity=1, mode="inner").sum() for labels in instances)
    assert edge_pixels(instances) == expected


def test_components_are_connected_over_corners() -> None:
    masks = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 0]], [[1, 0, 1], [0, 0, 0], [0, 0, 1]]], bool)
    expected = [[[1, 0, 0], [0, 1, 0], [0, 0, 0]], [[1, 0, 2], [0, 0, 0], [0, 0, 3]]]
    np.testing.assert_array_equal(components(masks), expected)


def test_objects_are_instances_or_components_of_masks() -> None:
    image, masks = np.zeros((1, 2, 3), np.float32), np.array([[[1, 0, 1], [1, 0, 1]]], bool)
    instances = masks.astype(np.int32) * 5
    np.testing.assert_array_equal(objects_of(Sample("both", image, masks=masks, instances=instances)), instances)
    np.testing.assert_array_equal(objects_of(Sample("masks", image, masks=masks)), [[[1, 0, 2], [1, 0, 2]]])
    with pytest.raises(DataError, match="'neither': expected instances or masks"):
        objects_of(Sample("neither", image))
