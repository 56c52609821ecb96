from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from micraframe.datasets.composer import INK, DigitScene, GlyphSet, compose, composed_samples, fingerprint, poisson_disc
from micraframe.errors import DataError


def squares(count: int = 20) -> GlyphSet:
    """Glyphs whose brightness, and so whose source, can be read from the image."""
    glyphs = np.zeros((count, 28, 28), np.float32)
    glyphs[:, 10:18, 10:18] = np.linspace(0.6, 1, count)[:, None, None]
    return GlyphSet(glyphs, np.arange(count) % 10)


CLEAN = {"blur": 0, "noise": 0, "rotation": 0}


@settings(deadline=None)
@given(
    extent=st.integers(1, 40),
    radius=st.floats(1, 30),
    count=st.none() | st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
def test_points_keep_their_distance_and_fill_the_room(extent: int, radius: float, count: int | None, seed: int) -> None:
    points = poisson_disc(extent, radius, count, np.random.default_rng(seed)).astype(float)
    assert points.min() >= 0
    assert points.max() < extent
    squared = ((points[:, None] - points[None]) ** 2).sum(2)
    np.fill_diagonal(squared, np.inf)
    assert squared.min() >= radius**2
    if count is None or len(points) < count:
        everywhere = np.stack(np.mgrid[:extent, :extent], axis=-1).reshape(-1, 1, 2)
        assert (((everywhere - points) ** 2).sum(2).min(1) < radius**2).all()
    else:
        assert len(points) == count


def test_the_first_point_is_uniform() -> None:
    rng = np.random.default_rng(1)
    points = np.concatenate([poisson_disc(4, 2, 1, rng) for _ in range(3200)])
    hits = np.bincount(points @ [4, 1], minlength=16)
    assert hits.min() > 140
    assert hits.max() < 260


def test_every_digit_drawn_is_in_the_truth() -> None:
    digits = squares()
    scene = DigitScene(counts=(7,), size=120, **CLEAN)
    image, instances = compose(digits, scene, np.random.default_rng(3))
    assert sum(len(np.unique(labels)) - 1 for labels in instances) == 7
    np.testing.assert_array_equal(instances.max(0) > 0, image > INK)
    for label, labels in enumerate(instances):
        for number in range(1, labels.max() + 1):
            pixels = image[labels == number]
            assert len(pixels) == 64
            source = np.argmin(np.abs(digits.glyphs.max((1, 2)) - pixels[0]))
            assert digits.labels[source] == label


@pytest.mark.parametrize("size", [28, 97, 128])
def test_counts_are_drawn_and_max_fills_the_image(size: int) -> None:
    scene = DigitScene(size=size, counts=(1, 3, "max"), **CLEAN)
    seen = set()
    for seed in range(20):
        _, instances = compose(squares(), scene, np.random.default_rng(seed))
        seen.add(sum(int(labels.max()) for labels in instances))
    if size == 28:
        assert seen == {1}
    else:
        assert {1, 3} < seen
        assert max(seen) > (4 if size == 97 else 10)


def test_glyphs_of_another_size_are_brought_to_the_scenes_size() -> None:
    white = GlyphSet(np.ceil(squares().glyphs), squares().labels)
    for size, area in ((14, 16), (28, 64), (56, 256)):
        _, instances = compose(white, DigitScene(size=64, digits=size, counts=(1,), **CLEAN), np.random.default_rng(0))
        assert (instances > 0).sum() == area


def test_noise_and_blur_follow_the_scene() -> None:
    dark = GlyphSet(np.zeros((1, 28, 28), np.float32), np.zeros(1, int))
    image, _ = compose(dark, DigitScene(blur=0, noise=8), np.random.default_rng(0))
    levels = image * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    assert levels.mean() == pytest.approx(8, abs=0.05)
    assert levels.var() == pytest.approx(8, abs=0.2)
    plain, _ = compose(squares(), DigitScene(counts=(5,), **CLEAN), np.random.default_rng(0))
    blurred, _ = compose(squares(), DigitScene(counts=(5,), **CLEAN | {"blur": 2}), np.random.default_rng(0))
    assert blurred.max() < plain.max()
    assert blurred.sum() == pytest.approx(plain.sum(), rel=0.02)


def test_images_are_clipped() -> None:
    image, _ = compose(squares(), DigitScene(counts=("max",), noise=60), np.random.default_rng(0))
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() == 1


def test_a_sample_depends_on_seed_split_and_number_only() -> None:
    digits, scene = squares(), DigitScene(size=64)
    short = composed_samples(digits, scene, "train", 3, 5, "digits")
    long = composed_samples(digits, scene, "train", 9, 5, "digits")
    others = [composed_samples(digits, scene, "test", 3, 5, ""), composed_samples(digits, scene, "train", 3, 6, "")]
    _ = long[7]
    for index in range(3):
        assert short[index].image.tobytes() == long[index].image.tobytes() == short[index].image.tobytes()
        assert short[index].id == long[index].id
        assert all(other[index].image.tobytes() != short[index].image.tobytes() for other in others)
    assert [sample.id for sample in long[-2:]] == ["train-00007", "train-00008"]
    assert long[-1].id == "train-00008"
    with pytest.raises(IndexError):
        long[9]


def test_the_fingerprint_follows_all_that_determines_the_samples() -> None:
    base = {"digits": [squares()] * 3, "scene": DigitScene(size=64), "counts": [5, 5, 5], "seed": 0}
    changes = [{"digits": [squares(19)] * 3}, {"scene": DigitScene(size=65)}, {"counts": [5, 6, 5]}, {"seed": 1}]
    prints = [fingerprint(**base), *(fingerprint(**base | change) for change in changes)]
    assert len(set(prints)) == 5
    assert fingerprint(**base) == prints[0]


def test_impossible_scenes_and_digits_are_refused() -> None:
    with pytest.raises(ValidationError, match="do not fit into images of 20 px"):
        DigitScene(size=20)
    with pytest.raises(ValidationError, match="at least 1, or max"):
        DigitScene(counts=(0,))
    glyphs = np.zeros((2, 28, 28), np.float32)
    with pytest.raises(DataError, match="0 to 9"):
        GlyphSet(glyphs, np.array([1, 10]))
    with pytest.raises(DataError, match="labels of 2 glyphs"):
        GlyphSet(glyphs, np.array([1]))
    with pytest.raises(DataError, match="float32"):
        GlyphSet(glyphs[:0], np.array([], int))
