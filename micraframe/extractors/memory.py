"""How many images are computed together, and of how many the graphs are kept: by the memory that activations take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

from micraframe.reuse import reused_blocks
from micraframe.types import Layer

INSIDE = 4
"""Times the layers' own bytes that a pass takes: for what lies between layers, for gradients, for work space."""

BYTES = 4 << 30
"""For the graphs of a call, where the device is not asked how much it has."""

MAPPED = 32 << 20
"""Bytes from which on glibc, left to itself, asks the system for a block."""


class Plan(NamedTuple):
    """How a call goes about its images.

    Attributes:
        step: Images computed together.
        keep: Keep all graphs until the rule has chosen. Otherwise scores come from a pass of their own.
    """

    step: int
    keep: bool


def layer_bytes(layers: Sequence[Layer], size: tuple[int, ...], width: int) -> list[int]:
    """Return the bytes of each layer's activations, for an image of `size` (H, W) and values of `width` bytes."""
    return [layer.channels * math.prod(math.ceil(side / layer.stride) for side in size) * width for layer in layers]


def plan(count: int, image: int, budget: int, step: int | None) -> Plan:
    """Plan a call.

    Args:
        count: Images.
        image: Bytes that a pass takes for each.
        budget: Bytes there are.
        step: Images computed together; None: as many as there are bytes for.
    """
    most = max(1, budget // image)
    chosen = min(most, max(1, count)) if step is None else step
    return Plan(chosen, count <= max(most, chosen))


def smaller(plan: Plan) -> Plan | None:
    """Return what to try where memory did not suffice: first without keeping graphs, then with half the images."""
    if plan.keep:
        return plan._replace(keep=False)
    return plan._replace(step=plan.step // 2) if plan.step > 1 else None


def budget(device: torch.device) -> int:
    """Return the bytes that the graphs of a call may take: half of a GPU's free memory and of torch's reserve."""
    if device.type != "cuda":
        return BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)) // 2


def reused_if_large(
    device: torch.device, layers: Sequence[Layer], size: tuple[int, ...], width: int
) -> AbstractContextManager[None]:
    """Reuse blocks of memory on a CPU, where a layer takes such as would go back to the system: see `micraframe.reuse`.

    With smaller images it wins nothing.
    """
    large = device.type == "cpu" and max(layer_bytes(layers, size, width)) >= MAPPED
    return reused_blocks() if large else nullcontext()
