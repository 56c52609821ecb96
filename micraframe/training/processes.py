"""One training in several processes, such as one per GPU: what each of them does.

Processes are started by `torchrun` or `accelerate launch`; one that nobody has started so is alone.
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
    """What one process does of a batch.

    Attributes:
        indices: The examples that it is shown.
        weight: What each of them counts in a sum, so that over all processes every example of the batch counts once.
        scale: Of their mean loss, so that its mean over all processes is the mean over the batch.
    """

    indices: Sequence[int]
    weight: float
    scale: float


def share(batch: Sequence[int], process: int, processes: int) -> Share:
    """Return one process's share of a batch.

    A batch of less than two examples per process is shown to all of them whole, for there is nothing to normalise a
    single example by.
    """
    if len(batch) < 2 * processes:
        return Share(batch, 1 / processes, 1.0)
    start, stop = (number * len(batch) // processes for number in (process, process + 1))
    return Share(batch[start:stop], 1.0, (stop - start) * processes / len(batch))


def accelerator_for(device: torch.device) -> Accelerator:
    """Return accelerate's handle on the processes that train together on devices of this kind."""
    # accelerate's state is the process's: a study that trains here on a GPU and there on the CPU must renew it.
    if PartialState._shared_state and PartialState().device.type != device.type:
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        # Never accelerate's: it refuses a second precision in one process, where a study trains in several.
        mixed_precision="no",
        cpu=device.type == "cpu",
        # Ours, too: the user may have named one of several GPUs.
        device_placement=False,
    )


@torch.no_grad()
def share_statistics(module: nn.Module) -> None:
    """Give every process the first one's statistics.

    Batch normalisation sees a process's share, not the batch, and before each step torch's DistributedDataParallel
    sets its running statistics to the first process's; this does so after the last one.
    """
    for buffer in module.buffers():
        buffer.copy_(broadcast(buffer))


def is_main_process() -> bool:
    """Say whether this is the process that writes and speaks for all."""
    return int(os.environ.get("RANK", "0")) == 0
