import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import measure

from micraframe.heads import regions

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(masks)
def test_components_are_those_of_scikit_image(mask):
    assert np.array_equal(regions.components(mask), measure.label(mask, connectivity=2))


@given(masks, st.integers(0, 10))
def test_small_components_go(mask, area):
    wanted = np.zeros_like(mask)
    for piece in measure.regionprops(measure.label(mask, connectivity=2)):
        if piece.area >= area:
            wanted[tuple(piece.coords.T)] = True
    assert np.array_equal(regions.remove_small(mask, area), wanted)


@given(masks, st.integers(0, 10))
def test_small_holes_are_filled_and_the_border_is_no_hole(mask, area):
    wanted = mask.copy()
    for hole in measure.regionprops(measure.label(~mask, connectivity=1)):
        inside = (hole.coords > 0).all() and (hole.coords < np.array(mask.shape) - 1).all()
        if inside and hole.area <= area:
            wanted[tuple(hole.coords.T)] = True
    assert np.array_equal(regions.fill_holes(mask, area), wanted)


@given(masks, st.integers(0, 99))
def test_the_component_of_the_maximum_stays_alone(mask, seed):
    values = np.random.default_rng(seed).random(mask.shape, np.float32)
    kept = regions.keep_maximum(mask, values)
    assert not (kept & ~mask).any()
    if mask.any():
        assert values[kept].max() == values[mask].max()
        assert measure.label(kept, connectivity=2).max() == 1
        assert kept.sum() in [piece.area for piece in measure.regionprops(measure.label(mask, connectivity=2))]
