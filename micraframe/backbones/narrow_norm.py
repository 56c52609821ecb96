"""Batch normalisation that is fast on a CPU for images with few channels."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_LINE = 16
"""float32 numbers in a line of a CPU's cache."""

_ROW = 64
"""Vector width, in elements."""


def batch_norm(images: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Return `norm(images)` up to rounding, and update its running statistics.

    On a CPU, torch normalises channels-last images one pixel at a time. With few channels, registers stay partly empty,
    and per-thread sums share a cache line (false sharing): two threads are slower than one. Here, several neighbouring
    pixels are treated as one pixel with as many times the channels, and their statistics are merged afterwards. If that
    does not help, `norm` itself is called.

    Args:
        images: (B, C, H, W).
        norm: A normalisation of C channels.
    """
    batch, channels, height, width = images.shape
    pixels = batch * height * width
    together = math.gcd(pixels, _ROW // channels) if channels < _LINE else 1
    counted, mean, variance = norm.num_batches_tracked, norm.running_mean, norm.running_var
    if (
        together == 1
        or images.device.type != "cpu"
        or not images.is_contiguous(memory_format=torch.channels_last)
        or not (norm.training and norm.affine and norm.momentum is not None)
        or (counted is None or mean is None or variance is None)
    ):
        return cast("Tensor", norm(images))
    normalised, batch_mean, batch_variance = _Normalise.apply(images, norm.weight, norm.bias, norm.eps, together)
    with torch.no_grad():
        counted += 1
        mean.lerp_(batch_mean, norm.momentum)
        variance.lerp_(batch_variance * (pixels / (pixels - 1)), norm.momentum)
    return cast("Tensor", normalised)


class _Normalise(torch.autograd.Function):
    """Normalises channels-last images, `together` pixels at a time; also returns mean and (biased) variance (C,).

    With x' = (x - mean) / s and s^2 = variance + eps, y = w x' + b; for a loss whose gradient with respect to y is g,

        dw = sum(g x'), db = sum(g), dx = w / s (g - db / pixels - x' dw / pixels).
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float, together: int) -> Any:
        channels = len(weight)
        rows = _rows(images, together)
        # The running statistics only set the type: float32, even if the images are bfloat16.
        means, variances = torch.batch_norm_update_stats(
            rows, weight.new_zeros(rows.shape[1]), weight.new_ones(rows.shape[1]), 0.0
        )
        means, variances = means.view(-1, channels), variances.view(-1, channels)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        ctx.save_for_backward(rows, weight, mean, variance)
        ctx.eps, ctx.together = eps, together
        ctx.mark_non_differentiable(mean, variance)
        return _images(_affine(rows, mean, variance, weight, bias, eps), images.shape), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        rows, weight, mean, variance = ctx.saved_tensors
        times = (ctx.together,)
        # Mean and variance are treated as constants, which gives dx without its last two terms.
        dx, dw, db = torch.ops.aten.native_batch_norm_backward(
            _rows(gradient, ctx.together),
            rows,
            weight.repeat(times),
            mean.repeat(times),
            variance.repeat(times),
            None,
            None,
            False,
            ctx.eps,
            [True, True, True],
        )
        dw, db = dw.view(-1, len(weight)).sum(0), db.view(-1, len(weight)).sum(0)
        share = weight / (variance + ctx.eps).sqrt() / (rows.numel() / len(weight))
        dx -= _affine(rows, mean, variance, share * dw, share * db, ctx.eps)
        return _images(dx, gradient.shape), dw, db, None, None


def _rows(images: Tensor, together: int) -> Tensor:
    """Return images (B, C, H, W) as (B H W / together, together C)."""
    return images.permute(0, 2, 3, 1).reshape(-1, together * images.shape[1])


def _images(rows: Tensor, shape: torch.Size) -> Tensor:
    batch, channels, height, width = shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _affine(rows: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return rows standardised to mean 0 and variance 1, times weight, plus bias; all per channel, (C,)."""
    times = rows.shape[1] // len(mean)
    mean, variance, weight, bias = (part.repeat(times) for part in (mean, variance, weight, bias))
    return functional.batch_norm(rows, mean, variance, weight, bias, training=False, eps=eps)
