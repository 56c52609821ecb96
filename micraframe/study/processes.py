"""A study in the processes of one `torchrun`: they train together, and the first does everything else.

The first process announces every training to the others, which wait for the next one meanwhile; so only it holds locks,
predicts, measures and writes.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Final, final

from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list

from micraframe.runtime.device import choose_device
from micraframe.training.processes import accelerator_for

_PATIENCE: Final = timedelta(days=30)
"""How long a process waits for the next training, while the first one predicts and measures."""


@final
class Processes:
    """The processes that execute a study together; outside `torchrun` there is one.

    Args:
        device: The study's device.
    """

    def __init__(self, device: str = "auto") -> None:
        self._device = device
        self._alone = int(os.environ.get("WORLD_SIZE", "1")) < 2

    def announce(self, training_key: str | None) -> None:
        """Tell the other processes which training comes next; None: there is none."""
        if not self._alone:
            self._broadcast(training_key)

    def await_training(self) -> str | None:
        """Return the training that the first process announces; None: there is none."""
        return None if self._alone else self._broadcast(None)

    def _broadcast(self, training_key: str | None) -> str | None:
        device = choose_device(self._device)
        PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)
        accelerator_for(device)
        announced: list[str | None] = broadcast_object_list([training_key])
        return announced[0]
