"""Checkpoints: the state of a training after an epoch, as safetensors and JSON, from which it can resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from micraframe.errors import ModelError
from micraframe.runtime.files import atomic_folder, digest, write_json

_KEPT = 2
"""Number of checkpoints to keep; the older one is used if the newer one is unreadable."""


class TrainingState(NamedTuple):
    """The state of a training after an epoch.

    Attributes:
        module: Parameters and buffers of the network.
        optimiser: Tensors of the optimiser, by index of the parameter and name.
        best: Parameters and buffers of the network at its lowest validation loss.
        rows: Rows of the log, one per epoch.
    """

    module: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    best: dict[str, Tensor]
    rows: list[dict[str, Any]]


@final
class Checkpoints:
    """A folder of checkpoints of one training.

    Args:
        folder: Created if it does not exist.
        signature: Hash of everything that determines the training.
    """

    def __init__(self, folder: Path, signature: str) -> None:
        self._folder = folder
        self._signature = signature

    def save(self, state: TrainingState) -> None:
        """Write the state, and remove all checkpoints but the newest two."""
        tensors = {
            f"{part}/{name}": tensor.detach().cpu().contiguous()
            for part in ("module", "optimiser", "best")
            for name, tensor in getattr(state, part).items()
        }
        # Clones: safetensors cannot hold tensors that share memory.
        content = safetensors.torch.save({name: tensor.clone() for name, tensor in tensors.items()})
        with atomic_folder(self._folder / f"epoch-{len(state.rows):06d}") as temporary:
            (temporary / "state.safetensors").write_bytes(content)
            write_json(
                temporary / "state.json",
                {"signature": self._signature, "sha256": digest(content), "rows": state.rows},
            )
        for old in self._generations()[_KEPT:]:
            shutil.rmtree(old)

    def restore(self) -> TrainingState | None:
        """Return the newest readable state, or None without one.

        Raises:
            ModelError: If the folder holds checkpoints of another training.
        """
        for leftover in self._folder.glob(".epoch-*"):
            shutil.rmtree(leftover)
        for folder in self._generations():
            try:
                record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
                content = (folder / "state.safetensors").read_bytes()
                signature, intact = record["signature"], record["sha256"] == digest(content)
            except (OSError, ValueError, KeyError):
                continue  # truncated by a power loss; resuming from the one before gives the same result
            if signature != self._signature:
                raise ModelError(
                    f"{self._folder}: expected checkpoints of this training, got those of another, with a different "
                    "network, samples, recipe, seed or precision; choose another folder, or delete this one"
                )
            if intact:
                parts: dict[str, dict[str, Tensor]] = {"module": {}, "optimiser": {}, "best": {}}
                for key, tensor in safetensors.torch.load(content).items():
                    part, _, name = key.partition("/")
                    parts[part][name] = tensor
                return TrainingState(**parts, rows=record["rows"])
        return None

    def _generations(self) -> list[Path]:
        """Return the folders of checkpoints, newest first."""
        return sorted(self._folder.glob("epoch-*"), reverse=True)


def tensors_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's tensors, by index of the parameter and name."""
    state = optimiser.state_dict()["state"]
    return {f"{number}/{name}": tensor for number, tensors in state.items() for name, tensor in tensors.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the tensors that `tensors_of` returned; the learning rate is unchanged."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition("/")
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape:
            # In the parameter's memory layout, which fused optimisers assume.
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the network's parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
