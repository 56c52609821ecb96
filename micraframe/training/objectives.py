"""Objectives: losses added to the label loss, for classifiers that pool evidence; and the moving average of weights.

An objective needs no annotation but the labels. There is one, `mix-consistency`: a rectangle of one image is pasted
into another. What the network finds in the mixture must be what the moving average of the network finds in the two
images, pasted alike, and nothing where an image is without the class: a structure is found by its looks and not by its
surroundings. It is CutMix (Yun, S. et al. ICCV 2019) as a consistency between a student and a mean teacher (Tarvainen,
A. and Valpola, H. NeurIPS 2017; French, G. et al. BMVC 2020).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast, final

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn
from torch.nn import functional

from micraframe.classifier import Classifier
from micraframe.errors import ConfigError
from micraframe.parameters import Parameters
from micraframe.pooling import LogSumExp


class MixConsistency(Parameters):
    """A mixture of two images holds what the moving average of the network finds in both; it doubles the time."""

    kind: Literal["mix-consistency"] = "mix-consistency"
    weight: float = Field(1.0, gt=0, description="Weight relative to the label loss.")


def _from_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Objective = Annotated[MixConsistency, BeforeValidator(_from_name)]
"""An objective: by name, or with its parameters."""


def mix(values: Tensor, partners: Tensor, inside: Tensor) -> Tensor:
    """Paste a rectangle of each one's partner.

    Args:
        values: (B, C, H, W).
        partners: int64 (B,): for each, the index of the one that it is mixed with.
        inside: bool (B, H, W), the rectangle.
    """
    return torch.where(inside[:, None], values[partners], values)


def averaged_images(present: Tensor, least: int = 16) -> Tensor:
    """Return the indices of the images that the averaged network has to see: those with a class, int64 (N,).

    In the others, nothing counts as found, whatever its evidence. At least `least` images, or all, are returned, so
    that torch computes them as it computes the whole batch: on a CPU, it uses other convolutions for fewer images, and
    their results differ by rounding.

    Args:
        present: (B, K): 1 for the classes that are in an image.
        least: Number of images.
    """
    lacking = (present == 0).all(1)
    count = max(len(present) - int(lacking.sum()), min(least, len(present)))
    chosen: Tensor = lacking.to(torch.int8).argsort(stable=True)[:count].sort().values
    return chosen


def draw_rectangles(count: int, size: tuple[int, int]) -> Tensor:
    """Draw a rectangle for each of `count` images of `size` cells (h, w) from torch's global generator.

    Its area is uniform from 0 to 1 and its shape that of the image, as in CutMix; it lies wholly inside.

    Returns:
        bool (count, h, w).
    """
    area, *corners = torch.rand((3, count))
    edges = []
    for side, corner in zip(size, corners, strict=True):
        length = (area.sqrt() * side).round()
        start = (corner * (side - length + 1)).floor()[:, None]
        cell = torch.arange(side)
        edges.append((cell >= start) & (cell < start + length[:, None]))
    inside: Tensor = edges[0][:, :, None] & edges[1][:, None, :]
    return inside


@final
class WithObjectives(nn.Module):
    """A classifier in training: its output is followed by the losses of objectives.

    In evaluation, the classifier is the moving average, if there is one.

    Attributes:
        classifier: It is trained.
        average: The moving average of its weights, or None.

    Args:
        classifier: One that pools evidence, if there are objectives.
        objectives: The objectives.
        decay: Of the moving average: the share of it that remains after a step. None for no average.

    Raises:
        ConfigError: If there are objectives, and the classifier does not pool evidence.
    """

    steps: Tensor

    def __init__(self, classifier: Classifier, objectives: Sequence[Objective], decay: float | None) -> None:
        super().__init__()
        if objectives and not isinstance(classifier.pooling, LogSumExp):
            raise ConfigError(f"{needs_evidence(objectives)}, got {classifier.pooling}")
        self.classifier = classifier
        self.objectives = tuple(objectives)
        self.decay = decay
        self.average: Classifier | None = None
        if decay is not None:
            self.average = copy.deepcopy(classifier).eval().requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> WithObjectives:
        """Set the mode of the classifier; its average is always in evaluation mode."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (B, K), followed in training by a loss for each objective, (B, K + objectives).

        Args:
            images: float32 (B, C, H, W).
            labels: bool (B, K).
        """
        if not self.training:
            return cast("Tensor", (self.classifier if self.average is None else self.average)(images))
        self._follow()
        logits, present = self.classifier(images), labels.to(images.dtype)
        losses = [one.weight * self._mix_consistency(images, present)[:, None] for one in self.objectives]
        return torch.cat([logits, *losses], 1)

    def _mix_consistency(self, images: Tensor, present: Tensor) -> Tensor:
        """Return the loss of each image, (B,)."""
        assert self.average is not None
        with torch.no_grad():
            which = averaged_images(present)
            places = torch.zeros(len(images), dtype=torch.int64, device=images.device)
            # The other images get any image's evidence: it is multiplied by 0.
            places[which] = torch.arange(len(which), device=images.device)
            asked = images[which].contiguous(memory_format=torch.channels_last)
            found = self.average.evidence(self.average.features(asked)[-1]).sigmoid()[places]
            found = found * present[:, :, None, None]
            partners = torch.randperm(len(images)).to(images.device)
            cells = draw_rectangles(len(images), (found.shape[2], found.shape[3])).to(images.device)
            targets = mix(found, partners, cells)
            rows, columns = (
                torch.arange(side, device=images.device).div(self.classifier.layers[-1].stride, rounding_mode="floor")
                for side in images.shape[2:]
            )
            pixels = cells[:, rows.clamp(max=cells.shape[1] - 1)][:, :, columns.clamp(max=cells.shape[2] - 1)]
            mixed = mix(images, partners, pixels).contiguous(memory_format=torch.channels_last)
        evidence = self.classifier.evidence(self.classifier.features(mixed)[-1])
        losses = functional.binary_cross_entropy_with_logits(evidence, targets.to(evidence.dtype), reduction="none")
        return losses.mean((1, 2, 3))

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights that the last step left.

        a <- d a + (1 - d) w with d = min(decay, (1 + n) / (10 + n)) after n steps, so that it forgets its start soon.
        """
        if self.average is None or self.decay is None:
            return
        done = int(self.steps)
        decay = min(self.decay, (1 + done) / (10 + done))
        for average, now in zip(self.average.state_dict().values(), self.classifier.state_dict().values(), strict=True):
            if average.is_floating_point():
                average.lerp_(now, 1 - decay)
            else:
                average.copy_(now)
        self.steps += 1


def needs_evidence(objectives: Sequence[Objective]) -> str:
    """Return what objectives expect, for an error."""
    names = " and ".join(one.kind for one in objectives)
    return f"objectives {names}: expected pooling log-sum-exp"
