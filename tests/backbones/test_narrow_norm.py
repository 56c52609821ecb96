from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from micraframe.backbones import narrow_norm
from micraframe.backbones.narrow_norm import batch_norm

# The exact normalisation is torch's own in float64; ours may not be further from it than rounding.
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2}


def made(shape: tuple[int, int, int, int], dtype: torch.dtype, seed: int) -> tuple[nn.BatchNorm2d, Tensor, Tensor]:
    """Return a normalisation with statistics and weights of its own, images, and a gradient."""
    generator = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm2d(shape[1])
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.copy_(0.5 + torch.rand(shape[1], generator=generator))
    images, gradient = (
        (2 * torch.randn(shape, generator=generator) + 1).to(dtype).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    return norm, images, gradient


def everything(norm: nn.BatchNorm2d, images: Tensor, gradient: Tensor, ours: bool) -> dict[str, Tensor]:
    """Return output, gradients and running statistics."""
    images = images.detach().requires_grad_()
    output = batch_norm(images, norm) if ours else norm(images)
    output.backward(gradient)
    assert images.grad is not None
    gradients = {name: parameter.grad for name, parameter in norm.named_parameters() if parameter.grad is not None}
    return {"output": output.detach(), "images": images.grad, **gradients, **dict(norm.named_buffers())}


@given(
    st.tuples(st.integers(2, 5), st.integers(1, 18), st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from(list(ROUNDING)),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_it_is_torchs(shape: tuple[int, int, int, int], dtype: torch.dtype, seed: int) -> None:
    norm, images, gradient = made(shape, dtype, seed)
    norm = norm.double() if dtype == torch.float64 else norm
    exact = everything(copy.deepcopy(norm).double(), images.double(), gradient.double(), ours=False)
    for name, tensor in everything(norm, images, gradient, ours=True).items():
        assert tensor.dtype == (dtype if name in ("output", "images") else norm.weight.dtype) or name.startswith("num")
        scale = max(1.0, float(exact[name].abs().max()))
        torch.testing.assert_close(tensor.double(), exact[name].double(), rtol=0, atol=ROUNDING[dtype] * scale)


def test_a_constant_channel_is_normalised_to_its_bias() -> None:
    norm, images, gradient = made((4, 3, 8, 8), torch.float32, 0)
    images[:, 1] = 7.0
    found = everything(norm, images, gradient, ours=True)
    # Rounding of the mean, by the square root of eps.
    torch.testing.assert_close(found["output"][:, 1], norm.bias[1].detach().expand(4, 8, 8), rtol=0, atol=1e-3)
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


@pytest.mark.parametrize("case", ["wide", "planes", "evaluation", "no statistics", "cumulative", "not affine", "odd"])
def test_elsewhere_it_is_torchs_to_the_bit(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"wide": (4, 16, 8, 8), "odd": (3, 4, 7, 5)}.get(case, (4, 4, 8, 8))
    norm, images, _ = made(shape, torch.float32, 1)
    if case == "planes":
        images = images.contiguous()
    if case in ("no statistics", "cumulative", "not affine"):
        norm = nn.BatchNorm2d(
            4,
            affine=case != "not affine",
            track_running_stats=case != "no statistics",
            momentum=None if case == "cumulative" else 0.1,
        )
    norm.train(case != "evaluation")
    monkeypatch.delattr(narrow_norm, "_Normalise")
    assert torch.equal(batch_norm(images, copy.deepcopy(norm)), norm(images))


def test_nothing_is_left_of_a_single_value() -> None:
    norm, images, _ = made((1, 4, 1, 1), torch.float32, 0)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm(images, norm)
