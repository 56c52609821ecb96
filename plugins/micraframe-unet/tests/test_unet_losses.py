from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from micraframe_unet.losses import GeneralisedCrossEntropy, Loss, LossName, dice, mean_of_known, pixel_loss
from micraframe_unet.method import UNet
from micraframe_unet.targets import UNKNOWN
from pydantic import ValidationError

KINDS: tuple[Loss, ...] = (*get_args(LossName), GeneralisedCrossEntropy(), GeneralisedCrossEntropy(q=0.2))


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 3, 4, 5, generator=generator)
    targets = torch.randint(0, 3, (2, 3, 4, 5), generator=generator, dtype=torch.uint8)
    targets[0, 1] = UNKNOWN
    return logits, targets, 0.5 + torch.rand(3, generator=generator)


def slow(logits: np.ndarray, targets: np.ndarray, kind: Loss, weights: np.ndarray) -> float:
    images = []
    for image, truth in zip(logits, targets, strict=True):
        losses, overlaps = [], []
        for plane, known, weight in zip(image, truth, weights, strict=True):
            pixels = [(1 / (1 + math.exp(-y)), t) for y, t in zip(plane.flat, known.flat, strict=True) if t != UNKNOWN]
            if kind == "mse":
                each = [(p - t) ** 2 for p, t in pixels]
            elif isinstance(kind, GeneralisedCrossEntropy):
                q = kind.q
                each = [weight * (1 - p**q) / q if t else (1 - (1 - p) ** q) / q for p, t in pixels]
            else:
                each = [-weight * math.log(p) if t else -math.log(1 - p) for p, t in pixels]
            if each:
                losses.append(sum(each) / len(each))
            both, either = sum(p * t for p, t in pixels), sum(p + t for p, t in pixels)
            overlaps.append(1 - (2 * both + 1) / (either + 1))
        images.append(sum(losses) / len(losses) + (sum(overlaps) / len(overlaps) if kind == "bce+dice" else 0))
    return sum(images) / len(images)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000))
def test_a_loss_is_the_mean_of_means_over_known_pixels(kind: Loss, seed: int) -> None:
    logits, targets, weights = batch(seed)
    found = pixel_loss(logits, targets, kind, weights).item()
    assert found == pytest.approx(slow(logits.numpy(), targets.numpy(), kind, weights.numpy()), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_pixels_do_not_contribute(kind: Loss) -> None:
    logits, targets, weights = batch(0)
    unknown = targets == UNKNOWN
    logits.requires_grad_()
    loss = pixel_loss(logits, targets, kind, weights)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[unknown] == 0).all()
    assert (gradient[~unknown] != 0).all()
    assert pixel_loss(logits.masked_fill(unknown, 50), targets, kind, weights).item() == loss.item()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_mean_of_its_images_and_one_without_known_pixels_adds_nothing(kind: Loss) -> None:
    logits, targets, weights = batch(1)
    targets[0] = UNKNOWN
    together = pixel_loss(logits, targets, kind, weights).item()
    assert pixel_loss(logits[:1], targets[:1], kind, weights).item() == 0
    assert together == pytest.approx(pixel_loss(logits[1:], targets[1:], kind, weights).item() / 2, rel=1e-6)


def test_generalised_cross_entropy_lies_between_cross_entropy_and_the_absolute_error() -> None:
    logits, targets, _ = batch(2)
    ones = torch.ones(3)
    almost = pixel_loss(logits, targets, GeneralisedCrossEntropy(q=1e-6), ones)
    torch.testing.assert_close(almost, pixel_loss(logits, targets, "bce", ones), rtol=1e-4, atol=0)
    absolute = mean_of_known((logits.sigmoid() - targets.float()).abs(), targets != UNKNOWN)
    torch.testing.assert_close(pixel_loss(logits, targets, GeneralisedCrossEntropy(q=1), ones), absolute)


def test_a_contradicted_pixel_counts_less_and_extreme_logits_are_finite() -> None:
    logits = torch.tensor([-200.0, -3.0, -1.0, 200.0]).reshape(1, 1, 1, 4).requires_grad_()
    targets = torch.ones(1, 1, 1, 4, dtype=torch.uint8)
    gradients = []
    for kind in (GeneralisedCrossEntropy(q=0.7), "bce"):
        loss = pixel_loss(logits, targets, kind, torch.ones(1))
        assert loss.isfinite()
        gradients.append(torch.autograd.grad(loss, logits)[0])
    torch.testing.assert_close(gradients[0], gradients[1] * logits.sigmoid() ** 0.7)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("bce", "bce"),
        ("generalised-cross-entropy", GeneralisedCrossEntropy(q=0.7)),
        ({"kind": "generalised-cross-entropy", "q": 0.5}, GeneralisedCrossEntropy(q=0.5)),
    ],
)
def test_a_loss_by_name_or_with_parameters_survives_being_saved(given: Any, expected: Loss) -> None:
    params = UNet.Params(loss=given)
    assert params.loss == expected
    assert UNet.Params.model_validate(params.model_dump(mode="json")) == params


@pytest.mark.parametrize("wrong", ["dice", {"kind": "generalised-cross-entropy", "q": 0}])
def test_other_losses_are_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError, match="loss"):
        UNet.Params(loss=wrong)


def test_values_of_unknown_pixels_need_not_be_finite() -> None:
    values = torch.tensor([[[[1.0, math.nan]]]])
    assert mean_of_known(values, ~values.isnan()).item() == 1


def test_dice_of_an_empty_class_and_an_empty_mask_is_1() -> None:
    targets = torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    targets[0, 1, 0] = 1
    assert dice(targets == 1, targets).tolist() == [[1, 1]]
    assert dice(targets == 0, targets)[0, 0].item() == pytest.approx(0.1)
