"""What determines the bytes of a result, other than its inputs: libraries, device, precision, processor, threads.

Sums of floating point numbers depend on their order, which differs between instruction sets and numbers of threads: the
same training gives other weights with AVX2 than with AVX-512, and with one thread than with two.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch

from micraframe.errors import ConfigError
from micraframe.runtime.device import choose_device, choose_precision

LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "captum",
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "opencv-python-headless",
)
"""The distributions that compute numbers."""


def numerics(device: str = "auto", precision: str = "auto", threads: int | None = None) -> dict[str, str]:
    """Return everything that changes the bytes of a result although code, data and parameters are the same.

    Args:
        device: As in a configuration; `auto` is resolved. A device that this machine lacks, because only the workers
            of a cluster have it, keeps its name.
        precision: As in a configuration; `auto` is resolved.
        threads: Number of threads to compute with; None: as many as this process has.
    """
    try:
        chosen = choose_device(device)
        named = f"{chosen.type} {torch.cuda.get_device_name(chosen)}" if chosen.type == "cuda" else chosen.type
        resolved = str(choose_precision(precision, chosen)).removeprefix("torch.")
    except ConfigError:
        named, resolved = device, precision
    return {
        "device": named,
        "precision": resolved,
        "instructions": instructions(),
        "threads": str(threads or torch.get_num_threads()),
        **library_versions(),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute, without those that are not installed."""
    found = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def instructions() -> str:
    """Return the processor's instruction set that torch and oneDNN choose their kernels by, such as `AVX512, bf16`."""
    found = [torch.backends.cpu.get_cpu_capability()]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        found.append("bf16")
    if torch.ops.mkldnn._is_mkldnn_fp16_supported():
        found.append("fp16")
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        found.append(f"oneDNN up to {limit}")
    return ", ".join(found)


def machine() -> dict[str, str]:
    """Return what identifies this machine to a reader; none of it is part of a key."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": processor(),
        "cores": str(os.cpu_count() or ""),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the processor's name, as far as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
