"""Changes that leave the meaning of an image as it was, each example's drawn by itself and applied to a whole batch.

What befalls an example is a row of a `Draw` made for a whole epoch, so that it depends on nothing but the epoch's seed
and the example's number: neither on the batch it is in nor on where a killed run went on.

Images are float32 (B, C, H, W). Targets with the image's rows and columns, (B, K, H, W), follow it; others do not.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from micraframe.interfaces import Parameters

_SEEDS = 2**53
"""Below it, float64 holds every whole number exactly."""


class _Change(Parameters, ABC):
    probability: float = Field(0.5, ge=0, le=1, description="Share of the examples that it befalls.")

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return float64 (count,): how much, for each example."""

    @abstractmethod
    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Return the changed images."""

    def follow(self, targets: Tensor, amounts: Tensor) -> Tensor:
        """Return the targets (B, K, H, W), moved as the images were."""
        return targets


class Flip(_Change):
    """Mirrors the image."""

    kind: Literal["flip"] = "flip"
    axis: Literal["left-right", "up-down"] = Field("left-right", description="What changes places.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `_Change.draw`; there is nothing to draw."""
        return torch.zeros(count, dtype=torch.float64)

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """See `_Change.change`."""
        return images.flip(-1 if self.axis == "left-right" else -2)

    def follow(self, targets: Tensor, amounts: Tensor) -> Tensor:
        """See `_Change.follow`."""
        return self.change(targets, amounts)


class QuarterTurns(_Change):
    """Turns the image by 90, 180 or 270 degrees; one that is not square by 180."""

    kind: Literal["quarter-turns"] = "quarter-turns"

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `_Change.draw`: 1, 2 or 3 quarters."""
        return torch.randint(1, 4, (count,), generator=generator).double()

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """See `_Change.change`."""
        return quarter_turns(images, amounts.long())

    def follow(self, targets: Tensor, amounts: Tensor) -> Tensor:
        """See `_Change.follow`."""
        return quarter_turns(targets, amounts.long())


class Rotation(_Change):
    """Turns the image about its centre; what comes in from outside is mirrored at the edge."""

    kind: Literal["rotation"] = "rotation"
    degrees: float = Field(30.0, gt=0, le=180, description="The most, either way; uniform.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `_Change.draw`: degrees."""
        return _uniform(count, -self.degrees, self.degrees, generator)

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """See `_Change.change`."""
        return rotate(images, amounts, "bilinear")

    def follow(self, targets: Tensor, amounts: Tensor) -> Tensor:
        """See `_Change.follow`."""
        return rotate(targets.float(), amounts, "nearest").to(targets.dtype)


