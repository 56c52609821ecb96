"""Choice of the device and the precision to compute with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from micraframe.errors import ConfigError, reason_of


def choose_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the first GPU if there is one, otherwise the CPU.

    Raises:
        ConfigError: If this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"expected a device of this machine, got {name!r} ({reason_of(error)}); use auto, cpu, cuda or mps"
        ) from error
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type to compute convolutions in; `auto` is bfloat16 if the device is fast at it, otherwise float32.

    Raises:
        ConfigError: If it is none of `auto`, `float32` and `bfloat16`.
    """
    if name in ("float32", "bfloat16"):
        return torch.float32 if name == "float32" else torch.bfloat16
    if name != "auto":
        raise ConfigError(f"expected precision auto, float32 or bfloat16, got {name!r}")
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # In hardware (AVX-512 BF16 or AMX); emulated bfloat16 would be slower than float32.
        fast = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def exact_float32() -> Iterator[None]:
    """Make NVIDIA GPUs compute float32 as float32, until the end: by default torch uses TF32 for convolutions.

    TF32 rounds factors to 10 bits. Holds for all threads of the process; bfloat16 is not affected.
    """
    # Not torch.backends.cudnn.flags, which switches off everything that is not named, cuDNN included.
    parts = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]  # it has
    before = [part.fp32_precision for part in parts]
    try:
        for part in parts:
            part.fp32_precision = "ieee"
        yield
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision
