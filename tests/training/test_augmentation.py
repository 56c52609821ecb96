from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage
from torch import Tensor

from micraframe.training.augmentation import (
    Augmentation,
    Blur,
    Draw,
    Flip,
    Gamma,
    Intensity,
    Noise,
    QuarterTurns,
    Rotation,
    augment,
    blur,
    draw,
    gamma,
    quarter_turns,
    rotate,
)

ALL = (
    Flip(axis="left-right"),
    Flip(axis="up-down"),
    QuarterTurns(),
    Rotation(degrees=40),
    Intensity(),
    Gamma(),
    Blur(),
    Noise(),
)
SIZES = st.tuples(st.integers(2, 12), st.integers(2, 12))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, size: tuple[int, int], channels: int = 2, seed: int = 0) -> Tensor:
    return torch.rand((count, channels, *size), generator=seeded(seed))


@given(SIZES, st.lists(st.floats(0, 3), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_blur_is_scipys(size: tuple[int, int], sigmas: list[float]) -> None:
    images = pictures(len(sigmas), size)
    blurred = blur(images, torch.tensor(sigmas, dtype=torch.float64), radius=12)
    for image, sigma, ours in zip(images.numpy(), sigmas, blurred.numpy(), strict=True):
        theirs = image if sigma < 0.05 else ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest", radius=12)
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@given(SIZES, st.floats(-180, 180))
@settings(max_examples=40, deadline=None)
def test_rotation_is_scipys(size: tuple[int, int], degrees: float) -> None:
    image = pictures(1, size)
    ours = rotate(image, torch.tensor([degrees], dtype=torch.float64), "bilinear")[0].numpy()
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    back = np.array([[cosine, sine], [-sine, cosine]])  # of (y, x), the output's to the input's
    centre = (np.array(size) - 1) / 2
    for plane, turned in zip(image[0].numpy(), ours, strict=True):
        # scipy interpolates at the mirrored position between the mirrored pixels; far outside, rounding differs.
        expected = ndimage.affine_transform(plane, back, centre - back @ centre, order=1, mode="reflect")
        np.testing.assert_allclose(turned, expected, atol=2e-3)


def test_rotation_by_a_right_angle_is_exact() -> None:
    images = pictures(3, (7, 7))
    degrees = torch.tensor([90.0, 180.0, -90.0], dtype=torch.float64)
    for kind in ("bilinear", "nearest"):
        turned = rotate(images, degrees, kind)
        torch.testing.assert_close(turned, quarter_turns(images, torch.tensor([1, 2, 3])), atol=1e-5, rtol=0)


@given(SIZES, st.lists(st.integers(1, 3), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_quarter_turns_are_numpys(size: tuple[int, int], turns: list[int]) -> None:
    images = pictures(len(turns), size)
    turned = quarter_turns(images, torch.tensor(turns))
    for image, number, ours in zip(images.numpy(), turns, turned.numpy(), strict=True):
        number = number if size[0] == size[1] else 2
        np.testing.assert_array_equal(ours, np.rot90(image, number, (-2, -1)))


@given(st.lists(st.floats(0.1, 3), min_size=1, max_size=3), st.floats(-2, 2), st.floats(0.01, 4))
@settings(max_examples=25, deadline=None)
def test_gamma_keeps_each_images_range(powers: list[float], low: float, span: float) -> None:
    images = low + span * pictures(len(powers), (5, 4))
    changed = gamma(images, torch.tensor(powers, dtype=torch.float64))
    for image, power, ours in zip(images.numpy().astype(float), powers, changed.numpy(), strict=True):
        reach = image.max() - image.min()
        unit = (image - image.min()) / reach if reach > 0 else np.zeros_like(image)
        np.testing.assert_allclose(ours, image.min() + reach * unit**power, atol=2e-4 * max(1, span))


def test_gamma_leaves_a_constant_image() -> None:
    images = torch.full((1, 1, 3, 3), 0.4)
    assert torch.equal(gamma(images, torch.tensor([0.5], dtype=torch.float64)), images)


def test_drawn_amounts_are_in_range() -> None:
    degrees = Rotation(degrees=20).draw(4000, seeded())
    assert -20 <= degrees.min() < -19 < 19 < degrees.max() <= 20
    factors = Intensity().draw(4000, seeded())
    assert 0.6 < factors.min() < 0.8
    assert factors.max() == 1
    assert (factors == 1).float().mean() == pytest.approx(0.54, abs=0.03)  # P(N(0.01, 0.1) > 0)
    assert Blur(sigma=2).draw(4000, seeded()).max() <= 2
    assert set(QuarterTurns().draw(100, seeded()).tolist()) == {1, 2, 3}


def test_noise_has_its_deviation_and_each_example_its_own() -> None:
    images = torch.zeros(2, 1, 100, 100)
    changed = Noise(sigma=0.2).change(images, torch.tensor([1, 2], dtype=torch.float64))
    assert changed.std() == pytest.approx(0.2, rel=0.02)
    assert not torch.equal(changed[0], changed[1])


def test_each_befalls_its_share_and_orders_vary() -> None:
    drawn = draw((Flip(probability=0), Gamma(probability=0.25), Blur(probability=1)), 4000, seeded())
    assert drawn.chosen.float().mean(0).tolist() == pytest.approx([0, 0.25, 1], abs=0.03)
    assert len({tuple(row) for row in drawn.order.tolist()}) == 6


@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
@pytest.mark.parametrize("spatial", [True, False])
def test_a_batch_equals_its_examples_one_by_one(size: tuple[int, int], spatial: bool) -> None:
    images = pictures(12, size)
    targets = pictures(12, size, 3, seed=1) > 0.5 if spatial else torch.rand(12, 3, generator=seeded()) > 0.5
    drawn = draw(ALL, 20, seeded())
    indices = list(range(4, 16))
    together = augment(images, targets, ALL, drawn, indices)
    for row, index in enumerate(indices):
        alone = augment(images[row : row + 1], targets[row : row + 1], ALL, drawn, [index])
        torch.testing.assert_close(together[0][row], alone[0][0], atol=1e-6, rtol=0)
        assert torch.equal(together[1][row], alone[1][0])


def test_the_order_of_application_is_the_one_drawn() -> None:
    both = (Gamma(), Intensity())
    images = pictures(2, (6, 6))
    amounts = torch.tensor([[2.0, 0.5], [2.0, 0.5]], dtype=torch.float64)
    drawn = Draw(torch.tensor([[0, 1], [1, 0]]), torch.ones(2, 2, dtype=torch.bool), amounts)
    changed, _ = augment(images, torch.zeros(2, 1), both, drawn, [0, 1])
    torch.testing.assert_close(changed[:1], 0.5 * gamma(images[:1], amounts[:1, 0]))
    torch.testing.assert_close(changed[1:], gamma(0.5 * images[1:], amounts[1:, 0]))


@pytest.mark.parametrize("one", [Flip(), Flip(axis="up-down"), QuarterTurns(), Rotation()], ids=str)
def test_masks_follow_their_image(one: Augmentation) -> None:
    """A disc that is the image is, changed, still where its mask is."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    disc = ((y - 10) ** 2 + (x - 20) ** 2 < 36).float()[None, None].repeat(8, 1, 1, 1)
    sure = one.model_copy(update={"probability": 1.0})
    images, masks = augment(disc, disc > 0.5, (sure,), draw((sure,), 8, seeded(3)), range(8))
    assert masks.dtype == torch.bool
    assert ((images > 0.5) != masks).float().mean() < 0.01
    assert not torch.equal(masks, disc > 0.5)


@pytest.mark.parametrize("one", [Intensity(), Gamma(), Blur(), Noise()], ids=str)
def test_masks_stay_where_nothing_moves(one: Augmentation) -> None:
    masks = pictures(4, (8, 8)) > 0.5
    sure = one.model_copy(update={"probability": 1.0})
    images, after = augment(pictures(4, (8, 8)), masks, (sure,), draw((sure,), 4, seeded()), range(4))
    assert torch.equal(after, masks)
    assert not torch.equal(images, pictures(4, (8, 8)))


def test_what_came_in_is_left_alone() -> None:
    images, masks = pictures(4, (8, 8)), pictures(4, (8, 8)) > 0.5
    before = images.clone(), masks.clone()
    augment(images, masks, ALL, draw(ALL, 4, seeded()), range(4))
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])


def test_no_augmentation_changes_nothing() -> None:
    images, targets = pictures(3, (5, 5)), torch.ones(3, 2)
    after = augment(images, targets, (), draw((), 3, seeded()), range(3))
    assert torch.equal(after[0], images)
    assert torch.equal(after[1], targets)


def test_their_kind_distinguishes_them() -> None:
    adapter = TypeAdapter(tuple[Augmentation, ...])
    assert adapter.validate_python(adapter.dump_python(ALL, mode="json")) == ALL
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        adapter.validate_python([{"kind": "shear"}])
