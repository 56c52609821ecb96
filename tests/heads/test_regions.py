import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import measure

from micraframe.heads import regions

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(masks, st.integers(0, 10))
def test_small_components_are_removed(mask, area):
    expected = np.zeros_like(mask)
    for component in measure.regionprops(measure.label(mask, connectivity=2)):
        if component.area >= area:
            expected[tuple(component.coords.T)] = True
    assert np.array_equal(regions.remove_small(mask, area), expected)


@given(masks, st.integers(0, 10))
def test_small_holes_are_filled_except_at_the_border(mask, area):
    expected = mask.copy()
    for hole in measure.regionprops(measure.label(~mask, connectivity=1)):
        inside = (hole.coords > 0).all() and (hole.coords < np.array(mask.shape) - 1).all()
        if inside and hole.area <= area:
            expected[tuple(hole.coords.T)] = True
    assert np.array_equal(regions.fill_holes(mask, area), expected)


@given(masks, st.integers(0, 99))
def test_only_the_component_of_the_maximum_is_kept(mask, seed):
    values = np.random.default_rng(seed).random(mask.shape, np.float32)
    kept = regions.keep_maximum(mask, values)
    assert not (kept & ~mask).any()
    if mask.any():
        assert values[kept].max() == values[mask].max()
        assert measure.label(kept, connectivity=2).max() == 1
        assert kept.sum() in [component.area for component in measure.regionprops(measure.label(mask, connectivity=2))]


@given(masks, st.integers(1, 3))
def test_splitting_loses_no_pixel_and_merges_no_objects(mask, distance):
    labels = regions.split_touching(mask, distance)
    assert labels.dtype == np.int32
    assert np.array_equal(labels > 0, mask)
    assert sorted(set(labels.ravel()) - {0}) == list(range(1, labels.max() + 1))
    whole = measure.label(mask, connectivity=2)
    for label in range(1, labels.max() + 1):
        assert len(set(whole[labels == label])) == 1
        assert measure.label(labels == label, connectivity=2).max() == 1


def test_two_touching_discs_are_two_objects_and_one_disc_is_one():
    y, x = np.mgrid[:30, :50]
    left, right = ((y - 15) ** 2 + (x - middle) ** 2 < 100 for middle in (15, 33))
    labels = regions.split_touching(left | right, 4)
    assert labels.max() == 2
    assert (labels[left & ~right] == labels[15, 15]).mean() > 0.98
    assert regions.split_touching(left, 4).max() == 1


@given(masks, st.integers(0, 10))
def test_small_objects_are_removed_and_the_others_renumbered(mask, area):
    labels = measure.label(mask, connectivity=2).astype(np.int32)
    found = regions.drop_small(labels, area)
    assert np.array_equal(found > 0, regions.remove_small(mask, area))
    assert sorted(set(found.ravel()) - {0}) == list(range(1, found.max() + 1))
