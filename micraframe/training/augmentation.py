"""Augmentation: changes that keep the meaning of an image, drawn for each example and applied to a whole batch.

The changes of an example are a row of a `Draw` for the whole epoch. They depend only on the epoch's seed and the
example's index: not on its batch, and not on where an interrupted training resumed.

Images are float32 (B, C, H, W). Targets (B, K, H, W) are moved together with the images; other targets stay the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from micraframe.parameters import Parameters

_SEEDS = 2**53
"""Below this, float64 represents every integer exactly."""


class _Change(Parameters, ABC):
    moves: ClassVar[bool] = False
    """Whether pixels change their positions, so that targets must move with them."""

    probability: float = Field(0.5, ge=0, le=1, description="Fraction of the examples that are changed.")

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the strength of the change for each example, float64 (count,)."""

    @abstractmethod
    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Return the changed images."""

    def follow(self, targets: Tensor, amounts: Tensor) -> Tensor:
        """Return the targets (B, K, H, W), moved like the images."""
        return self.change(targets, amounts) if self.moves else targets


class Flip(_Change):
    """Mirrors the image."""

    moves = True
    kind: Literal["flip"] = "flip"
    axis: Literal["left-right", "up-down"] = Field("left-right", description="Which sides to exchange.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return zeros; nothing is random but whether to mirror."""
        return torch.zeros(count, dtype=torch.float64)

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Return the changed images."""
        return images.flip(-1 if self.axis == "left-right" else -2)


class QuarterTurns(_Change):
    """Rotates the image by 90, 180 or 270 degrees; one that is not square by 180."""

    moves = True
    kind: Literal["quarter-turns"] = "quarter-turns"

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return numbers of quarters: 1, 2 or 3."""
        return torch.randint(1, 4, (count,), generator=generator).double()

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Return the changed images."""
        return quarter_turns(images, amounts.long())


class Rotation(_Change):
    """Rotates the image about its centre; pixels from outside are mirrored at the edge."""

    kind: Literal["rotation"] = "rotation"
    degrees: float = Field(30.0, gt=0, le=180, description="Largest angle in either direction; uniform.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return angles in degrees."""
        return _uniform(count, -self.degrees, self.degrees, generator)

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Return the changed images."""
        return rotate(images, amounts, "bilinear")

    def follow(self, targets: Tensor, amounts: Tensor) -> Tensor:
        """Return the targets, rotated like the images."""
        return rotate(targets.float(), amounts, "nearest").to(targets.dtype)


class _LogNormal(_Change):
    """A change by a factor or power that is log-normal and clipped."""

    mean: float = Field(description="Mean of the logarithm.")
    sigma: float = Field(ge=0, description="Standard deviation of the logarithm.")
    low: float = Field(0.0, ge=0, description="Lowest value.")
    high: float = Field(1.0, gt=0, description="Highest value.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return factors or powers."""
        normals = torch.randn(count, generator=generator, dtype=torch.float64)
        return (self.mean + self.sigma * normals).exp().clamp(self.low, self.high)


