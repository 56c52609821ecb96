"""What does it cost to sweep a large image with overlapping windows?

Dense against exact: the windows of 256 x 256 that begin in one tile of 1024 x 1024, with 75 % overlap, by MICRA-Net's
own network (32 to 256 filters); they take turns, so that a busy machine is busy for both. And the peak memory of a
process that sweeps a tiled TIFF of 10 240 x 10 240.

    python benchmarks/speed/sweep.py [--repeats 5] [--threads 1] [--side 10240] [--widths 32 64 128 256]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.config import Choice
from micraframe.micranet import FittedMicraNet, MicraNet
from micraframe.sweep import Options, sweep_image
from micraframe.sweep.engine import Engine, dense_tile, exact_tile, freeze, reach
from micraframe.sweep.image import open_image
from micraframe.sweep.windows import lay
from micraframe.types import DatasetInfo, Normalisation

WINDOW, OVERLAP, TILE = 256, 0.75, 1024
WIDTHS = (32, 64, 128, 256)
SPEEDUP, MEGABYTES = 12.0, 2048.0
"""The targets."""


def records(repeats: int = 5, side: int = 10240, widths: Sequence[int] = WIDTHS) -> list[dict[str, Any]]:
    """Return the speed-up of dense over exact sweeps, and the peak memory of a sweep."""
    return [speedup(repeats, widths), memory(side, widths)]


def speedup(repeats: int, widths: Sequence[int]) -> dict[str, Any]:
    """Time both on the middle one of 3 x 3 tiles, which has neighbours on all sides."""
    classifier, precision = freeze(classifier_of(widths), "float32")
    image = np.random.default_rng(0).random((3 * TILE, 3 * TILE), np.float32)
    layout = lay(image.shape, classifier.layers[-1].stride, (WINDOW, WINDOW), OVERLAP, TILE)
    halo = reach(classifier)
    ratios = []
    with open_image(image) as opened:
        engine = Engine(classifier, precision, opened, Normalisation(), *layout)
        dense_tile(engine, halo, 1, 1)
        for _ in range(repeats):
            start = time.perf_counter()
            dense_tile(engine, halo, 1, 1)
            between = time.perf_counter()
            exact_tile(engine, 1, 1)
            ratios.append((time.perf_counter() - between) / (between - start))
    return {
        "name": "sweep: dense over exact, 75 % overlap",
        "median": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "target": SPEEDUP,
        "compared": "seconds of exact per second of dense, at least the target",
    }


def memory(side: int, widths: Sequence[int]) -> dict[str, Any]:
    """Sweep an image in a process of its own, and ask the system for that process's peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tifffile.imwrite(
            folder / "image.tif", noise(side), shape=(side, side), dtype=np.uint8, tile=(512, 512), compression="zlib"
        )
        arguments = ["--inside", name, "--widths", *map(str, widths)]
        done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    peak = json.loads(done.stdout)
    return {
        "name": f"sweep: peak memory at {side} x {side}",
        "median": peak,
        "min": peak,
        "max": peak,
        "target": MEGABYTES,
        "compared": "megabytes, at most the target",
    }


def inside(folder: Path, widths: Sequence[int]) -> float:
    """Sweep the image of `folder`, and return the megabytes that this process took at most."""
    method = MicraNet(MicraNet.Params(backbone=Choice(name="unet-encoder", params={"widths": list(widths)})))
    info = DatasetInfo("noise", ("one", "two"), 1, Normalisation("min-max"), "0" * 64)
    fitted = FittedMicraNet(method.params, classifier_of(widths), info, {})
    sweep_image(fitted, folder / "image.tif", folder / "out", Options(window=(WINDOW, WINDOW), tile=TILE))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def classifier_of(widths: Sequence[int]) -> Classifier:
    """Return a classifier of two classes with random weights."""
    torch.manual_seed(0)
    return Classifier(*registry.build("backbone", "unet-encoder", widths=list(widths)).create(1), classes=2).eval()


def noise(side: int) -> Iterator[np.ndarray]:
    """Yield the tiles of an image of noise, one at a time."""
    generator = np.random.default_rng(0)
    for _ in range((-(-side // 512)) ** 2):
        yield generator.integers(0, 200, (512, 512), np.uint8)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=10240)
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.inside:
        print(inside(arguments.inside, arguments.widths))
        return
    for record in records(arguments.repeats, arguments.side, arguments.widths):
        print(f"{record['name']}: {record['median']:.4g} ({record['min']:.4g} to {record['max']:.4g})")
        print(f"    {record['compared']}; target {record['target']:g}")


if __name__ == "__main__":
    main()
