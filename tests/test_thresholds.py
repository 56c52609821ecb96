import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage
from skimage import filters

from micraframe import thresholds
from micraframe.thresholds import ThresholdRule

# Steps that a histogram can tell apart, constant arrays included.
images = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=17),
    elements=st.integers(0, 20).map(lambda step: np.float32(step / 20)),
)


@given(images)
def test_triangle_is_that_of_scikit_image_where_there_is_contrast(values):
    if np.ptp(values):
        assert thresholds.triangle(values) == pytest.approx(filters.threshold_triangle(values))


def test_otsu_is_that_of_scikit_image_within_a_bin():
    random = np.random.default_rng(0)
    for separation in (0.5, 2, 4):
        values = np.concatenate([random.normal(0, 1, 5000), random.normal(separation, 1, 3000)]).astype(np.float32)
        assert thresholds.otsu(values) == pytest.approx(filters.threshold_otsu(values), abs=float(np.ptp(values)) / 256)


@given(images)
def test_otsu_minimises_the_variance_within_the_two_sides(values):
    def within(level):
        sides = [side for side in (values[values > level], values[values <= level]) if side.size]
        return sum(float(side.astype(np.float64).var()) * side.size for side in sides)

    best = min(within(level) for level in np.unique(values))
    assert within(thresholds.otsu(values)) == pytest.approx(best, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["otsu", "triangle", "block-otsu"])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_constant_map_gives_an_empty_mask(name, level):
    values = np.full((9, 13), level, np.float32)
    assert not thresholds.cut(values, np.ones_like(values), ThresholdRule(name=name)).any()


@pytest.mark.parametrize("rule", ["otsu", "triangle", ThresholdRule(name="percentile", value=50), "block-otsu"])
def test_the_mask_is_empty_if_no_pixel_counts(rule):
    values = np.random.default_rng(0).random((8, 8), np.float32)
    rule = TypeAdapter(ThresholdRule).validate_python(rule)
    assert not thresholds.cut(values, np.ones_like(values), rule, np.zeros((8, 8), bool)).any()


def test_the_smallest_contrast_of_float32_is_no_error():
    values = np.ones((4, 4), np.float32)
    values[0, 0] = np.nextafter(np.float32(1), np.float32(2))
    assert (values > thresholds.otsu(values)).sum() == 1
    assert thresholds.triangle(values) == values.max()


def test_percentile_and_fixed():
    values = np.arange(100, dtype=np.float32).reshape(10, 10) / 100
    zeros = np.zeros_like(values)
    assert thresholds.cut(values, zeros, ThresholdRule(name="percentile", value=80)).sum() == 20
    assert thresholds.cut(values, zeros, ThresholdRule(name="fixed", value=0.5)).sum() == 49


def test_only_non_zero_pixels_count():
    values = np.zeros((10, 10), np.float32)
    values[2, :] = 0.8
    values[3, :] = 1.0
    zeros = np.zeros_like(values)
    assert thresholds.cut(values, zeros, ThresholdRule(name="otsu")).sum() == 20
    assert thresholds.cut(values, zeros, ThresholdRule(name="otsu", nonzero=True)).sum() == 10


def test_a_region_confines_the_mask_and_determines_the_threshold():
    values = np.zeros((4, 6), np.float32)
    values[:, 0] = 1
    values[:, 3:] = (0.2, 0.4, 0.4)
    where = np.zeros(values.shape, bool)
    where[:, 3:] = True
    mask = thresholds.cut(values, np.zeros_like(values), ThresholdRule(name="otsu"), where)
    assert np.array_equal(mask, np.arange(6)[None] >= np.full((4, 1), 4))


def slow_block_otsu(values, coarse, block, minimum):
    mask = np.zeros(values.shape, bool)
    labels, count = ndimage.label(coarse > 0, np.ones((3, 3)))
    for label in range(1, count + 1):
        if coarse[labels == label].max() < minimum:
            continue
        blocks = {}
        for y, x in np.argwhere(labels == label):
            blocks.setdefault((y // block, x // block), []).append((y, x))
        spread = {key: max(values[p] for p in ps) - min(values[p] for p in ps) for key, ps in blocks.items()}
        lowest = thresholds.otsu(np.array(list(spread.values()), np.float32))
        for key, positions in blocks.items():
            if spread[key] > lowest:
                level = thresholds.otsu(np.array([values[p] for p in positions], np.float32))
                for position in positions:
                    mask[position] = values[position] > level
    return mask


@given(images, st.integers(0, 2**32 - 1), st.integers(2, 5))
@settings(max_examples=60)
def test_block_otsu_is_the_procedure_of_the_paper(values, seed, block):
    random = np.random.default_rng(seed)
    coarse = (random.random(values.shape, np.float32) * (random.random(values.shape) < 0.4)).astype(np.float32)
    mask = thresholds.block_otsu(values, coarse, np.ones(values.shape, bool), block, 0.3)
    assert np.array_equal(mask, slow_block_otsu(values, coarse, block, 0.3))


def test_block_otsu_of_a_map_that_is_zero_everywhere_gives_an_empty_mask():
    values = np.random.default_rng(0).random((30, 21), np.float32)
    assert not thresholds.cut(values, np.zeros_like(values), ThresholdRule(name="block-otsu")).any()


@pytest.mark.parametrize("polarity", ["bright", "dark", "auto"])
def test_foreground_is_the_side_asked_for(polarity):
    image = np.zeros((2, 10, 11), np.float32)
    image[:, 2:4, 3:5] = 1
    bright = image[0] > 0
    assert np.array_equal(thresholds.foreground(image, polarity), ~bright if polarity == "dark" else bright)
    assert np.array_equal(thresholds.foreground(1 - image, "auto"), bright)
    assert not thresholds.foreground(np.full((1, 5, 7), 0.3, np.float32), polarity).any()


def test_a_rule_is_written_as_its_name_or_with_its_value():
    adapter = TypeAdapter(ThresholdRule)
    assert adapter.validate_python("otsu") == ThresholdRule(name="otsu")
    assert adapter.validate_python({"name": "percentile", "value": 90}) == ThresholdRule(name="percentile", value=90)
    assert str(ThresholdRule(name="percentile", value=90, nonzero=True)) == "percentile 90 of the non-zero pixels"
    assert adapter.validate_python(ThresholdRule(name="triangle").model_dump(mode="json")) == ThresholdRule(
        name="triangle"
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("fixed", "rule fixed: expected a value, got None"),
        ({"name": "otsu", "value": 3}, "rule otsu: expected no value, got 3"),
        ({"name": "percentile", "value": 101}, "expected a percentile from 0 to 100, got 101"),
        ("ostu", "'otsu'"),
    ],
)
def test_a_wrong_rule_says_what_was_expected(given, says):
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(ThresholdRule).validate_python(given)