class Intensity(_Change):
    """Multiplies the image by a factor, log-normal and clipped; the paper's numbers for F-actin."""

    kind: Literal["intensity"] = "intensity"
    mean: float = Field(0.01, description="Mean of the factor's logarithm.")
    sigma: float = Field(0.1, ge=0, description="Standard deviation of the factor's logarithm.")
    low: float = Field(0.0, ge=0, description="The least factor.")
    high: float = Field(1.0, gt=0, description="The greatest factor.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `_Change.draw`: factors."""
        return _lognormal(count, self.mean, self.sigma, self.low, self.high, generator)

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """See `_Change.change`."""
        return images * _per_image(amounts, images)


class Gamma(_Change):
    """Raises the image to a power, log-normal and clipped; the paper's numbers for F-actin."""

    kind: Literal["gamma"] = "gamma"
    mean: float = Field(0.005, description="Mean of the power's logarithm.")
    sigma: float = Field(0.0707, ge=0, description="Standard deviation of the power's logarithm.")
    low: float = Field(0.0, ge=0, description="The least power.")
    high: float = Field(1.0, gt=0, description="The greatest power.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `_Change.draw`: powers."""
        return _lognormal(count, self.mean, self.sigma, self.low, self.high, generator)

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """See `_Change.change`."""
        return gamma(images, amounts)


class Blur(_Change):
    """Blurs the image with a Gaussian."""

    kind: Literal["blur"] = "blur"
    sigma: float = Field(2.0, gt=0, le=50, description="The most, in pixels; uniform from 0.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `_Change.draw`: standard deviations in pixels."""
        return _uniform(count, 0, self.sigma, generator)

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """See `_Change.change`."""
        return blur(images, amounts, radius=math.ceil(4 * self.sigma))


class Noise(_Change):
    """Adds normally distributed noise to every pixel."""

    kind: Literal["noise"] = "noise"
    sigma: float = Field(0.05, gt=0, description="Its standard deviation, in units of the normalised image.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `_Change.draw`: seeds."""
        return torch.randint(0, _SEEDS, (count,), generator=generator).double()

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """See `_Change.change`."""
        return images + self.sigma * normal(amounts.long(), images)


Augmentation = Annotated[Flip | QuarterTurns | Rotation | Intensity | Gamma | Blur | Noise, Field(discriminator="kind")]


@dataclass(frozen=True)
class Draw:
    """What befalls each of N examples in one epoch.

    Attributes:
        order: int64 (N, A): the numbers of the A augmentations in the order of application.
        chosen: bool (N, A): does the augmentation befall the example.
        amounts: float64 (N, A): how much.
    """

    order: Tensor
    chosen: Tensor
    amounts: Tensor


def draw(augmentations: Sequence[Augmentation], count: int, generator: torch.Generator) -> Draw:
    """Draw for each of `count` examples which augmentations befall it, in what order and how much."""
    shape = (count, len(augmentations))
    order = torch.rand(shape, generator=generator).argsort(1)
    probabilities = torch.tensor([one.probability for one in augmentations])
    chosen = torch.rand(shape, generator=generator) < probabilities
    amounts = [one.draw(count, generator) for one in augmentations]
    return Draw(order, chosen, torch.stack(amounts, 1) if amounts else torch.zeros(shape, dtype=torch.float64))


def augment(
    images: Tensor, targets: Tensor, augmentations: Sequence[Augmentation], drawn: Draw, indices: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return images and targets as `drawn` for the examples of these indices.

    Args:
        images: float32 (B, C, H, W).
        targets: (B, K), or (B, K, H, W) that move with the images.
        augmentations: Those that `drawn` was drawn for.
        drawn: For all examples of the epoch.
        indices: The numbers of the B examples among them.
    """
    order, chosen, amounts = drawn.order[indices], drawn.chosen[indices], drawn.amounts[indices]
    images = images.clone()
    spatial = targets.ndim == 4
    targets = targets.clone() if spatial else targets
    for step in range(len(augmentations)):
        for number, one in enumerate(augmentations):
            rows = torch.nonzero((order[:, step] == number) & chosen[:, number])[:, 0]
            if not len(rows):
                continue
            much = amounts[rows, number]
            rows = rows.to(images.device)
            images[rows] = one.change(images[rows], much)
            if spatial:
                targets[rows] = one.follow(targets[rows], much)
    return images, targets


def quarter_turns(images: Tensor, turns: Tensor) -> Tensor:
    """Turn each of the images (B, C, H, W) by its number of quarters, anticlockwise; 2 where it is not square."""
    if images.shape[-1] != images.shape[-2]:
        return images.rot90(2, (-2, -1))
    turned = torch.empty_like(images)
    for quarters in (1, 2, 3):
        rows = (turns == quarters).to(images.device)
        turned[rows] = images[rows].rot90(quarters, (-2, -1))
    return turned


def rotate(images: Tensor, degrees: Tensor, interpolation: Literal["bilinear", "nearest"]) -> Tensor:
    """Turn each of the images (B, C, H, W) anticlockwise about its centre, mirrored at the edges."""
    height, width = images.shape[-2:]
    angles = degrees.deg2rad()
    cosine, sine, nothing = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # In grid_sample's coordinates both sides are 2 long, whatever their ratio.
    rows = [[cosine, -sine * (height / width), nothing], [sine * (width / height), cosine, nothing]]
    back = torch.stack([torch.stack(row, 1) for row in rows], 1).to(images)
    grid = functional.affine_grid(back, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, interpolation, padding_mode="reflection", align_corners=False)


def gamma(images: Tensor, powers: Tensor) -> Tensor:
    """Raise each of the images (B, C, H, W) to its power, within the image's own range; a constant one stays."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    span = high - low
    unit = ((images - low) / torch.where(span > 0, span, 1)).clamp(0, 1)
    return low + span * unit ** _per_image(powers, images)


def blur(images: Tensor, sigmas: Tensor, radius: int) -> Tensor:
    """Convolve each of the images (B, C, H, W) with a Gaussian; beyond the edge the edge's values go on.

    Args:
        images: The images.
        sigmas: Standard deviation in pixels, for each image; 0 leaves it as it is.
        radius: Where the Gaussian is cut off, in pixels.
    """
    count, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    # At 0 nothing but the centre is left, without a division by zero.
    spread = sigmas.clamp(min=1e-3)[:, None]
    kernels = torch.exp(-0.5 * (offsets / spread) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(images)
    planes = images.reshape(1, count * channels, height, width)
    planes = functional.pad(planes, (radius, radius, radius, radius), mode="replicate")
    planes = functional.conv2d(planes, kernels[:, None, :, None], groups=count * channels)
    planes = functional.conv2d(planes, kernels[:, None, None, :], groups=count * channels)
    return planes.reshape(count, channels, height, width)


def normal(seeds: Tensor, images: Tensor) -> Tensor:
    """Return standard normal numbers of the images' shape (B, C, H, W), each image's from its own seed."""
    numbers = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(numbers).to(images)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)


def _lognormal(count: int, mean: float, sigma: float, low: float, high: float, generator: torch.Generator) -> Tensor:
    normals = torch.randn(count, generator=generator, dtype=torch.float64)
    return (mean + sigma * normals).exp().clamp(low, high)


def _per_image(amounts: Tensor, images: Tensor) -> Tensor:
    return amounts.to(images)[:, None, None, None]
