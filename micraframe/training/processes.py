"""One training in several processes, such as one per GPU.

Processes are started by `torchrun` or `accelerate launch`; a process started otherwise trains alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import broadcast
from torch import nn


class Share(NamedTuple):
    """The part of a batch that one process computes.

    Attributes:
        indices: Its examples.
        weight: The weight of each in a sum, so that every example of the batch counts once over all processes.
        scale: The factor of their mean loss, so that its mean over all processes is the mean over the batch.
    """

    indices: Sequence[int]
    weight: float
    scale: float


def share(batch: Sequence[int], process: int, processes: int) -> Share:
    """Return one process's share of a batch.

    Every process computes the whole of a batch with fewer than two examples per process, as batch normalisation needs
    more than one.
    """
    if len(batch) < 2 * processes:
        return Share(batch, 1 / processes, 1.0)
    start, stop = (number * len(batch) // processes for number in (process, process + 1))
    return Share(batch[start:stop], 1.0, (stop - start) * processes / len(batch))


def accelerator_for(device: torch.device) -> Accelerator:
    """Return accelerate's interface to the processes that train together on devices of this kind."""
    # accelerate's state is global: a study that trains first on a GPU and then on the CPU must reset it.
    if PartialState._shared_state and PartialState().device.type != device.type:
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        # Not accelerate's, which refuses a second precision in one process; a study may use several.
        mixed_precision="no",
        cpu=device.type == "cpu",
        # Not accelerate's: the user may have named one of several GPUs.
        device_placement=False,
    )


@torch.no_grad()
def share_statistics(module: nn.Module) -> None:
    """Copy the statistics of the first process to all processes.

    Batch normalisation sees a process's share, not the batch. Before each step torch's DistributedDataParallel copies
    the running statistics of the first process; this does so after the last step.
    """
    for buffer in module.buffers():
        buffer.copy_(broadcast(buffer))


def is_main_process() -> bool:
    """Return whether this is the process that writes files and prints."""
    return int(os.environ.get("RANK", "0")) == 0