class Intensity(_LogNormal):
    """Multiplies the image by a factor, log-normal and clipped; the paper's numbers for F-actin."""

    kind: Literal["intensity"] = "intensity"
    mean: float = Field(0.01, description="Mean of the factor's logarithm.")
    sigma: float = Field(0.1, ge=0, description="Standard deviation of the factor's logarithm.")

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Return the changed images."""
        return images * _per_image(amounts, images)


class Gamma(_LogNormal):
    """Raises the image to a power, log-normal and clipped; the paper's numbers for F-actin."""

    kind: Literal["gamma"] = "gamma"
    mean: float = Field(0.005, description="Mean of the power's logarithm.")
    sigma: float = Field(0.0707, ge=0, description="Standard deviation of the power's logarithm.")

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Return the changed images."""
        return gamma(images, amounts)


class Blur(_Change):
    """Blurs the image with a Gaussian."""

    kind: Literal["blur"] = "blur"
    sigma: float = Field(2.0, gt=0, le=50, description="Largest sigma in pixels; uniform from 0.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return standard deviations in pixels."""
        return _uniform(count, 0, self.sigma, generator)

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Return the changed images."""
        return blur(images, amounts, radius=math.ceil(4 * self.sigma))


class Noise(_Change):
    """Adds normally distributed noise to every pixel."""

    kind: Literal["noise"] = "noise"
    sigma: float = Field(0.05, gt=0, description="Standard deviation, in units of the normalised image.")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return seeds."""
        return torch.randint(0, _SEEDS, (count,), generator=generator).double()

    def change(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Return the changed images."""
        return images + self.sigma * normal(amounts.long(), images)


Augmentation = Annotated[Flip | QuarterTurns | Rotation | Intensity | Gamma | Blur | Noise, Field(discriminator="kind")]


@dataclass(frozen=True)
class Draw:
    """The augmentations of each of N examples in one epoch.

    Attributes:
        order: int64 (N, A): the indices of the A augmentations in the order of application.
        chosen: bool (N, A): whether the augmentation is applied to the example.
        amounts: float64 (N, A): how strongly.
    """

    order: Tensor
    chosen: Tensor
    amounts: Tensor


def draw(augmentations: Sequence[Augmentation], count: int, generator: torch.Generator) -> Draw:
    """Draw for each of `count` examples which augmentations are applied, in what order and how strongly."""
    shape = (count, len(augmentations))
    order = torch.rand(shape, generator=generator).argsort(1)
    probabilities = torch.tensor([one.probability for one in augmentations])
    chosen = torch.rand(shape, generator=generator) < probabilities
    amounts = [one.draw(count, generator) for one in augmentations]
    return Draw(order, chosen, torch.stack(amounts, 1) if amounts else torch.zeros(shape, dtype=torch.float64))


def augment(
    images: Tensor, targets: Tensor, augmentations: Sequence[Augmentation], drawn: Draw, indices: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the images and targets of the examples with these indices, augmented as drawn.

    Args:
        images: float32 (B, C, H, W).
        targets: (B, K), or (B, K, H, W) that move with the images.
        augmentations: The A augmentations.
        drawn: The draw for all examples of the epoch.
        indices: The indices of the B examples among them.
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
            strength = amounts[rows, number]
            rows = rows.to(images.device)
            images[rows] = one.change(images[rows], strength)
            if spatial:
                targets[rows] = one.follow(targets[rows], strength)
    return images, targets


def quarter_turns(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate each of the images (B, C, H, W) by its number of quarters, anticlockwise; by 2 if not square."""
    if images.shape[-1] != images.shape[-2]:
        return images.rot90(2, (-2, -1))
    turned = torch.empty_like(images)
    for quarters in (1, 2, 3):
        rows = (turns == quarters).to(images.device)
        turned[rows] = images[rows].rot90(quarters, (-2, -1))
    return turned


def rotate(images: Tensor, degrees: Tensor, interpolation: Literal["bilinear", "nearest"]) -> Tensor:
    """Rotate each of the images (B, C, H, W) anticlockwise about its centre, mirrored at the edges."""
    height, width = images.shape[-2:]
    angles = degrees.deg2rad()
    cosine, sine, nothing = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # In grid_sample's coordinates, both sides of an image have length 2.
    rows = [[cosine, -sine * (height / width), nothing], [sine * (width / height), cosine, nothing]]
    back = torch.stack([torch.stack(row, 1) for row in rows], 1).to(images)
    grid = functional.affine_grid(back, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, interpolation, padding_mode="reflection", align_corners=False)


def gamma(images: Tensor, powers: Tensor) -> Tensor:
    """Raise each of the images (B, C, H, W) to its power, within its own range; a constant one is unchanged."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    span = high - low
    unit = ((images - low) / torch.where(span > 0, span, 1)).clamp(0, 1)
    return low + span * unit ** _per_image(powers, images)


def blur(images: Tensor, sigmas: Tensor, radius: int) -> Tensor:
    """Convolve each of the images (B, C, H, W) with a Gaussian; values at the edge continue beyond it.

    Args:
        images: The images.
        sigmas: Standard deviation in pixels for each image; 0 changes nothing.
        radius: Where the Gaussian is truncated, in pixels.
    """
    count, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    # At 0 only the centre is left, without a division by zero.
    spread = sigmas.clamp(min=1e-3)[:, None]
    kernels = torch.exp(-0.5 * (offsets / spread) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(images)
    planes = images.reshape(1, count * channels, height, width)
    planes = functional.pad(planes, (radius, radius, radius, radius), mode="replicate")
    planes = functional.conv2d(planes, kernels[:, None, :, None], groups=count * channels)
    planes = functional.conv2d(planes, kernels[:, None, None, :], groups=count * channels)
    return planes.reshape(count, channels, height, width)


def normal(seeds: Tensor, images: Tensor) -> Tensor:
    """Return standard normal numbers of the images' shape (B, C, H, W), from a seed for each image."""
    numbers = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(numbers).to(images)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)


def _per_image(amounts: Tensor, images: Tensor) -> Tensor:
    return amounts.to(images)[:, None, None, None]
